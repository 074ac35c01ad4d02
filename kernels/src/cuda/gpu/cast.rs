//! Conversions of the storage type on the device.

use super::device::run;
use super::memory::{DualBuffer, device, plane};
use super::product::Factor;
use crate::cuda::launch::Planner;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use candle_core::{CudaDevice, DType};
use half::bf16;

/// `x` converted to f32 or bf16, to nearest, ties to even.
pub(crate) fn cast(op: &'static str, x: &DualTensor, to: DType) -> Result<DualTensor> {
    let device = device(op, x.value())?;
    match (plain(op, x)?, to) {
        (DType::F32, DType::BF16) => rounded(op, &device, x)?.into_dual(),
        (DType::BF16, DType::F32) => {
            let y = DualBuffer::<f32>::new(&device, x.dims(), 0)?;
            let from = plane::<bf16>(op, &device, x)?.value;
            run(&device, &Planner::from_bf16([from, y.plane().value], x.numel())?)?;
            y.into_dual()
        }
        (found, to) if found == to => Ok(x.clone()),
        (found, to) => Err(Error::DType { op, found: vec![found, to] }),
    }
}

/// Type of an operand, which must be f32 or bf16 without tangents.
fn plain(op: &'static str, x: &DualTensor) -> Result<DType> {
    match (x.value().dtype(), x.tangents()) {
        (dtype @ (DType::F32 | DType::BF16), 0) => Ok(dtype),
        (dtype, tangents) => Err(Error::Precision { op, dtype, tangents }),
    }
}

fn rounded(op: &'static str, device: &CudaDevice, x: &DualTensor) -> Result<DualBuffer<bf16>> {
    let y = DualBuffer::<bf16>::new(device, x.dims(), 0)?;
    let from = plane::<f32>(op, device, x)?.value;
    run(device, &Planner::to_bf16([from, y.plane().value], x.numel())?)?;
    Ok(y)
}

/// An operand of a bf16 product: a rounded copy, or the tensor itself if it is stored in bf16.
pub(super) struct Rounded {
    factor: Factor,
    /// Keeps the copy alive until the launches that read it are submitted.
    _memory: Option<DualBuffer<bf16>>,
}

impl Rounded {
    /// From an operand in f32 or bf16, without tangents.
    pub(super) fn new(op: &'static str, device: &CudaDevice, x: &DualTensor) -> Result<Self> {
        if plain(op, x)? == DType::BF16 {
            return Ok(Self { factor: Factor::of::<bf16>(op, device, x)?, _memory: None });
        }
        let memory = rounded(op, device, x)?;
        Ok(Self { factor: Factor::of_buffer(&memory), _memory: Some(memory) })
    }

    pub(super) fn factor(&self) -> Factor {
        self.factor
    }
}
