//! Row kernels on unusual numbers of rows and columns: compared with the CPU in f64, with equal
//! bits for every thread order, and correct for every number of threads per row.

use crate::checks::{Stream, norm, numbers, tensor};
use crate::ops::Emulated;
use candle_core::{DType, Device, Tensor};
use planish_kernels::{
    Add, BiasGelu, BiasResidual, CrossEntropy, DualTensor, Gelu, GeluForm, LayerNorm, LayerScale,
    Op, Result, Saved, Scale, Softmax, SwiGlu,
};

const COLUMNS: [usize; 6] = [1, 31, 33, 197, 768, 3072];
/// Thread orders: ascending, descending, two shuffled.
const ORDERS: [u32; 4] = [0, 1, 2, 3];
/// Threads per row, besides the planner's choice.
const THREADS: [u32; 3] = [32, 64, 512];
/// The rounding error of f64 is 1e-16. Thousands of terms, and 1/σ of few numbers, cost two to
/// three digits.
const EXACT: f64 = 1e-12;
/// The rounding error of f32 is 6e-8. Sums and cancellation cost one and a half digits.
const SINGLE: f64 = 3e-6;
/// The rounding error of bf16 is 2⁻⁹ per stored result; gradients are rounded once more than
/// values.
const HALF: f64 = 6e-3;

type Make = Box<dyn Fn(usize) -> Box<dyn Op>>;

/// Operations, with the shapes of their inputs as functions of rows and columns.
fn operations(n: usize) -> Vec<(Make, Vec<Shape>)> {
    use Shape::{Columns, Rows};
    let op = |make: fn() -> Box<dyn Op>| -> Make { Box::new(move |_| make()) };
    let labels: Make = Box::new(move |rows| {
        let labels: Vec<u32> = (0..rows).map(|i| (i * 7 % n) as u32).collect();
        Box::new(CrossEntropy { labels: labels.into(), smoothing: 0.1 })
    });
    vec![
        (op(|| Box::new(LayerNorm { eps: 1e-3 })), vec![Rows, Columns, Columns]),
        (op(|| Box::new(Softmax)), vec![Rows]),
        (labels, vec![Rows]),
        (op(|| Box::new(Gelu { form: GeluForm::Exact })), vec![Rows]),
        (op(|| Box::new(Gelu { form: GeluForm::Tanh })), vec![Rows]),
        (op(|| Box::new(Gelu { form: GeluForm::Quick })), vec![Rows]),
        (op(|| Box::new(SwiGlu)), vec![Rows, Rows]),
        (op(|| Box::new(Add)), vec![Rows, Rows]),
        (op(|| Box::new(Add)), vec![Rows, Columns]),
        (op(|| Box::new(Scale { factor: 0.7 })), vec![Rows]),
        (op(|| Box::new(LayerScale)), vec![Rows, Columns]),
        (op(|| Box::new(BiasGelu { form: GeluForm::Exact })), vec![Rows, Columns]),
        (op(|| Box::new(BiasGelu { form: GeluForm::Tanh })), vec![Rows, Columns]),
        (op(|| Box::new(BiasGelu { form: GeluForm::Quick })), vec![Rows, Columns]),
        (op(|| Box::new(BiasResidual)), vec![Rows, Columns, Rows]),
    ]
}

#[derive(Clone, Copy)]
enum Shape {
    Rows,
    Columns,
}

/// Inputs and a cotangent in f64.
struct Problem {
    x: Vec<DualTensor>,
    gy: DualTensor,
}

fn dual(stream: &mut Stream, dims: &[usize], k: usize) -> DualTensor {
    let value = tensor(&stream.numbers(dims), dims, DType::F64);
    let planes = [&[k], dims].concat();
    let tangent = (k > 0).then(|| tensor(&stream.numbers(&planes), &planes, DType::F64));
    DualTensor::new(value, tangent).unwrap()
}

impl Problem {
    fn new(op: &dyn Op, shapes: &[Shape], [rows, n]: [usize; 2], k: usize) -> Self {
        let mut stream = Stream(n as u64);
        let x = shapes.iter().map(|shape| match shape {
            Shape::Rows => dual(&mut stream, &[rows, n], k),
            Shape::Columns => dual(&mut stream, &[n], k),
        });
        let x = x.collect();
        let per_row = op.name() == "cross_entropy";
        let y_dims = [rows, n];
        let gy = dual(&mut stream, if per_row { &y_dims[..1] } else { &y_dims }, k);
        Self { x, gy }
    }

    /// Converted to a storage type. Parameters of bf16 rows stay f32.
    fn stored(&self, shapes: &[Shape], dtype: DType) -> Self {
        let as_type = |x: &DualTensor, dtype: DType| {
            let to = |x: &Tensor| x.to_dtype(dtype).unwrap();
            DualTensor::new(to(x.value()), x.tangent().map(to)).unwrap()
        };
        let of = |shape: &Shape| match (shape, dtype) {
            (Shape::Columns, DType::BF16) => DType::F32,
            _ => dtype,
        };
        let x = self.x.iter().zip(shapes).map(|(x, shape)| as_type(x, of(shape))).collect();
        Self { x, gy: as_type(&self.gy, dtype) }
    }

