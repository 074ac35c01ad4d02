//! Matrix products with every kind of view, compared with sums in f64.

use planish_kernels::product::{Start, View};

/// C = start + factor · A·B.
pub trait Multiply:
    Fn((&mut [f32], View), Start<f32>, (&[f32], View), (&[f32], View), f64)
{
}
impl<F: Fn((&mut [f32], View), Start<f32>, (&[f32], View), (&[f32], View), f64)> Multiply for F {}

/// Seeded numbers in (−1.5, 1.5) (SplitMix64).
pub fn numbers(count: usize, mut seed: u64) -> Vec<f32> {
    let draw = |_| {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        3.0 * ((z >> 40) as f32) / (1 << 24) as f32 - 1.5
    };
    (0..count).map(draw).collect()
}

/// Index of element (`i`, `j`) of matrix `n` in a view's buffer.
fn at(v: &View, n: usize, i: usize, j: usize) -> usize {
    let outer = n / v.batch[1] * v.batch_strides[0] + n % v.batch[1] * v.batch_strides[1];
    v.offset + outer + i * v.row_stride + j * v.col_stride
}

/// A matrix with gaps between rows and between columns.
fn with_gaps(rows: usize, cols: usize) -> (View, usize) {
    let view =
        View { offset: 5, row_stride: 3 * cols + 4, col_stride: 3, ..View::matrix(rows, cols) };
    (view, 5 + rows * (3 * cols + 4))
}

/// Number of memory layouts of [`batch`].
pub const BATCHES: usize = 6;

/// Two by three matrices: contiguous; the heads of a larger buffer; or three shared by
/// both outer entries.
fn batch(rows: usize, cols: usize, kind: usize) -> (View, usize) {
    let (rows, cols) = if kind.is_multiple_of(2) { (rows, cols) } else { (cols, rows) };
    let dense = View::batched(2, 3, rows, cols);
    let (view, size) = match kind / 2 {
        0 => (dense, 6 * rows * cols),
        1 => {
            let (row_stride, image) = (3 * cols + 2, rows * (3 * cols + 2) + 7);
            let batch_strides = [image, cols];
            (View { offset: 4, row_stride, batch_strides, ..dense }, 4 + 2 * image)
        }
        _ => (View { batch_strides: [0, rows * cols], ..dense }, 3 * rows * cols),
    };
    (if kind.is_multiple_of(2) { view } else { view.t() }, size)
}

/// A product with operands in one of several memory layouts.
pub struct Case {
    pub a: (Vec<f32>, View),
    pub b: (Vec<f32>, View),
    pub c: (Vec<f32>, View),
    pub row: Option<Vec<f32>>,
    pub sum: bool,
    pub factor: f64,
}

impl Case {
    /// m × k by k × n. `kind` selects the layout of each matrix.
    pub fn new([m, n, k]: [usize; 3], kind: usize) -> Self {
        let make = |rows: usize, cols: usize, kind: usize, seed: u64| match kind % 3 {
            0 => (numbers(rows * cols, seed), View::matrix(rows, cols)),
            1 => (numbers(rows * cols, seed), View::matrix(cols, rows).t()),
            _ => {
                let (view, size) = with_gaps(rows, cols);
                (numbers(size, seed), view)
            }
        };
        let c = make(m, n, kind / 9, 3);
        let plain = c.0.len() == m * n && c.1.col_stride == 1;
        Self {
            a: make(m, k, kind, 1),
            b: make(k, n, kind / 3, 2),
            row: (plain && kind % 2 == 1).then(|| numbers(n, 4)),
            c,
            sum: kind.is_multiple_of(2),
            factor: if kind % 5 == 3 { -0.3 } else { 1.0 },
        }
    }

    /// Six products m × k by k × n. `kind` selects one of [`BATCHES`] layouts for each operand.
    pub fn batched([m, n, k]: [usize; 3], kind: usize) -> Self {
        let make = |(view, size): (View, usize), seed| (numbers(size, seed), view);
        Self {
            a: make(batch(m, k, kind % BATCHES), 1),
            b: make(batch(k, n, kind / BATCHES), 2),
            c: make(batch(m, n, 0), 3),
            row: None,
            sum: false,
            factor: 0.5,
        }
    }

    /// C after `multiply`.
    pub fn run(&self, multiply: impl Multiply) -> Vec<f32> {
        let mut c = self.c.0.clone();
        let start = match &self.row {
            Some(row) => Start::Row(row.as_slice()),
            None if self.sum => Start::Sum,
            None => Start::Zero,
        };
        let (a, b) = ((&self.a.0[..], self.a.1), (&self.b.0[..], self.b.1));
        multiply((&mut c, self.c.1), start, a, b, self.factor);
        c
    }

    /// The first number of `c` whose error exceeds the bound, if any. Operands are first mapped by
    /// `round`. Each of K + 2 roundings (including start and factor) is at most 2⁻²⁴ of Σ|a||b|;
    /// the bound is twice that, because sums of roundings round too.
    pub fn flaw(&self, c: &[f32], round: fn(f32) -> f32) -> Option<String> {
        let v = &self.c.1;
        let k = self.a.1.cols;
        let mut touched = vec![false; c.len()];
        for n in 0..v.batch[0] * v.batch[1] {
            for i in 0..v.rows {
                for j in 0..v.cols {
                    let index = at(v, n, i, j);
                    touched[index] = true;
                    let start = match &self.row {
                        Some(row) => f64::from(row[j]),
                        None if self.sum => f64::from(self.c.0[index]),
                        None => 0.0,
                    };
                    let (mut sum, mut size) = (0.0, 0.0);
                    for l in 0..k {
                        let a = f64::from(round(self.a.0[at(&self.a.1, n, i, l)]));
                        let b = f64::from(round(self.b.0[at(&self.b.1, n, l, j)]));
                        sum += a * b;
                        size += (a * b).abs();
                    }
                    let expected = start + self.factor * sum;
                    let bound = (k + 2) as f64
                        * 2f64.powi(-23)
                        * (start.abs() + self.factor.abs() * size + f64::from(f32::MIN_POSITIVE));
                    let found = f64::from(c[index]);
                    let error = (found - expected).abs();
                    if error.is_nan() || error > bound {
                        return Some(format!("[{n}, {i}, {j}]: {found}, expected {expected}"));
                    }
                }
            }
        }
        let overwritten =
            (0..c.len()).find(|&i| !touched[i] && c[i].to_bits() != self.c.0[i].to_bits());
        overwritten.map(|i| format!("{i} is outside the view and was written"))
    }
}
