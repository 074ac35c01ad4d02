//! Values and gradients on the CPU against candle-nn and candle's autograd, an independent
//! implementation, in f32 and f64.

#[allow(dead_code)]
mod checks;

use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Conv2d, Conv2dConfig, LayerNorm, Linear, loss, ops};
use checks::{Stream, assert_close, numbers, tensor};
use planish_kernels::tokens::Patches;
use planish_kernels::{self as planish, DualTensor, GeluForm, Op, Saved};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Relative to the norm. The rounding errors are 6e-8 and 1e-16; sums and cancellation cost one to
/// two digits, which candle's different order of sums does not share.
const TOLERANCE: [(DType, f64); 2] = [(DType::F32, 3e-6), (DType::F64, 1e-13)];

/// Exact in f32, because candle stores ε as f32.
const EPS: f64 = 1.0 / (1 << 20) as f64;

/// Seeded inputs of these shapes.
fn inputs(stream: &mut Stream, dims: &[&[usize]], dtype: DType) -> Vec<Tensor> {
    dims.iter().map(|dims| tensor(&stream.numbers(dims), dims, dtype)).collect()
}

/// Compares y of an operation with that of `reference`.
fn check_value(op: &dyn Op, dims: &[&[usize]], reference: impl Fn(&[Tensor]) -> Result<Tensor>) {
    for (dtype, tolerance) in TOLERANCE {
        let x = inputs(&mut Stream(23), dims, dtype);
        let expected = reference(&x).unwrap();
        let x: Vec<DualTensor> = x.into_iter().map(DualTensor::constant).collect();
        let y = op.value(&x.iter().collect::<Vec<_>>()).unwrap();
        let what = format!("{op:?} {dims:?} {dtype:?}");
        assert_close(&what, &numbers(y.value()), &numbers(&expected), tolerance);
    }
}

/// Compares y and the gradients of Σ gy y of an operation with those of `reference`.
fn check(op: &dyn Op, dims: &[&[usize]], reference: impl Fn(&[Tensor]) -> Result<Tensor>) {
    for (dtype, tolerance) in TOLERANCE {
        let mut stream = Stream(23);
        let x: Vec<Var> =
            inputs(&mut stream, dims, dtype).iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let inputs: Vec<DualTensor> =
            x.iter().map(|x| DualTensor::constant(x.as_detached_tensor())).collect();
        let y = op.value(&inputs.iter().collect::<Vec<_>>()).unwrap();
        let expected =
            reference(&x.iter().map(|x| x.as_tensor().clone()).collect::<Vec<_>>()).unwrap();
        let what = |part: &str| format!("{op:?} {dims:?} {dtype:?}: {part}");
        assert_eq!(y.dims(), expected.dims(), "{}", what("shape"));
        assert_close(&what("value"), &numbers(y.value()), &numbers(&expected), tolerance);

        let gy = tensor(&stream.numbers(y.dims()), y.dims(), dtype);
        let store = (expected * &gy).unwrap().sum_all().unwrap().backward().unwrap();
        let saved = Saved {
            inputs: inputs.iter().cloned().map(Some).collect(),
            output: Some(y),
            dims: dims.iter().map(|dims| dims.to_vec()).collect(),
        };
        let needs_grad = vec![true; x.len()];
        let found = op.vjp(&saved, &DualTensor::constant(gy), &needs_grad).unwrap();
        for (i, (x, g)) in x.iter().zip(found).enumerate() {
            let (g, expected) = (g.unwrap(), store.get(x).unwrap());
            let what = what(&format!("gradient {i}"));
            assert_close(&what, &numbers(g.value()), &numbers(expected), tolerance);
        }
    }
}

#[test]
fn linear() {
    let op = planish::Linear::default();
    check(&op, &[&[3, 5, 7], &[4, 7], &[4]], |x| {
        Linear::new(x[1].clone(), Some(x[2].clone())).forward(&x[0])
    });
    check(&op, &[&[6, 33], &[20, 33]], |x| Linear::new(x[1].clone(), None).forward(&x[0]));
}

