//! Rearrangements on the device. A block of K tangents is treated as K times as many images.

use super::device::run;
use super::memory::{DualBuffer, Number, device, plane};
use crate::cuda::launch::{Address, Planner};
use crate::cuda::rearrange::Rearrange;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
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
    let sizes = [dims[0], dims[0], t.numel()];
    match x.value().dtype() {
        DType::F64 => joined::<f64>(op, t, x, &dims, sizes),
        _ => joined::<f32>(op, t, x, &dims, sizes),
    }
}

/// y of `crate::Concat`, with checked shapes.
pub(crate) fn side_by_side(
    op: &'static str,
    a: &DualTensor,
    b: &DualTensor,
    dims: &[usize],
) -> Result<DualTensor> {
    let sizes = [a.numel() / a.columns().max(1), 1, a.columns()];
    match common_stored_dtype(op, a, b)? {
        DType::F64 => joined::<f64>(op, a, b, dims, sizes),
        DType::BF16 => joined::<bf16>(op, a, b, dims, sizes),
        _ => joined::<f32>(op, a, b, dims, sizes),
    }
}

/// The type of two tensors, which may be stored as bf16.
fn common_stored_dtype(op: &'static str, a: &DualTensor, b: &DualTensor) -> Result<DType> {
    let found = [a, b].map(|x| x.value().dtype());
    match found[0] == found[1] {
        true => Ok(found[0]),
        false => Err(Error::DType { op, found: found.into() }),
    }
}

/// The `prefix` numbers of t, then those of x, for each of so many rows. Each group of `share`
/// rows has the same t.
fn joined<E: Number>(
    op: &'static str,
    t: &DualTensor,
    x: &DualTensor,
    dims: &[usize],
    [rows, share, prefix]: [usize; 3],
) -> Result<DualTensor> {
    let device = device(op, x.value())?;
    let k = t.tangents().max(x.tangents());
    let y = DualBuffer::<E>::new(&device, dims, k)?;
    let (from_t, from_x) = (plane::<E>(op, &device, t)?, plane::<E>(op, &device, x)?);
    let lengths = [prefix, x.numel() / rows.max(1)];
    let planner = Planner::new(E::STORAGE);
    let send = |from: [Address; 2], to: Address, all: usize| {
        run(&device, &planner.prepend_value(from, to, [all, share], lengths)?)
    };
    send([from_t.value, from_x.value], y.plane().value, rows)?;
    if k > 0 {
        send([from_t.tangent, from_x.tangent], y.plane().tangent, k * rows)?;
    }
    y.into_dual()
}
