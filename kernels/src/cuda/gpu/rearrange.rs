//! Rearrangements on the device. A block of K tangents is treated as K times as many images.

use super::device::run;
use super::memory::{DualBuffer, Number, device, plane};
use crate::cuda::launch::{Address, Planner};
use crate::cuda::rearrange::Rearrange;
use crate::dual_tensor::DualTensor;
use crate::error::Result;
use candle_core::DType;
use half::bf16;

/// Rearranges `x` into the shape `dims`.
pub(crate) fn rearranged(
    op: &'static str,
    x: &DualTensor,
    how: Rearrange,
    dims: &[usize],
) -> Result<DualTensor> {
    match x.value().dtype() {
        DType::BF16 => rearranged_typed::<bf16>(op, x, how, dims),
        DType::F64 => rearranged_typed::<f64>(op, x, how, dims),
        _ => rearranged_typed::<f32>(op, x, how, dims),
    }
}

fn rearranged_typed<E: Number>(
    op: &'static str,
    x: &DualTensor,
    how: Rearrange,
    dims: &[usize],
) -> Result<DualTensor> {
    let device = device(op, x.value())?;
    let (k, planner) = (x.tangents(), Planner::new(E::STORAGE));
    let y = DualBuffer::<E>::new(&device, dims, k)?;
    let (from, to) = (plane::<E>(op, &device, x)?, y.plane());
    run(&device, &how.launches(&planner, op, [from.value, to.value], x.numel())?)?;
    if k > 0 {
        run(&device, &how.launches(&planner, op, [from.tangent, to.tangent], k * x.numel())?)?;
    }
    y.into_dual()
}

/// Puts the tokens t (1, P, D) in front of those of every image of x (B, T, D). The result has
/// shape `dims`, (B, P + T, D).
pub(crate) fn prepend(
    op: &'static str,
    t: &DualTensor,
    x: &DualTensor,
    dims: [usize; 3],
) -> Result<DualTensor> {
    match x.value().dtype() {
        DType::F64 => prepend_typed::<f64>(op, t, x, dims),
        _ => prepend_typed::<f32>(op, t, x, dims),
    }
}

fn prepend_typed<E: Number>(
    op: &'static str,
    t: &DualTensor,
    x: &DualTensor,
    dims: [usize; 3],
) -> Result<DualTensor> {
    let device = device(op, x.value())?;
    let k = t.tangents().max(x.tangents());
    let y = DualBuffer::<E>::new(&device, &dims, k)?;
    let (from_t, from_x) = (plane::<E>(op, &device, t)?, plane::<E>(op, &device, x)?);
    let (images, lengths) = (dims[0], [t.numel(), x.numel() / dims[0].max(1)]);
    let planner = Planner::new(E::STORAGE);
    let send = |from: [Address; 2], to: Address, all: usize| {
        run(&device, &planner.prepend_value(from, to, [all, images], lengths)?)
    };
    send([from_t.value, from_x.value], y.plane().value, images)?;
    if k > 0 {
        send([from_t.tangent, from_x.tangent], y.plane().tangent, k * images)?;
    }
    y.into_dual()
}
