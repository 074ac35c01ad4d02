//! What every operation offers the tape, and the bridge from tensors to the row driver.

use crate::cpu::{self, Input, Output, Planes, RowKernel};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::dual_tensor::{DualTensor, Host, common_dtype};
use crate::error::{Error, Result};
use crate::lanes::Element;
use candle_core::{DType, Device, Tensor};
use std::any::Any;

/// What an operation wants kept from the forward pass for its VJP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Bit i: input i.
    pub inputs: u32,
    /// Its output.
    pub output: bool,
}

/// What the tape kept, and the shapes of all inputs.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Kept inputs by position.
    pub inputs: Vec<Option<DualTensor>>,
    /// The kept output.
    pub output: Option<DualTensor>,
    /// Shape of every input.
    pub dims: Vec<Vec<usize>>,
}

impl Kept {
    /// Input `i`, or an error if it was not kept.
    pub fn input(&self, op: &'static str, i: usize) -> Result<&DualTensor> {
        self.inputs
            .get(i)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::NotKept { op, what: format!("input {i}") })
    }

    /// The output, or an error if it was not kept.
    pub fn output(&self, op: &'static str) -> Result<&DualTensor> {
        self.output.as_ref().ok_or_else(|| Error::NotKept { op, what: "its output".into() })
    }
}

/// A differentiable operation y = f(x₀, x₁, …).
///
/// On operands with tangents `value` also gives the JVP and `vjp` the tangent of the VJP.
pub trait Op: Any + Send + Sync + std::fmt::Debug {
    /// Its name: the file it stands in.
    fn name(&self) -> &'static str;

    /// y, with tangents where any input has them.
    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor>;

    /// What [`Op::vjp`] will need when these inputs' gradients are wanted.
    fn keep(&self, wanted: &[bool]) -> Keep;

    /// gxᵢ = (∂y/∂xᵢ)ᵀ gy for every wanted input.
    fn vjp(&self, kept: &Kept, gy: &DualTensor, wanted: &[bool])
    -> Result<Vec<Option<DualTensor>>>;

    /// Whether knowing the values of y and gx₀ spares this operation work, see
    /// [`Op::value_beside`] and [`Op::vjp_beside`].
    fn spares(&self) -> bool {
        false
    }

    /// y with its tangents, its value being known from an earlier pass over the same values.
    fn value_beside(&self, x: &[&DualTensor], _known: &Tensor) -> Result<DualTensor> {
        self.value(x)
    }

    /// As [`Op::vjp`], the value of gx₀ being known from an earlier sweep with the same values.
    fn vjp_beside(
        &self,
        kept: &Kept,
        gy: &DualTensor,
        wanted: &[bool],
        _known: &Tensor,
    ) -> Result<Vec<Option<DualTensor>>> {
        self.vjp(kept, gy, wanted)
    }
}

/// An operand of a row kernel: the tensor, and whether its one row serves every row.
pub struct Operand<'a> {
    tensor: &'a DualTensor,
    len: usize,
    shared: bool,
}

/// Every row of `x`, columns being its last dimension.
pub fn rows_of(x: &DualTensor) -> Operand<'_> {
    Operand { tensor: x, len: x.columns(), shared: false }
}

/// The rows of `x`, each of `len` numbers.
pub fn rows_of_len(x: &DualTensor, len: usize) -> Operand<'_> {
    Operand { tensor: x, len, shared: false }
}

/// `x` as one row, read for every row.
pub fn shared(x: &DualTensor) -> Operand<'_> {
    Operand { tensor: x, len: x.numel(), shared: true }
}

/// Runs a row kernel over tensors; output `o` gets the shape `dims[o]`.
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
        DType::F32 => typed::<f32, _, I, O>(op, kernel, rows, operands, outputs, dims),
        _ => typed::<f64, _, I, O>(op, kernel, rows, operands, outputs, dims),
    }
}

/// That operands have the numbers and the tangents that they should.
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

fn typed<E: Element, N: RowKernel<I, O>, const I: usize, const O: usize>(
    op: &'static str,
    kernel: &N,
    rows: usize,
    operands: [Operand; I],
    outputs: [Output; O],
    dims: [&[usize]; O],
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
    let planes = cpu::run(kernel, rows, inputs, outputs);
    let mut results = Vec::with_capacity(O);
    for (plane, dims) in planes.into_iter().zip(dims) {
        results.push(plane.into_tensor(dims)?);
    }
    results.try_into().map_err(|_| Error::shape(op, format!("{O} outputs"), "another number"))
}

impl<E: Element> Planes<E> {
    /// The planes as a tensor of shape `dims`.
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