/// Composed from candle's operations, because its fused layer norm has no gradient and no f64.
#[test]
fn layer_norm() {
    let dims: [&[usize]; 3] = [&[3, 5, 48], &[48], &[48]];
    check(&planish::LayerNorm { eps: EPS }, &dims, |x| {
        let normed = LayerNorm::new_no_bias(x[1].clone(), EPS).forward(&x[0])?;
        normed.broadcast_add(&x[2])
    });
}

#[test]
fn softmax() {
    check(&planish::Softmax, &[&[2, 3, 33]], |x| ops::softmax(&x[0], D::Minus1));
    let x = tensor(&Stream(5).numbers(&[4, 197]), &[4, 197], DType::F32);
    let y = planish::Softmax.value(&[&DualTensor::constant(x.clone())]).unwrap();
    let expected = numbers(&ops::softmax_last_dim(&x).unwrap());
    assert_close("fused softmax", &numbers(y.value()), &expected, TOLERANCE[0].1);
}

/// candle's GELU gradients use constants of six digits; those of erf and tanh are exact.
#[test]
fn gelu() {
    let exact =
        |x: &Tensor| -> Result<Tensor> { x * (((x * FRAC_1_SQRT_2)?.erf()? * 0.5)? + 0.5)? };
    let tanh = |x: &Tensor| -> Result<Tensor> {
        let cubic = (x * ((x.sqr()? * 0.044715)? + 1.0)?)?;
        x * (((cubic * (2.0 / PI).sqrt())?.tanh()? * 0.5)? + 0.5)?
    };
    let [op, op_tanh] = [GeluForm::Exact, GeluForm::Tanh].map(|form| planish::Gelu { form });
    check_value(&op, &[&[7, 33]], |x| x[0].gelu_erf());
    check_value(&op_tanh, &[&[7, 33]], |x| x[0].gelu());
    check(&op, &[&[7, 33]], |x| exact(&x[0]));
    check(&op_tanh, &[&[7, 33]], |x| tanh(&x[0]));
    let dims: [&[usize]; 2] = [&[7, 33], &[33]];
    let bias = |x: &[Tensor]| x[0].broadcast_add(&x[1]);
    check(&planish::BiasGelu { form: GeluForm::Exact }, &dims, |x| exact(&bias(x)?));
    check(&planish::BiasGelu { form: GeluForm::Tanh }, &dims, |x| tanh(&bias(x)?));
}

/// candle averages over the batch; the operation gives one loss per row.
#[test]
fn cross_entropy() {
    let labels: Vec<u32> = vec![3, 0, 6, 2, 5];
    let op = planish::CrossEntropy { labels: labels.clone().into(), smoothing: 0.0 };
    check(&op, &[&[5, 7]], |x| {
        let rows = labels.iter().enumerate().map(|(i, &label)| {
            let target = Tensor::new(&[label], &Device::Cpu)?;
            loss::cross_entropy(&x[0].narrow(0, i, 1)?, &target)
        });
        Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)
    });
}

/// softmax(q kᵀ/√d) v with a separate dimension for heads.
#[test]
fn attention() {
    const HEADS: usize = 3;
    let split = |x: &Tensor, parts: usize| -> Result<Vec<Tensor>> {
        let (b, t, width) = x.dims3()?;
        let x = x.reshape((b, t, parts, HEADS, width / parts / HEADS))?;
        let part = |i| x.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        (0..parts).map(part).collect()
    };
    let attend = |q: &Tensor, k: &Tensor, v: &Tensor| -> Result<Tensor> {
        let scale = 1.0 / (q.dim(D::Minus1)? as f64).sqrt();
        let scores = (q.matmul(&k.t()?.contiguous()?)? * scale)?;
        let y = ops::softmax(&scores, D::Minus1)?.matmul(v)?;
        y.transpose(1, 2)?.contiguous()?.flatten_from(2)
    };
    let op = planish::Attention::new(HEADS);
    check(&op, &[&[2, 5, 3 * HEADS * 4]], |x| {
        let qkv = split(&x[0], 3)?;
        attend(&qkv[0], &qkv[1], &qkv[2])
    });
    check(&op, &[&[2, 1, HEADS * 4], &[2, 5, 2 * HEADS * 4]], |x| {
        let (q, kv) = (split(&x[0], 1)?, split(&x[1], 2)?);
        attend(&q[0], &kv[0], &kv[1])
    });
}

