//! Changes of the type that numbers on the device are stored in.

use super::device::run;
use super::memory::{Fresh, device, plane};
use super::product::Factor;
use crate::cuda::launch::Planner;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use candle_core::{CudaDevice, DType};
use half::bf16;

/// `x` in another type, f32 or bf16, to the nearest; ties to even.
pub(crate) fn cast(op: &'static str, x: &DualTensor, to: DType) -> Result<DualTensor> {
    let device = device(op, x.value())?;
    match (plain(op, x)?, to) {
        (DType::F32, DType::BF16) => rounded(op, &device, x)?.into_dual(),
        (DType::BF16, DType::F32) => {
            let y = Fresh::<f32>::new(&device, x.dims(), 0)?;
            let from = plane::<bf16>(op, &device, x)?.value;
            run(&device, &Planner::from_bf16([from, y.plane().value], x.numel())?)?;
            y.into_dual()
        }
        (found, to) if found == to => Ok(x.clone()),
        (found, to) => Err(Error::DType { op, found: vec![found, to] }),
    }
}

/// The type of an operand that is f32 or bf16, without tangents.
fn plain(op: &'static str, x: &DualTensor) -> Result<DType> {
    match (x.value().dtype(), x.tangents()) {
        (dtype @ (DType::F32 | DType::BF16), 0) => Ok(dtype),
        (dtype, tangents) => Err(Error::Precision { op, dtype, tangents }),
    }
}

fn rounded(op: &'static str, device: &CudaDevice, x: &DualTensor) -> Result<Fresh<bf16>> {
    let y = Fresh::<bf16>::new(device, x.dims(), 0)?;
    let from = plane::<f32>(op, device, x)?.value;
    run(device, &Planner::to_bf16([from, y.plane().value], x.numel())?)?;
    Ok(y)
}

/// An operand of a product in bf16: memory of its own with the numbers rounded, or, of one stored so,
/// its own.
pub(super) struct Rounded {
    factor: Factor,
    /// Lives until the launches that read it are sent.
    _memory: Option<Fresh<bf16>>,
}

impl Rounded {
    /// Of an operand in f32 or bf16, without tangents.
    pub(super) fn new(op: &'static str, device: &CudaDevice, x: &DualTensor) -> Result<Self> {
        if plain(op, x)? == DType::BF16 {
            return Ok(Self { factor: Factor::of::<bf16>(op, device, x)?, _memory: None });
        }
        let memory = rounded(op, device, x)?;
        Ok(Self { factor: Factor::held(&memory), _memory: Some(memory) })
    }

    pub(super) fn factor(&self) -> Factor {
        self.factor
    }
}
