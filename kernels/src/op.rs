//! The trait [`Op`] of differentiable operations, and how they run row kernels on tensors.

use crate::cpu::{self, Input, Output, Planes, RowKernel};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::dual_tensor::{DualTensor, Host, common_dtype};
use crate::error::{Error, Result};
use crate::lanes::Element;
use candle_core::{DType, Device, Tensor};
use std::any::Any;

/// What an operation needs saved from the forward pass for its VJP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveSet {
    /// Bit i is set if input i is needed.
    pub inputs: u32,
    /// Whether the output is needed.
    pub output: bool,
}

/// Tensors saved by the forward pass, and the shapes of all inputs.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Saved inputs, by position.
    pub inputs: Vec<Option<DualTensor>>,
    /// The saved output.
    pub output: Option<DualTensor>,
    /// Shape of every input.
    pub dims: Vec<Vec<usize>>,
}

impl Saved {
    /// Input `i`. Fails if it was not saved.
    pub fn input(&self, op: &'static str, i: usize) -> Result<&DualTensor> {
        self.inputs
            .get(i)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::NotSaved { op, what: format!("input {i}") })
    }

    /// The output. Fails if it was not saved.
    pub fn output(&self, op: &'static str) -> Result<&DualTensor> {
        self.output.as_ref().ok_or_else(|| Error::NotSaved { op, what: "the output".into() })
    }
}

/// A differentiable operation y = f(x₀, x₁, …).
///
/// If operands have tangents, `value` also computes the JVP, and `vjp` the tangent of the VJP.
pub trait Op: Any + Send + Sync + std::fmt::Debug {
    /// Name of the operation; also the name of its file or registry entry.
    fn name(&self) -> &'static str;

    /// Shape of y for inputs of these shapes.
    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>>;

    /// Floating-point operations of [`Op::value`] in matrix products and convolutions, for inputs of
    /// these shapes. A multiply-add counts as two.
    fn flops(&self, _x: &[&[usize]]) -> f64 {
        0.0
    }

    /// Whether y is an affine function of the marked inputs jointly, with all others fixed.
    fn is_affine_in(&self, inputs: &[bool]) -> bool;

    /// y, with tangents if any input has tangents.
    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor>;

    /// What [`Op::vjp`] needs if the gradients of these inputs are requested.
    fn save_set(&self, needs_grad: &[bool]) -> SaveSet;

    /// gxᵢ = (∂y/∂xᵢ)ᵀ gy for every input with `needs_grad`.
    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>>;

    /// Whether known values of y and gx₀ save this operation work; see [`Op::value_given_primal`]
    /// and [`Op::vjp_given_primal`].
    fn can_reuse_primal(&self) -> bool {
        false
    }

    /// y with its tangents. The value of y is known from an earlier pass over the same values.
    fn value_given_primal(&self, x: &[&DualTensor], _primal: &Tensor) -> Result<DualTensor> {
        self.value(x)
    }

    /// Same as [`Op::vjp`]. The value of gx₀ is known from an earlier backward pass over the same
    /// values.
    fn vjp_given_primal(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
        _primal: &Tensor,
    ) -> Result<Vec<Option<DualTensor>>> {
        self.vjp(saved, gy, needs_grad)
    }
}

/// An operand of a row kernel: a tensor, its row length, and whether its single row is shared by
/// all rows.
pub struct Operand<'a> {
    tensor: &'a DualTensor,
    len: usize,
    shared: bool,
}

/// The rows of `x` along its last dimension.
pub fn rows_of(x: &DualTensor) -> Operand<'_> {
    Operand { tensor: x, len: x.columns(), shared: false }
}

/// The rows of `x`, each of `len` numbers.
pub fn rows_of_len(x: &DualTensor, len: usize) -> Operand<'_> {
    Operand { tensor: x, len, shared: false }
}

/// All of `x` as one row, shared by all rows.
pub fn shared(x: &DualTensor) -> Operand<'_> {
    Operand { tensor: x, len: x.numel(), shared: true }
}

