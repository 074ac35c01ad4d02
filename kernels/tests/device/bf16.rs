//! Operations on tensors stored in bf16 on the device, compared with the CPU.

use super::checks::{Stream, assert_close, numbers, tensor};
use candle_core::{DType, Device, Tensor};
use planish_kernels::cast::Cast;
use planish_kernels::{
    Add, Attention, BiasGelu, BiasResidual, DualTensor, Error, FirstTokens, Gelu, GeluForm,
    LayerNorm, LayerScale, Linear, MeanTokens, Op, PickToken, Products, Saved,
};

/// A result is rounded once, by at most 2⁻⁸ of itself. In attention, scores and weights are also
/// stored in bf16: four roundings.
const ROUNDING: f64 = 1.0 / 256.0;

/// An operation, the shapes and types of its operands, and the number of roundings of a result.
struct Case {
    op: Box<dyn Op>,
    dims: Vec<(Vec<usize>, DType)>,
    roundings: f64,
}

fn case(op: impl Op + 'static, activations: &[&[usize]], parameters: &[&[usize]]) -> Case {
    let of = |all: &[&[usize]], dtype| all.iter().map(|d| (d.to_vec(), dtype)).collect::<Vec<_>>();
    let dims = [of(activations, DType::BF16), of(parameters, DType::F32)].concat();
    Case { op: Box::new(op), dims, roundings: 1.0 }
}

fn cases() -> Vec<Case> {
    let products = Products::Bf16;
    let linear = || Linear { products };
    let mut residual = case(BiasResidual, &[&[5, 33], &[5, 33]], &[&[33]]);
    residual.dims.swap(1, 2);
    let attention = |heads, dims: &[&[usize]]| Case {
        roundings: 4.0,
        ..case(Attention { heads, products }, dims, &[])
    };
    vec![
        case(LayerNorm { eps: 1e-6 }, &[&[3, 5, 48]], &[&[48], &[48]]),
        case(Gelu { form: GeluForm::Exact }, &[&[7, 33]], &[]),
        case(BiasGelu { form: GeluForm::Exact }, &[&[7, 33]], &[&[33]]),
        case(BiasGelu { form: GeluForm::Tanh }, &[&[4, 64]], &[&[64]]),
        residual,
        case(Add, &[&[2, 3, 17], &[2, 3, 17]], &[]),
        case(LayerScale, &[&[3, 4, 17]], &[&[17]]),
        case(PickToken { index: 1 }, &[&[3, 4, 17]], &[]),
        case(FirstTokens { count: 2 }, &[&[3, 4, 16]], &[]),
        case(MeanTokens { skip: 1 }, &[&[3, 4, 17]], &[]),
        case(linear(), &[&[3, 5, 24]], &[&[10, 24], &[10]]),
        case(linear(), &[&[6, 3]], &[&[2, 3]]),
        attention(2, &[&[2, 5, 36]]),
        attention(2, &[&[2, 1, 8], &[2, 5, 16]]),
    ]
}

/// Random numbers that are exact in `dtype`.
fn seeded(stream: &mut Stream, dims: &[usize], dtype: DType) -> Tensor {
    let x = tensor(&stream.numbers(dims), dims, DType::F32);
    x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
}

fn saved(op: &dyn Op, x: &[DualTensor], y: DualTensor) -> Saved {
    let save = op.save_set(&vec![true; x.len()]);
    let inputs = x.iter().enumerate();
    Saved {
        inputs: inputs.map(|(i, x)| (save.inputs >> i & 1 == 1).then(|| x.clone())).collect(),
        output: save.output.then_some(y),
        dims: x.iter().map(|x| x.dims().to_vec()).collect(),
    }
}

/// A tensor of type `dtype` on the device.
fn on_device(x: &Tensor, dtype: DType, device: &Device) -> DualTensor {
    DualTensor::constant(x.to_dtype(dtype).unwrap().to_device(device).unwrap())
}

fn read_back(x: &DualTensor) -> Vec<f64> {
    numbers(&x.value().to_device(&Device::Cpu).unwrap())
}

