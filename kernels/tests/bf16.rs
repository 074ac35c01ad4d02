//! Products in bf16 against products of the rounded operands in f64, on every unit there is.

use planish_kernels::bf16::{Unit, multiply_with, round};
use planish_kernels::product::{Start, View};

/// Seeded numbers in (−1.5, 1.5) (SplitMix64).
fn numbers(count: usize, mut seed: u64) -> Vec<f32> {
    let draw = |_| {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        3.0 * ((z >> 40) as f32) / (1 << 24) as f32 - 1.5
    };
    (0..count).map(draw).collect()
}

/// Index of row `i` and column `j` of matrix `n` in a view's buffer.
fn at(v: &View, n: usize, i: usize, j: usize) -> usize {
    let outer = n / v.batch[1] * v.batch_strides[0] + n % v.batch[1] * v.batch_strides[1];
    v.offset + outer + i * v.row_stride + j * v.col_stride
}

/// The same matrix among other numbers: rows and columns lie apart.
fn apart(rows: usize, cols: usize) -> (View, usize) {
    let view =
        View { offset: 5, row_stride: 3 * cols + 4, col_stride: 3, ..View::matrix(rows, cols) };
    (view, 5 + rows * (3 * cols + 4))
}

struct Case {
    a: (Vec<f32>, View),
    b: (Vec<f32>, View),
    c: (Vec<f32>, View),
    row: Option<Vec<f32>>,
    sum: bool,
    factor: f64,
}

impl Case {
    /// m × k by k × n; `kind` chooses how each matrix lies.
    fn new([m, n, k]: [usize; 3], kind: usize) -> Self {
        let lay = |rows: usize, cols: usize, kind: usize, seed: u64| match kind % 3 {
            0 => (numbers(rows * cols, seed), View::matrix(rows, cols)),
            1 => (numbers(rows * cols, seed), View::matrix(cols, rows).t()),
            _ => {
                let (view, size) = apart(rows, cols);
                (numbers(size, seed), view)
            }
        };
        let c = lay(m, n, kind / 9, 3);
        let plain = c.0.len() == m * n && c.1.col_stride == 1;
        Self {
            a: lay(m, k, kind, 1),
            b: lay(k, n, kind / 3, 2),
            row: (plain && kind % 2 == 1).then(|| numbers(n, 4)),
            c,
            sum: kind % 2 == 0,
            factor: if kind % 5 == 3 { -0.3 } else { 1.0 },
        }
    }

    fn run(&self, unit: Unit) -> Vec<f32> {
        let mut c = self.c.0.clone();
        let start = match &self.row {
            Some(row) => Start::Row(row.as_slice()),
            None if self.sum => Start::Sum,
            None => Start::Zero,
        };
        let (a, b) = ((&self.a.0[..], self.a.1), (&self.b.0[..], self.b.1));
        multiply_with(unit, (&mut c, self.c.1), start, a, b, self.factor);
        c
    }

    /// Where `c` is further from the product of the rounded operands than roundings of the K sums
    /// explain: each is at most 2⁻²⁴ of Σ|a||b|, and there are K + 2 of them, start and factor
    /// included. Twice that, since a sum of roundings also rounds.
    fn flaw(&self, c: &[f32]) -> Option<String> {
        let v = &self.c.1;
        let k = self.a.1.cols;
        let mut touched = vec![false; c.len()];
        for n in 0..v.batch[0] * v.batch[1] {
            for i in 0..v.rows {
                for j in 0..v.cols {
                    let place = at(v, n, i, j);
                    touched[place] = true;
                    let start = match &self.row {
                        Some(row) => f64::from(row[j]),
                        None if self.sum => f64::from(self.c.0[place]),
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
                    let found = f64::from(c[place]);
                    if !((found - expected).abs() <= bound) {
                        return Some(format!("[{n}, {i}, {j}]: {found}, expected {expected}"));
                    }
                }
            }
        }
        let spoilt = (0..c.len()).find(|&i| !touched[i] && c[i].to_bits() != self.c.0[i].to_bits());
        spoilt.map(|i| format!("{i} is outside the view and was written"))
    }
}

#[test]
fn products_of_any_size_and_layout_are_those_of_the_rounded_operands() {
    let sizes = [1, 2, 15, 16, 17, 31, 32, 33, 48, 50, 65, 97];
    for unit in Unit::available() {
        for (i, m) in sizes.iter().enumerate() {
            for (j, n) in sizes.iter().enumerate() {
                for (l, k) in sizes.iter().enumerate() {
                    let case = Case::new([*m, *n, *k], (i + 5 * j + 7 * l) % 27);
                    let flaw = case.flaw(&case.run(*unit));
                    assert_eq!(flaw, None, "{unit:?}, {m} × {k} by {k} × {n}");
                }
            }
        }
        for kind in 0..27 {
            for size in
                [[37, 70, 41], [0, 3, 4], [3, 0, 4], [3, 4, 0], [40, 300, 2100], [2070, 17, 33]]
            {
                let case = Case::new(size, kind);
                assert_eq!(case.flaw(&case.run(*unit)), None, "{unit:?}, {size:?}, layout {kind}");
            }
        }
    }
}
