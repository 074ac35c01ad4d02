//! Row operations and sums on the device.

use super::device::run as send;
use super::memory::{DualBuffer, Number, device, device_address, plane, uninitialized};
use crate::cpu::{Output, RowKernel};
use crate::cuda::Call;
use crate::cuda::launch::{Plane, Planner};
use crate::dual_tensor::{DualTensor, common_dtype};
use crate::error::{Error, Result};
use candle_core::cuda_backend::WrapErr;
use candle_core::{CudaDevice, DType, Tensor};
use half::bf16;

/// Runs a row kernel over checked operands. `shared[i]` tells whether operand i is one row shared
/// by all rows, `columns` is the row length of the first operand, and output `o` gets the shape
/// `dims[o]`.
pub(crate) fn run<N: RowKernel<I, O>, const I: usize, const O: usize>(
    op: &'static str,
    kernel: &N,
    [rows, columns]: [usize; 2],
    (operands, shared): ([&DualTensor; I], [bool; I]),
    outputs: [Output; O],
    dims: [&[usize]; O],
) -> Result<[DualTensor; O]> {
    let (sizes, operands) = ([rows, columns], (operands, shared));
    match stored(op, operands)? {
        DType::BF16 => typed::<bf16, N, I, O>(op, kernel, sizes, operands, outputs, dims),
        DType::F64 => typed::<f64, N, I, O>(op, kernel, sizes, operands, outputs, dims),
        _ => typed::<f32, N, I, O>(op, kernel, sizes, operands, outputs, dims),
    }
}

/// Storage type of the rows: f32 or f64 for all operands; or bf16 without tangents, with shared
/// rows in f32.
pub(super) fn stored<const I: usize>(
    op: &'static str,
    (operands, shared): ([&DualTensor; I], [bool; I]),
) -> Result<DType> {
    let found: Vec<DType> = operands.iter().map(|x| x.value().dtype()).collect();
    if found.first() != Some(&DType::BF16) {
        return common_dtype(op, &operands);
    }
    if let Some(x) = operands.iter().find(|x| x.tangents() > 0) {
        return Err(Error::Precision { op, dtype: DType::BF16, tangents: x.tangents() });
    }
    let expected = shared.map(|shared| if shared { DType::F32 } else { DType::BF16 });
    match found == expected {
        true => Ok(DType::BF16),
        false => Err(Error::DType { op, found }),
    }
}

/// Memory of an output: rows in the storage type, or a sum over rows in the arithmetic type.
enum OutputBuffer<E: Number> {
    Rows(DualBuffer<E>),
    Sum(DualBuffer<E::Arithmetic>),
}

impl<E: Number> OutputBuffer<E> {
    fn new(device: &CudaDevice, output: Output, dims: &[usize], tangents: usize) -> Result<Self> {
        Ok(match output {
            Output::PerRow(_) => OutputBuffer::Rows(DualBuffer::new(device, dims, tangents)?),
            Output::Summed(_) => OutputBuffer::Sum(DualBuffer::new(device, dims, tangents)?),
        })
    }

    fn plane(&self) -> Plane {
        match self {
            OutputBuffer::Rows(x) => x.plane(),
            OutputBuffer::Sum(x) => x.plane(),
        }
    }

    fn into_dual(self) -> Result<DualTensor> {
        match self {
            OutputBuffer::Rows(x) => x.into_dual(),
            OutputBuffer::Sum(x) => x.into_dual(),
        }
    }
}

fn typed<E: Number, N: RowKernel<I, O>, const I: usize, const O: usize>(
    op: &'static str,
    kernel: &N,
    sizes: [usize; 2],
    (operands, shared): ([&DualTensor; I], [bool; I]),
    outputs: [Output; O],
    dims: [&[usize]; O],
) -> Result<[DualTensor; O]> {
    let Some(first) = operands.first() else {
        return Err(Error::shape(op, "an operand", "none"));
    };
    let device = device(op, first.value())?;
    let tangents = operands.iter().map(|x| x.tangents()).max().unwrap_or(0);
    let mut inputs = [Plane { value: 0, tangent: 0 }; I];
    for ((slot, x), shared) in inputs.iter_mut().zip(operands).zip(shared) {
        *slot = match shared {
            true => plane::<E::Arithmetic>(op, &device, x)?,
            false => plane::<E>(op, &device, x)?,
        };
    }
    let mut results = Vec::with_capacity(O);
    let mut planes = [Plane { value: 0, tangent: 0 }; O];
    for ((slot, dims), output) in planes.iter_mut().zip(dims).zip(outputs) {
        let made = OutputBuffer::<E>::new(&device, output, dims, tangents)?;
        *slot = made.plane();
        results.push(made);
    }
    let planner = Planner::new(E::STORAGE);
    let sums = outputs.iter().filter(|output| matches!(output, Output::Summed(_))).count();
    let bytes = match sums {
        0 => 0,
        slots => planner.sum_scratch(slots, sizes[0], sizes[1], tangents),
    };
    let scratch = match bytes {
        0 => None,
        bytes => Some(uninitialized::<u64>(&device, bytes.div_ceil(8))?),
    };
    let labels = match kernel.labels() {
        [] => None,
        labels => Some(device.cuda_stream().clone_htod(labels).w()?),
    };
    let call = Call {
        planner,
        tangents,
        inputs,
        shared,
        outputs: planes,
        labels: labels.as_ref().map_or(0, |memory| device_address(&device, memory)),
        scratch: scratch.as_ref().map_or(0, |memory| device_address(&device, memory)),
        sizes,
    };
    send(&device, &kernel.launches(op, &call)?)?;
    let results = results.into_iter().map(OutputBuffer::into_dual).collect::<Result<Vec<_>>>()?;
    results.try_into().map_err(|_| Error::shape(op, format!("{O} outputs"), "another number"))
}

/// a + b in new memory.
pub(crate) fn plus(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match a.dtype() {
        DType::BF16 => sum::<bf16>(a, b, false),
        DType::F64 => sum::<f64>(a, b, false),
        _ => sum::<f32>(a, b, false),
    }
}

/// a += b in place.
pub(crate) fn add_into(a: &Tensor, b: &Tensor) -> Result<()> {
    match a.dtype() {
        DType::BF16 => sum::<bf16>(a, b, true)?,
        DType::F64 => sum::<f64>(a, b, true)?,
        _ => sum::<f32>(a, b, true)?,
    };
    Ok(())
}

fn sum<E: Number>(a: &Tensor, b: &Tensor, into_first: bool) -> Result<Tensor> {
    let device = device("sum", a)?;
    if a.dims() != b.dims() {
        return Err(Error::shape("sum", format!("{:?}", a.dims()), format!("{:?}", b.dims())));
    }
    let at = |x: &Tensor| plane::<E>("sum", &device, &DualTensor::constant(x.clone()));
    let (left, right) = (at(a)?, at(b)?);
    let fresh = match into_first {
        true => None,
        false => Some(DualBuffer::<E>::new(&device, a.dims(), 0)?),
    };
    let to = fresh.as_ref().map_or(left, DualBuffer::plane);
    let columns = a.dims().last().copied().unwrap_or(1).max(1);
    let sizes = [a.elem_count() / columns, columns];
    send(&device, &Planner::new(E::STORAGE).add_value(0, [left, right], to, sizes)?)?;
    match fresh {
        Some(fresh) => Ok(fresh.into_dual()?.into_parts().0),
        None => Ok(a.clone()),
    }
}