/// Runs a row kernel over tensors. Output `o` gets the shape `dims[o]`.
pub fn run_rows<N: RowKernel<I, O>, const I: usize, const O: usize>(
    op: &'static str,
    kernel: &N,
    rows: usize,
    operands: [Operand; I],
    outputs: [Output; O],
    dims: [&[usize]; O],
) -> Result<[DualTensor; O]> {
    let all: Vec<&DualTensor> = operands.iter().map(|o| o.tensor).collect();
    check(op, rows, &operands)?;
    #[cfg(feature = "cuda")]
    if all.iter().any(|x| x.on_gpu()) {
        let columns = operands.first().map_or(0, |o| o.len);
        let shared = operands.each_ref().map(|o| o.shared);
        let operands = (operands.map(|o| o.tensor), shared);
        return cuda::gpu::run_rows(op, kernel, [rows, columns], operands, outputs, dims);
    }
    match common_dtype(op, &all)? {
        DType::F32 => {
            typed::<f32, I, O>(op, operands, dims, &|x| cpu::run(kernel, rows, x, outputs))
        }
        _ => typed::<f64, I, O>(op, operands, dims, &|x| cpu::run(kernel, rows, x, outputs)),
    }
}

/// Checks that operands have the expected count of numbers and of tangents.
fn check(op: &'static str, rows: usize, operands: &[Operand]) -> Result<()> {
    let mut tangents = 0;
    for o in operands {
        let (found, expected) = (o.tensor.numel(), if o.shared { o.len } else { rows * o.len });
        if found != expected {
            return Err(Error::shape(op, format!("{expected} numbers"), format!("{found}")));
        }
        let k = o.tensor.tangents();
        if k > 0 && tangents > 0 && k != tangents {
            return Err(Error::shape(op, format!("{tangents} tangents"), format!("{k}")));
        }
        tangents = tangents.max(k);
    }
    Ok(())
}

/// The largest number of tangents of these operands.
pub(crate) fn most_tangents(operands: &[&DualTensor]) -> usize {
    operands.iter().map(|x| x.tangents()).max().unwrap_or(0)
}

/// Checks that all operands with tangents have the same number of them.
pub(crate) fn same_tangents(op: &'static str, operands: &[&DualTensor]) -> Result<()> {
    let most = most_tangents(operands);
    match operands.iter().find(|x| x.tangents() > 0 && x.tangents() != most) {
        Some(x) => Err(Error::shape(op, format!("{most} tangents"), format!("{}", x.tangents()))),
        None => Ok(()),
    }
}

/// A row kernel over all rows of its inputs.
type RunKernel<'a, E, const I: usize, const O: usize> =
    dyn Fn([Input<E>; I]) -> [Planes<E>; O] + 'a;

/// Runs `kernel` on CPU tensors of type E. A trait object, so that this is compiled once per number
/// of inputs and outputs instead of once per kernel.
fn typed<E: Element, const I: usize, const O: usize>(
    op: &'static str,
    operands: [Operand; I],
    dims: [&[usize]; O],
    kernel: &RunKernel<E, I, O>,
) -> Result<[DualTensor; O]> {
    let mut hosts = Vec::with_capacity(I);
    for o in &operands {
        let tangent = match o.tensor.tangent() {
            Some(t) => Some(Host::new(op, t)?),
            None => None,
        };
        hosts.push((Host::new(op, o.tensor.value())?, tangent));
    }
    let mut inputs = [Input { value: &[] as &[E], tangents: None, len: 0, shared: true }; I];
    for ((slot, o), (value, tangent)) in inputs.iter_mut().zip(&operands).zip(&hosts) {
        let tangents = match tangent {
            Some(t) => Some(t.slice::<E>()?),
            None => None,
        };
        *slot = Input { value: value.slice::<E>()?, tangents, len: o.len, shared: o.shared };
    }
    let planes = kernel(inputs);
    let mut results = Vec::with_capacity(O);
    for (plane, dims) in planes.into_iter().zip(dims) {
        results.push(plane.into_tensor(dims)?);
    }
    results.try_into().map_err(|_| Error::shape(op, format!("{O} outputs"), "another number"))
}

impl<E: Element> Planes<E> {
    /// Converts to a tensor of shape `dims`.
    pub fn into_tensor(self, dims: &[usize]) -> Result<DualTensor> {
        let size = self.value.len();
        let value = Tensor::from_vec(self.value, dims, &Device::Cpu)?;
        let tangent = match self.tangents {
            Some(t) => {
                let k = t.len().checked_div(size).unwrap_or(1);
                let shape: Vec<usize> = std::iter::once(k).chain(dims.iter().copied()).collect();
                Some(Tensor::from_vec(t, shape, &Device::Cpu)?)
            }
            None => None,
        };
        DualTensor::new(value, tangent)
    }
}
