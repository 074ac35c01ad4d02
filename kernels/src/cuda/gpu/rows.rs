//! Row operations and sums on the device.

use super::device::run as send;
use super::memory::{Fresh, Number, blank, device, plane, start_of};
use crate::cpu::{Output, RowKernel};
use crate::cuda::call::Call;
use crate::cuda::launch::{Plane, Planner};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use candle_core::cuda_backend::WrapErr;
use candle_core::{DType, Tensor};

/// Runs a row kernel over checked operands, `shared[i]` telling whether operand i is one row;
/// `columns` are the first operand's, and output `o` gets the shape `dims[o]`.
pub(crate) fn run<N: RowKernel<I, O>, const I: usize, const O: usize>(
    op: &'static str,
    kernel: &N,
    [rows, columns]: [usize; 2],
    (operands, shared): ([&DualTensor; I], [bool; I]),
    outputs: [Output; O],
    dims: [&[usize]; O],
) -> Result<[DualTensor; O]> {
    let sums = outputs.iter().filter(|output| matches!(output, Output::Summed(_))).count();
    let (sizes, operands) = ([rows, columns], (operands, shared));
    match operands.0.first().map(|x| x.value().dtype()) {
        Some(DType::F64) => typed::<f64, N, I, O>(op, kernel, sizes, operands, sums, dims),
        _ => typed::<f32, N, I, O>(op, kernel, sizes, operands, sums, dims),
    }
}

fn typed<E: Number, N: RowKernel<I, O>, const I: usize, const O: usize>(
    op: &'static str,
    kernel: &N,
    sizes: [usize; 2],
    (operands, shared): ([&DualTensor; I], [bool; I]),
    sums: usize,
    dims: [&[usize]; O],
) -> Result<[DualTensor; O]> {
    let Some(first) = operands.first() else {
        return Err(Error::shape(op, "an operand", "none"));
    };
    let device = device(op, first.value())?;
    let tangents = operands.iter().map(|x| x.tangents()).max().unwrap_or(0);
    let mut inputs = [Plane { value: 0, tangent: 0 }; I];
    for (slot, x) in inputs.iter_mut().zip(operands) {
        *slot = plane::<E>(op, &device, x)?;
    }
    let mut results = Vec::with_capacity(O);
    let mut planes = [Plane { value: 0, tangent: 0 }; O];
    for (slot, dims) in planes.iter_mut().zip(dims) {
        let fresh = Fresh::<E>::new(&device, dims, tangents)?;
        *slot = fresh.plane();
        results.push(fresh);
    }
    let planner = Planner::new(E::STORED);
    let bytes = match sums {
        0 => 0,
        slots => planner.sum_scratch(slots, sizes[0], sizes[1], tangents),
    };
    let scratch = match bytes {
        0 => None,
        bytes => Some(blank::<u64>(&device, bytes.div_ceil(8))?),
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
        labels: labels.as_ref().map_or(0, |memory| start_of(&device, memory)),
        scratch: scratch.as_ref().map_or(0, |memory| start_of(&device, memory)),
        sizes,
    };
    send(&device, &kernel.launches(op, &call)?)?;
    let results = results.into_iter().map(Fresh::into_dual).collect::<Result<Vec<_>>>()?;
    results.try_into().map_err(|_| Error::shape(op, format!("{O} outputs"), "another number"))
}

/// a + b, in memory of its own.
pub(crate) fn plus(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match a.dtype() {
        DType::F64 => sum::<f64>(a, b, false),
        _ => sum::<f32>(a, b, false),
    }
}

/// a += b.
pub(crate) fn add_into(a: &Tensor, b: &Tensor) -> Result<()> {
    match a.dtype() {
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
        false => Some(Fresh::<E>::new(&device, a.dims(), 0)?),
    };
    let to = fresh.as_ref().map_or(left, Fresh::plane);
    let columns = a.dims().last().copied().unwrap_or(1).max(1);
    let sizes = [a.elem_count() / columns, columns];
    send(&device, &Planner::new(E::STORED).add_value(0, [left, right], to, sizes)?)?;
    match fresh {
        Some(fresh) => Ok(fresh.into_dual()?.into_parts().0),
        None => Ok(a.clone()),
    }
}