#[test]
fn bf16_operations_match_rounded_f32_operations() {
    let (device, mut stream) = (super::device(), Stream(11));
    for Case { op, dims, roundings } in cases() {
        let x: Vec<_> = dims.iter().map(|(d, dtype)| seeded(&mut stream, d, *dtype)).collect();
        let cpu: Vec<_> = x.iter().map(|x| DualTensor::constant(x.clone())).collect();
        let gpu: Vec<_> = x.iter().zip(&dims).map(|(x, d)| on_device(x, d.1, &device)).collect();
        let y = op.value(&cpu.iter().collect::<Vec<_>>()).unwrap();
        let found = op.value(&gpu.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((found.value().dtype(), found.dims()), (DType::BF16, y.dims()), "{op:?}");
        let bound = roundings * ROUNDING;
        assert_close(&format!("{op:?}"), &read_back(&found), &numbers(y.value()), bound);

        let gy = seeded(&mut stream, y.dims(), DType::BF16);
        let gpu_gy = on_device(&gy, DType::BF16, &device);
        let needs_grad = vec![true; x.len()];
        let gradients =
            op.vjp(&saved(&*op, &cpu, y), &DualTensor::constant(gy), &needs_grad).unwrap();
        let found = op.vjp(&saved(&*op, &gpu, found), &gpu_gy, &needs_grad).unwrap();
        for (i, (g, expected)) in found.iter().zip(&gradients).enumerate() {
            let (g, expected) = (g.as_ref().unwrap(), expected.as_ref().unwrap());
            assert_eq!(g.value().dtype(), dims[i].1, "{op:?}, operand {i}");
            let what = format!("{op:?}, gradient of operand {i}");
            assert_close(&what, &read_back(g), &numbers(expected.value()), bound);
        }
    }
}

/// The classifier and the embedding stay f32 on CPU and GPU. Both round the operands of their
/// products in the same way.
#[test]
fn f32_products_round_operands_as_on_the_cpu() {
    let (device, mut stream) = (super::device(), Stream(12));
    let op = Linear { products: Products::Bf16 };
    let dims = [&[3, 5, 24][..], &[10, 24], &[10]];
    let x = dims.map(|dims| seeded(&mut stream, dims, DType::F32));
    let cpu = x.each_ref().map(|x| DualTensor::constant(x.clone()));
    let gpu = x.each_ref().map(|x| on_device(x, DType::F32, &device));
    let (y, found) = (op.value(&cpu.each_ref()).unwrap(), op.value(&gpu.each_ref()).unwrap());
    assert_close("value", &read_back(&found), &numbers(y.value()), 1e-6);
    let exact = Linear::default().value(&cpu.each_ref()).unwrap();
    let rounded =
        numbers(exact.value()).iter().zip(read_back(&found)).any(|(a, b)| (a - b).abs() > 1e-4);
    assert!(rounded, "operands were not rounded");
}

#[test]
fn casts_round_to_nearest_and_gradients_are_cast_back() {
    let device = super::device();
    let x = tensor(&[1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -3.1, 0.0], &[5], DType::F32);
    let cast = Cast { from: DType::F32, to: DType::BF16 };
    let gpu = on_device(&x, DType::F32, &device);
    let y = cast.value(&[&gpu]).unwrap();
    assert_eq!(y.value().dtype(), DType::BF16);
    assert_eq!(read_back(&y), [1.0, 1.0, 1.0 + 4.0 / 256.0, -3.09375, 0.0]);
    let g = cast.vjp(&saved(&cast, &[gpu], y.clone()), &y, &[true]).unwrap();
    let g = g[0].as_ref().unwrap();
    assert_eq!((g.value().dtype(), read_back(g)), (DType::F32, read_back(&y)));
}

#[test]
fn unsupported_bf16_operands_are_errors() {
    let device = super::device();
    let x = tensor(&[0.5; 18], &[1, 3, 6], DType::F32);
    let (half, single) = (on_device(&x, DType::BF16, &device), on_device(&x, DType::F32, &device));
    let weight = on_device(&tensor(&[1.0; 24], &[4, 6], DType::F32), DType::F32, &device);
    let gamma = on_device(&tensor(&[1.0; 6], &[6], DType::F32), DType::BF16, &device);
    for found in [
        Add.value(&[&half, &single]),
        LayerScale.value(&[&half, &gamma]),
        Linear::default().value(&[&half, &weight]),
        Attention::new(1).value(&[&half]),
        Cast { from: DType::F32, to: DType::BF16 }.value(&[&half]),
    ] {
        let error = found.unwrap_err();
        assert!(matches!(error, Error::DType { .. }), "{error}");
    }
    let tangent = single.value().unsqueeze(0).unwrap();
    let with_tangent = DualTensor::new(single.value().clone(), Some(tangent)).unwrap();
    let attention = Attention { heads: 1, products: Products::Bf16 };
    for found in [
        attention.value(&[&with_tangent]),
        Cast { from: DType::F32, to: DType::BF16 }.value(&[&with_tangent]),
    ] {
        assert!(matches!(found, Err(Error::Precision { tangents: 1, .. })), "{found:?}");
    }
}
