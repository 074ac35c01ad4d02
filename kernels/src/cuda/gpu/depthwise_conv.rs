//! Depthwise convolutions on the device.

use super::device::run;
use super::memory::{DualBuffer, Number, device, device_address, plane, uninitialized};
use super::rows::stored;
use crate::cuda::launch::Planner;
use crate::depthwise_conv::Sizes;
use crate::dual_tensor::DualTensor;
use crate::error::Result;
use crate::op::most_tangents;
use candle_core::DType;
use half::bf16;

/// conv(a, w) + bias with these `sizes`, or with `turned` filters the adjoint. Checked shapes; w
/// and bias are in the arithmetic type.
pub(crate) fn correlate(
    op: &'static str,
    (a, w, bias): (&DualTensor, &DualTensor, Option<&DualTensor>),
    (sizes, turned): (&Sizes, bool),
) -> Result<DualTensor> {
    let dtype = match bias {
        Some(b) => stored(op, ([a, w, b], [false, true, true]))?,
        None => stored(op, ([a, w], [false, true]))?,
    };
    match dtype {
        DType::BF16 => correlate_typed::<bf16>(op, (a, w, bias), (sizes, turned)),
        DType::F64 => correlate_typed::<f64>(op, (a, w, bias), (sizes, turned)),
        _ => correlate_typed::<f32>(op, (a, w, bias), (sizes, turned)),
    }
}

fn correlate_typed<E: Number>(
    op: &'static str,
    (a, w, bias): (&DualTensor, &DualTensor, Option<&DualTensor>),
    (sizes, turned): (&Sizes, bool),
) -> Result<DualTensor> {
    let device = device(op, a.value())?;
    let operands: Vec<&DualTensor> = [a, w].into_iter().chain(bias).collect();
    let (k, planner) = (most_tangents(&operands), Planner::new(E::STORAGE));
    let grid = if turned { sizes.from } else { sizes.to };
    let y = DualBuffer::<E>::new(&device, &[sizes.images, grid[0] * grid[1], sizes.channels], k)?;
    let inputs = [plane::<E>(op, &device, a)?, plane::<E::Arithmetic>(op, &device, w)?];
    let bias = bias.map(|b| plane::<E::Arithmetic>(op, &device, b)).transpose()?;
    let launches = match turned {
        false => planner.depthwise_conv_value(k, inputs, bias, y.plane(), sizes)?,
        true => planner.depthwise_conv_vjp_input(k, inputs, y.plane(), sizes)?,
    };
    run(&device, &launches)?;
    y.into_dual()
}

/// gw of shape `dims`, in the arithmetic type.
pub(crate) fn weight_gradient(
    op: &'static str,
    [x, gy]: [&DualTensor; 2],
    sizes: &Sizes,
    dims: &[usize],
) -> Result<DualTensor> {
    match stored(op, ([x, gy], [false, false]))? {
        DType::BF16 => weight_gradient_typed::<bf16>(op, [x, gy], sizes, dims),
        DType::F64 => weight_gradient_typed::<f64>(op, [x, gy], sizes, dims),
        _ => weight_gradient_typed::<f32>(op, [x, gy], sizes, dims),
    }
}

fn weight_gradient_typed<E: Number>(
    op: &'static str,
    [x, gy]: [&DualTensor; 2],
    sizes: &Sizes,
    dims: &[usize],
) -> Result<DualTensor> {
    let device = device(op, x.value())?;
    let k = most_tangents(&[x, gy]);
    let planner = Planner::new(E::STORAGE);
    let gw = DualBuffer::<E::Arithmetic>::new(&device, dims, k)?;
    let bytes = planner.sum_scratch(1, sizes.images * sizes.to[0], sizes.filter_numbers(), k);
    let scratch = uninitialized::<u64>(&device, bytes.div_ceil(8))?;
    let at = device_address(&device, &scratch);
    let inputs = [plane::<E>(op, &device, x)?, plane::<E>(op, &device, gy)?];
    run(&device, &planner.depthwise_conv_vjp_weight(k, inputs, gw.plane(), at, sizes)?)?;
    gw.into_dual()
}
