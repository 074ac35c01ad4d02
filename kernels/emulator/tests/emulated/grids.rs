//! Operations on grids of tokens, with more channels, filter places and rows than a block: compared
//! with the CPU in f64, with equal bits for every thread order, in every type.

use crate::checks::{Stream, norm, numbers, tensor};
use crate::ops::Emulated;
use candle_core::{DType, Tensor};
use planish_kernels::registry::Sample;
use planish_kernels::{
    DepthwiseConv, DualTensor, GlobalResponseNorm, Op, Saved, TokenPatches, TransposeTokens,
};

/// Types, numbers of tangents, and tolerances relative to the norm. The rounding error of f64 is
/// 1e-16, of f32 6e-8, of bf16 2⁻⁹ per stored result; sums cost one to two digits. In bf16 gx of a
/// response norm depends on intermediate results that are rounded as well.
const TYPES: [(DType, usize, f64); 3] =
    [(DType::F64, 3, 1e-13), (DType::F32, 3, 3e-6), (DType::BF16, 0, 1e-2)];

fn samples() -> Vec<Sample> {
    let conv = |grid, kernel, padding| DepthwiseConv { grid, kernel, padding };
    vec![
        Sample::new(conv([9, 10], [7, 7], [3, 3]), &[&[2, 90, 70], &[70, 1, 7, 7], &[70]]),
        // More places of a filter row than a block of the weight's gradient has.
        Sample::new(conv([2, 21], [1, 19], [0, 9]), &[&[1, 42, 33], &[33, 1, 1, 19]]),
        // More rows than ranges of a sum.
        Sample::new(conv([67, 2], [3, 1], [1, 0]), &[&[2, 134, 2], &[2, 1, 3, 1]]),
        Sample::new(GlobalResponseNorm { eps: 1e-6 }, &[&[3, 37, 70], &[70], &[70]]),
        Sample::new(GlobalResponseNorm { eps: 0.1 }, &[&[2, 3, 3072], &[3072], &[3072]]),
        Sample::new(TransposeTokens, &[&[2, 70, 33]]),
        Sample::new(TokenPatches { grid: [6, 8], size: [2, 4] }, &[&[2, 48, 33]]),
    ]
}

/// Seeded numbers that every type represents, rounded to bf16.
fn dual(stream: &mut Stream, dims: &[usize], k: usize) -> DualTensor {
    let mut rounded = |dims: &[usize]| {
        let exact = tensor(&stream.numbers(dims), dims, DType::F32);
        exact.to_dtype(DType::BF16).unwrap().to_dtype(DType::F64).unwrap()
    };
    let tangent = (k > 0).then(|| rounded(&[&[k], dims].concat()));
    DualTensor::new(rounded(dims), tangent).unwrap()
}

fn cast(x: &DualTensor, dtype: DType) -> DualTensor {
    let to = |x: &Tensor| x.to_dtype(dtype).unwrap();
    DualTensor::new(to(x.value()), x.tangent().map(to)).unwrap()
}

/// Value and gradients with tangents, as separate vectors.
fn run(op: &dyn Op, x: &[DualTensor], gy: &DualTensor) -> Vec<Vec<f64>> {
    let needs_grad = vec![true; x.len()];
    let save = op.save_set(&needs_grad);
    let saved = Saved {
        inputs: x
            .iter()
            .enumerate()
            .map(|(i, x)| (save.inputs >> i & 1 == 1).then(|| x.clone()))
            .collect(),
        output: None,
        dims: x.iter().map(|x| x.dims().to_vec()).collect(),
    };
    let y = op.value(&x.iter().collect::<Vec<_>>()).unwrap();
    let gradients = op.vjp(&saved, gy, &needs_grad).unwrap();
    let all = std::iter::once(y).chain(gradients.into_iter().flatten());
    all.flat_map(|x| {
        let (value, tangent) = x.into_parts();
        let planes =
            tangent.map(|t| (0..t.dims()[0]).map(|k| numbers(&t.get(k).unwrap())).collect());
        [vec![numbers(&value)], planes.unwrap_or_default()].concat()
    })
    .collect()
}

#[test]
fn operations_on_grids_match_the_cpu() {
    for (dtype, k, tolerance) in TYPES {
        for i in 0..samples().len() {
            let Sample { op, dims } = samples().remove(i);
            let mut stream = Stream(3);
            let x: Vec<DualTensor> = dims.iter().map(|dims| dual(&mut stream, dims, k)).collect();
            let shapes: Vec<&[usize]> = dims.iter().map(Vec::as_slice).collect();
            let gy = dual(&mut stream, &op.shape(&shapes).unwrap(), k);
            let expected = run(&*op, &x, &gy);
            // Parameters of bf16 tokens are f32.
            let parameter = if dtype == DType::BF16 { DType::F32 } else { dtype };
            let stored =
                |(i, x): (usize, &DualTensor)| cast(x, if i == 0 { dtype } else { parameter });
            let x: Vec<DualTensor> = x.iter().enumerate().map(stored).collect();
            let gy = cast(&gy, dtype);
            let what = format!("{op:?} {dtype:?}");
            let emulated = |order| {
                let op = Emulated { inner: samples().remove(i).op, order, threads: None };
                run(&op, &x, &gy)
            };
            let found = emulated(0);
            assert_eq!(found.len(), expected.len(), "{what}");
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
                let (error, scale) = (norm(&error), norm(expected));
                assert!(
                    error <= tolerance * scale,
                    "{what}, plane {i}: {error:e} against {scale:e}"
                );
            }
            for order in [1, 2] {
                assert_eq!(found, emulated(order), "{what}: order {order}");
            }
        }
    }
}