    /// Value and gradients with tangents, as separate vectors.
    fn run(&self, op: &dyn Op) -> Result<Vec<Vec<f64>>> {
        let y = op.value(&self.x.iter().collect::<Vec<_>>())?;
        let needs_grad = vec![true; self.x.len()];
        let save = op.save_set(&needs_grad);
        let inputs = self.x.iter().enumerate();
        let saved = Saved {
            inputs: inputs.map(|(i, x)| (save.inputs >> i & 1 == 1).then(|| x.clone())).collect(),
            output: save.output.then(|| y.clone()),
            dims: self.x.iter().map(|x| x.dims().to_vec()).collect(),
        };
        let gradients = op.vjp(&saved, &self.gy, &needs_grad)?;
        let mut planes = Vec::new();
        for result in std::iter::once(Some(y)).chain(gradients) {
            let (value, tangent) = result.unwrap().into_parts();
            planes.push(numbers(&value));
            if let Some(tangent) = tangent {
                for k in 0..tangent.dims()[0] {
                    planes.push(numbers(&tangent.get(k)?));
                }
            }
        }
        Ok(planes)
    }
}

fn compare(what: &str, found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: planes");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
        // Inputs are of order one, so errors of nearly cancelled results are relative to 0.1.
        let (error, scale) = (norm(&difference), norm(expected).max(0.1));
        assert!(error <= tolerance * scale, "{what}, plane {i}: {error:e} against {scale:e}");
    }
}

/// Checks every operation at these sizes, in all thread orders and with all numbers of threads.
fn check(rows: usize, columns: &[usize], tangents: &[usize], dtypes: &[(DType, f64)]) {
    check_with(rows, columns, tangents, dtypes, &ORDERS, &THREADS);
}

fn check_with(
    rows: usize,
    columns: &[usize],
    tangents: &[usize],
    dtypes: &[(DType, f64)],
    orders: &[u32],
    all_threads: &[u32],
) {
    for &n in columns {
        for (make, shapes) in operations(n) {
            for &k in tangents {
                let op = make(rows);
                let exact = Problem::new(&*op, &shapes, [rows, n], k);
                for &(dtype, tolerance) in dtypes {
                    let problem = exact.stored(&shapes, dtype);
                    let what = format!("{op:?} {dtype:?} {rows}×{n}, {k} tangents");
                    // The CPU uses the same rounded inputs.
                    let expected = problem.stored(&shapes, DType::F64).run(&*op).unwrap();
                    let emulated = |order, threads| {
                        let op = Emulated { inner: make(rows), order, threads };
                        problem.run(&op).unwrap()
                    };
                    let first = emulated(orders[0], None);
                    compare(&what, &first, &expected, tolerance);
                    let bits = |planes: &[Vec<f64>]| -> Vec<u64> {
                        planes.iter().flatten().map(|x| x.to_bits()).collect()
                    };
                    for &order in &orders[1..] {
                        let again = emulated(order, None);
                        assert_eq!(bits(&first), bits(&again), "{what}: order {order}");
                    }
                    for &threads in all_threads {
                        let what = format!("{what}, {threads} threads");
                        compare(&what, &emulated(0, Some(threads)), &expected, tolerance);
                    }
                }
            }
        }
    }
}

#[test]
fn odd_sizes_in_f64() {
    check(3, &COLUMNS, &[0, 3], &[(DType::F64, EXACT)]);
}

#[test]
fn odd_sizes_in_f32() {
    check(3, &COLUMNS, &[0, 3], &[(DType::F32, SINGLE)]);
}

#[test]
fn odd_sizes_in_bf16() {
    check(3, &COLUMNS, &[0], &[(DType::BF16, HALF)]);
}

#[test]
fn one_row_and_no_rows() {
    let dtypes = [(DType::F64, EXACT), (DType::F32, SINGLE)];
    check(1, &[1, 33, 768], &[0, 2], &dtypes);
    for n in [1, 33, 768] {
        for (make, shapes) in operations(n) {
            let op = Emulated { inner: make(0), order: 0, threads: None };
            let planes = Problem::new(&op, &shapes, [0, n], 2).run(&op).unwrap();
            // Sums over no rows are zero; all other outputs are empty.
            assert!(planes.iter().flatten().all(|&x| x == 0.0), "{op:?}");
            let sums = shapes.iter().filter(|shape| matches!(shape, Shape::Columns)).count();
            assert_eq!(planes.iter().map(Vec::len).sum::<usize>(), 3 * sums * n, "{op:?}");
        }
    }
}

#[test]
fn more_rows_than_blocks_of_a_sum() {
    // 512 ranges of two or three rows; the last ones are shorter.
    check_with(1031, &[3], &[1], &[(DType::F64, EXACT)], &[2, 1], &[64]);
}

#[test]
fn missing_tangents_are_treated_as_zero() {
    let shapes = [Shape::Rows, Shape::Columns, Shape::Columns];
    let inner = || Box::new(LayerNorm { eps: 1e-3 });
    let op = Emulated { inner: inner(), order: 0, threads: None };
    for present in 0..3 {
        let mut problem = Problem::new(&op, &shapes, [4, 33], 2);
        let zeros = |x: &DualTensor| Tensor::zeros(x.dims(), DType::F64, &Device::Cpu).unwrap();
        let mut explicit = Problem { x: problem.x.clone(), gy: problem.gy.clone() };
        for (i, x) in problem.x.iter_mut().enumerate().filter(|&(i, _)| i != present) {
            *x = DualTensor::constant(x.value().clone());
            let zero = Tensor::stack(&[zeros(x), zeros(x)], 0).unwrap();
            explicit.x[i] = DualTensor::new(x.value().clone(), Some(zero)).unwrap();
        }
        let expected = explicit.run(&*(inner() as Box<dyn Op>)).unwrap();
        compare("absent", &problem.run(&op).unwrap(), &expected, EXACT);
        compare("explicit zeros", &explicit.run(&op).unwrap(), &expected, EXACT);
    }
}