/// Patches and a linear layer are a convolution whose stride is its kernel size.
#[test]
fn patch_embedding() {
    for (dtype, tolerance) in TOLERANCE {
        let mut stream = Stream(29);
        let mut random = |dims: &[usize]| tensor(&stream.numbers(dims), dims, dtype);
        let (x, w, b) = (random(&[2, 3, 8, 12]), random(&[10, 3, 4, 4]), random(&[10]));
        let config = Conv2dConfig { stride: 4, ..Default::default() };
        let conv = Conv2d::new(w.clone(), Some(b.clone()), config).forward(&x).unwrap();
        let expected = conv.flatten_from(2).unwrap().transpose(1, 2).unwrap();
        let [x, w, b] = [x, w, b].map(DualTensor::constant);
        let patches = Patches { size: [4, 4] }.value(&[&x]).unwrap();
        let w = planish::Flatten.value(&[&w]).unwrap();
        let y = planish::Linear::default().value(&[&patches, &w, &b]).unwrap();
        assert_eq!(y.dims(), expected.dims());
        let what = format!("patch embedding {dtype:?}");
        assert_close(&what, &numbers(y.value()), &numbers(&expected), tolerance);
    }
}

/// Tokens (B, H·W, C) as images (B, C, H, W), and back.
fn images(x: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
    let (b, _, c) = x.dims3()?;
    x.transpose(1, 2)?.reshape((b, c, height, width))
}

fn tokens(x: &Tensor) -> Result<Tensor> {
    x.flatten_from(2)?.transpose(1, 2)
}

#[test]
fn depthwise_conv() {
    let op = planish::DepthwiseConv { grid: [9, 15], kernel: [7, 7], padding: [3, 3] };
    check(&op, &[&[2, 135, 20], &[20, 1, 7, 7], &[20]], |x| {
        let y = tokens(&images(&x[0], [9, 15])?.conv2d(&x[1], 3, 1, 1, 20)?)?;
        y.broadcast_add(&x[2])
    });
}

#[test]
fn downsampling() {
    let patches = planish::TokenPatches { grid: [4, 6], size: [2, 2] };
    for (dtype, tolerance) in TOLERANCE {
        let x = inputs(&mut Stream(31), &[&[2, 24, 5], &[7, 5, 2, 2]], dtype);
        let expected = tokens(&images(&x[0], [4, 6]).unwrap().conv2d(&x[1], 0, 2, 1, 1).unwrap());
        let x: Vec<DualTensor> = x.into_iter().map(DualTensor::constant).collect();
        let cut = patches.value(&[&x[0]]).unwrap();
        let w = planish::Flatten.value(&[&x[1]]).unwrap();
        let y = planish::Linear::default().value(&[&cut, &w]).unwrap();
        let what = format!("downsampling {dtype:?}");
        assert_close(&what, &numbers(y.value()), &numbers(&expected.unwrap()), tolerance);
    }
}

#[test]
fn global_response_norm() {
    let op = planish::GlobalResponseNorm { eps: EPS };
    check(&op, &[&[2, 7, 33], &[33], &[33]], |x| {
        let g = x[0].sqr()?.sum_keepdim(1)?.sqrt()?;
        let n = g.broadcast_div(&(g.mean_keepdim(D::Minus1)? + EPS)?)?;
        let scaled = x[0].broadcast_mul(&n)?.broadcast_mul(&x[1])?;
        (&x[0] + scaled)?.broadcast_add(&x[2])
    });
}
