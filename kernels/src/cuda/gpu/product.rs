//! The product rule on the device, as `crate::product` has it on the CPU.

use super::device::run;
use super::gemm::gemm;
use super::memory::{Fresh, Number, address, device, plane};
use crate::cuda::launch::{Address, Plane, Planner};
use crate::dual_tensor::DualTensor;
use crate::error::Result;
use crate::product::Target;
use crate::view::View;
use candle_core::{CudaDevice, DType};

/// An operand with tangents: where it lies, and the numbers of its value.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub plane: Plane,
    pub numel: usize,
}

impl Factor {
    /// Tangent `k`, if there are any.
    fn tangent<E>(&self, k: usize) -> Option<Address> {
        match self.plane.tangent {
            0 => None,
            at => Some(at + (k * self.numel * size_of::<E>()) as u64),
        }
    }
}

/// `factor` · A·B with tangents, operands checked.
pub(crate) fn product(
    op: &'static str,
    (a, va): (&DualTensor, View),
    (b, vb): (&DualTensor, View),
    target: &Target,
    factor: f64,
    tangents: usize,
) -> Result<DualTensor> {
    match a.value().dtype() {
        DType::F32 => typed::<f32>(op, (a, va), (b, vb), target, factor, tangents),
        _ => typed::<f64>(op, (a, va), (b, vb), target, factor, tangents),
    }
}

fn typed<E: Number>(
    op: &'static str,
    (a, va): (&DualTensor, View),
    (b, vb): (&DualTensor, View),
    target: &Target,
    factor: f64,
    tangents: usize,
) -> Result<DualTensor> {
    let device = device(op, a.value())?;
    let held = |x: &DualTensor| -> Result<Factor> {
        Ok(Factor { plane: plane::<E>(op, &device, x)?, numel: x.numel() })
    };
    let (fa, fb) = (held(a)?, held(b)?);
    let bias = target.bias.map(held).transpose()?;
    let v = target.view;
    let whole = v.rows * v.cols * v.batch[0] * v.batch[1];
    let y = match whole == target.dims.iter().product::<usize>() {
        true => Fresh::<E>::new(&device, target.dims, tangents)?,
        false => Fresh::<E>::zeros(&device, target.dims, tangents)?,
    };
    let known = target.known.is_some();
    dual_gemm::<E>(&device, op, (&y, v), !known, (fa, va), (fb, vb), factor)?;
    if let Some(bias) = bias {
        let planner = Planner::new(E::STORED);
        let add = |row: Address, at: Address| {
            let [row, at] = [row, at].map(|value| Plane { value, tangent: 0 });
            run(&device, &planner.bias_value(0, [at, row], at, [v.rows, v.cols])?)
        };
        let whole = Factor { plane: y.plane(), numel: y.numel() };
        if !known {
            add(bias.plane.value, whole.plane.value)?;
        }
        for k in 0..tangents {
            if let (Some(row), Some(at)) = (bias.tangent::<E>(k), whole.tangent::<E>(k)) {
                add(row, at)?;
            }
        }
    }
    let found = y.into_dual()?;
    match target.known {
        Some(value) => {
            address::<E>(op, &device, value)?;
            DualTensor::new(value.clone(), found.into_parts().1)
        }
        None => Ok(found),
    }
}

/// The matrices `v` of `y` become `factor` · A·B (if `value`), and those of its tangents
/// `factor` · (Ȧₖ·B + A·Ḃₖ).
pub(super) fn dual_gemm<E: Number>(
    device: &CudaDevice,
    op: &'static str,
    (y, v): (&Fresh<E>, View),
    value: bool,
    (a, va): (Factor, View),
    (b, vb): (Factor, View),
    factor: f64,
) -> Result<()> {
    let to = Factor { plane: y.plane(), numel: y.numel() };
    let (at_a, at_b) = (a.plane.value, b.plane.value);
    if value {
        gemm::<E>(device, op, (to.plane.value, v), false, (at_a, va), (at_b, vb), factor)?;
    }
    for k in 0..y.tangents() {
        let Some(at) = to.tangent::<E>(k) else { continue };
        let (ta, tb) = (a.tangent::<E>(k), b.tangent::<E>(k));
        if let Some(ta) = ta {
            gemm::<E>(device, op, (at, v), false, (ta, va), (at_b, vb), factor)?;
        }
        if let Some(tb) = tb {
            gemm::<E>(device, op, (at, v), ta.is_some(), (at_a, va), (tb, vb), factor)?;
        }
        if ta.is_none() && tb.is_none() {
            // At a factor of 0 BLAS reads neither A nor B and writes zeros.
            gemm::<E>(device, op, (at, v), false, (at_a, va), (at_b, vb), 0.0)?;
        }
    }
    Ok(())
}
