//! Runs every check on every registered operation on the first CUDA device, and tests operands on
//! the wrong device. Without a GPU the device is simulated: see scripts/check-standin.

mod bf16;
#[allow(dead_code)]
#[path = "../checks/mod.rs"]
mod checks;
mod uploads;

use candle_core::{DType, Device, Tensor};
use checks::{Stream, check, tensor};
use planish_kernels::registry::{REGISTRY, Sample};
use planish_kernels::{Accumulator, Add, DualTensor, Linear, Op, Result, SaveSet, Saved};

/// An operation that moves its operands to a device and its results back.
#[derive(Debug)]
struct OnDevice {
    op: Box<dyn Op>,
    device: Device,
}

fn moved(x: &DualTensor, device: &Device) -> DualTensor {
    let to = |x: &Tensor| x.to_device(device).unwrap();
    DualTensor::new(to(x.value()), x.tangent().map(to)).unwrap()
}

impl Op for OnDevice {
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        self.op.shape(x)
    }
    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        self.op.is_affine_in(inputs)
    }
    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let x: Vec<DualTensor> = x.iter().map(|x| moved(x, &self.device)).collect();
        let y = self.op.value(&x.iter().collect::<Vec<_>>())?;
        assert!(y.on_gpu());
        Ok(moved(&y, &Device::Cpu))
    }
    fn save_set(&self, needs_grad: &[bool]) -> SaveSet {
        self.op.save_set(needs_grad)
    }
    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let on_device = |x: &DualTensor| moved(x, &self.device);
        let saved = Saved {
            inputs: saved.inputs.iter().map(|x| x.as_ref().map(on_device)).collect(),
            output: saved.output.as_ref().map(on_device),
            dims: saved.dims.clone(),
        };
        let found = self.op.vjp(&saved, &on_device(gy), needs_grad)?;
        Ok(found.iter().map(|g| g.as_ref().map(|g| moved(g, &Device::Cpu))).collect())
    }
}

fn device() -> Device {
    planish_kernels::cuda::gpu::open(0).unwrap()
}

#[test]
fn every_operation_passes_every_check() {
    let device = device();
    for (name, samples) in REGISTRY {
        for Sample { op, dims } in samples() {
            let op = Box::new(OnDevice { op, device: device.clone() });
            check(name, &Sample { op, dims }, &mut Stream(7));
        }
    }
}

#[test]
fn the_accumulator_sums_terms_without_changing_them() {
    let device = device();
    let term = |from: f64, k: usize| {
        let numbers = |n: usize| -> Vec<f64> { (0..n).map(|i| from + i as f64).collect() };
        let value = tensor(&numbers(15), &[3, 5], DType::F32);
        let tangent = (k > 0).then(|| tensor(&numbers(15 * k), &[k, 3, 5], DType::F32));
        moved(&DualTensor::new(value, tangent).unwrap(), &device)
    };
    let terms = [term(0.0, 0), term(10.0, 2), term(20.0, 2), term(30.0, 2)];
    let mut sum = Accumulator::default();
    terms.iter().for_each(|x| sum.add(x.clone()).unwrap());
    let sum = moved(&sum.finish().unwrap(), &Device::Cpu);
    let first = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap()[1];
    assert_eq!((first(sum.value()), first(sum.tangent().unwrap())), (64.0, 63.0));
    assert_eq!(first(&terms[1].value().to_device(&Device::Cpu).unwrap()), 11.0);
}

#[test]
fn unsupported_operands_are_errors() {
    let device = device();
    let host = DualTensor::constant(tensor(&[1.0; 6], &[2, 3], DType::F32));
    let on_device = moved(&host, &device);
    let transposed = DualTensor::constant(on_device.value().t().unwrap());
    let double = moved(&DualTensor::constant(tensor(&[1.0; 6], &[2, 3], DType::F64)), &device);
    for (operands, expected) in [
        ([&on_device, &host], "expected a tensor on a CUDA device"),
        ([&host, &on_device], "expected a tensor on a CUDA device"),
        ([&transposed, &transposed], "expected a contiguous tensor"),
        ([&on_device, &double], "expected all operands in f32 or all in f64"),
    ] {
        for found in [Add.value(&operands), Linear::default().value(&operands)] {
            let text = found.unwrap_err().to_string();
            // `Linear` may report mismatched shapes of transposed operands first.
            assert!(text.contains(expected) || text.contains("x (…, I)"), "{text}");
        }
    }
}
