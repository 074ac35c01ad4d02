//! Matrix products with tangents on the device (compare `crate::product` for the CPU), and bf16
//! products.
//!
//! For a bf16 product, f32 operands are rounded by a separate launch and bf16 operands are used as
//! they are. Sums are f32, but cuBLAS may add parts of a long sum in the type of the result. f32 ×
//! f32 and bf16 × bf16 (a weight's gradient) give f32. A bf16 activation × f32 weight gives a bf16
//! activation.

use super::cast::Rounded;
use super::device::run;
use super::gemm::{Matrix, gemm};
use super::memory::{DualBuffer, Number, address, device, plane};
use crate::cuda::launch::{Address, Plane, Planner, StorageType};
use crate::dual_tensor::{DualTensor, common_dtype};
use crate::error::{Error, Result};
use crate::product::{Products, Target};
use crate::view::View;
use candle_core::{CudaDevice, DType};
use half::bf16;

/// An operand with tangents: addresses, count of numbers in the value, storage type.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub plane: Plane,
    pub numel: usize,
    pub stored: StorageType,
}

impl Factor {
    /// From a tensor.
    pub(super) fn of<E: Number>(
        op: &'static str,
        device: &CudaDevice,
        x: &DualTensor,
    ) -> Result<Self> {
        Ok(Self { plane: plane::<E>(op, device, x)?, numel: x.numel(), stored: E::STORAGE })
    }

    /// From a buffer.
    pub(super) fn of_buffer<E: Number>(x: &DualBuffer<E>) -> Self {
        Self { plane: x.plane(), numel: x.numel(), stored: E::STORAGE }
    }

    /// Address of tangent `k`, if there are tangents.
    fn tangent(&self, k: usize) -> Option<Address> {
        match self.plane.tangent {
            0 => None,
            at => Some(at + (k * self.numel * self.stored.bytes()) as u64),
        }
    }

    fn matrix(&self, at: Address, view: View) -> Matrix {
        Matrix { at, stored: self.stored, view }
    }
}

/// `factor` · A·B with tangents, with checked views.
pub(crate) fn product(
    op: &'static str,
    (a, va): (&DualTensor, View),
    (b, vb): (&DualTensor, View),
    target: &Target,
    factor: f64,
    tangents: usize,
) -> Result<DualTensor> {
    let operands: Vec<&DualTensor> = [a, b].into_iter().chain(target.bias).collect();
    let found = operands.iter().map(|x| x.value().dtype()).collect::<Vec<_>>();
    if target.products != Products::Bf16 {
        return match common_dtype(op, &operands)? {
            DType::F32 => typed::<f32>(op, (a, va), (b, vb), target, factor, tangents),
            _ => typed::<f64>(op, (a, va), (b, vb), target, factor, tangents),
        };
    }
    if tangents > 0 {
        return Err(Error::Precision { op, dtype: found[0], tangents });
    }
    let device = device(op, a.value())?;
    let (ra, rb) = (Rounded::new(op, &device, a)?, Rounded::new(op, &device, b)?);
    let ab = ((ra.factor(), va), (rb.factor(), vb));
    match (found[0], found[1]) {
        (DType::F32, DType::BF16) | (DType::BF16, DType::F32) => {
            product_typed::<bf16>(op, &device, ab, target, (factor, 0))
        }
        _ => product_typed::<f32>(op, &device, ab, target, (factor, 0)),
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
    let (a, b) = (Factor::of::<E>(op, &device, a)?, Factor::of::<E>(op, &device, b)?);
    product_typed::<E>(op, &device, ((a, va), (b, vb)), target, (factor, tangents))
}

/// The product as a tensor of type E.
fn product_typed<E: Number>(
    op: &'static str,
    device: &CudaDevice,
    (a, b): ((Factor, View), (Factor, View)),
    target: &Target,
    (factor, tangents): (f64, usize),
) -> Result<DualTensor> {
    let bias = target.bias.map(|x| Factor::of::<E::Arithmetic>(op, device, x)).transpose()?;
    let v = target.view;
    let whole = v.rows * v.cols * v.batch[0] * v.batch[1];
    let y = match whole == target.dims.iter().product::<usize>() {
        true => DualBuffer::<E>::new(device, target.dims, tangents)?,
        false => DualBuffer::<E>::zeros(device, target.dims, tangents)?,
    };
    let primal = target.primal.is_some();
    let tf32 = target.products == Products::Tf32;
    dual_gemm::<E>(device, op, (&y, v), !primal, a, b, (factor, tf32))?;
    if let Some(bias) = bias {
        let planner = Planner::new(E::STORAGE);
        let add = |row: Address, at: Address| {
            let [row, at] = [row, at].map(|value| Plane { value, tangent: 0 });
            run(device, &planner.bias_value(0, [at, row], at, [v.rows, v.cols])?)
        };
        let whole = Factor::of_buffer(&y);
        if !primal {
            add(bias.plane.value, whole.plane.value)?;
        }
        for k in 0..tangents {
            if let (Some(row), Some(at)) = (bias.tangent(k), whole.tangent(k)) {
                add(row, at)?;
            }
        }
    }
    let found = y.into_dual()?;
    match target.primal {
        Some(value) => {
            address::<E>(op, device, value)?;
            DualTensor::new(value.clone(), found.into_parts().1)
        }
        None => Ok(found),
    }
}

/// Sets the matrices `v` of `y` to `factor` · A·B (if `value`), and those of its tangents to
/// `factor` · (Ȧₖ·B + A·Ḃₖ). With `tf32`, f32 operands are rounded to TF32.
pub(super) fn dual_gemm<E: Number>(
    device: &CudaDevice,
    op: &'static str,
    (y, v): (&DualBuffer<E>, View),
    value: bool,
    (a, va): (Factor, View),
    (b, vb): (Factor, View),
    (factor, tf32): (f64, bool),
) -> Result<()> {
    let to = Factor::of_buffer(y);
    let multiply = |at: Address, add: bool, at_a: Address, at_b: Address, factor: f64| {
        let operands = [a.matrix(at_a, va), b.matrix(at_b, vb)];
        gemm(device, op, to.matrix(at, v), add, operands, (factor, tf32))
    };
    let (at_a, at_b) = (a.plane.value, b.plane.value);
    if value {
        multiply(to.plane.value, false, at_a, at_b, factor)?;
    }
    for k in 0..y.tangents() {
        let Some(at) = to.tangent(k) else { continue };
        let (ta, tb) = (a.tangent(k), b.tangent(k));
        if let Some(ta) = ta {
            multiply(at, false, ta, at_b, factor)?;
        }
        if let Some(tb) = tb {
            multiply(at, ta.is_some(), at_a, tb, factor)?;
        }
        if ta.is_none() && tb.is_none() {
            // With factor 0, BLAS does not read A and B and writes zeros.
            multiply(at, false, at_a, at_b, 0.0)?;
        }
    }
    Ok(())
}
