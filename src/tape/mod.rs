//! Reverse-mode automatic differentiation over the operations of `planish-kernels`.
//!
//! A tape records operations during the forward pass and runs their VJPs in reverse order during
//! the backward pass. It records only operations that a requested gradient depends on, and saves
//! only what each operation's VJP needs. The backward pass drops each record after use, so memory
//! falls as it proceeds. If tensors carry tangents, the backward pass returns gradients with
//! tangents; these are Hessian-vector products.
//!
//! When many sets of tangents share the same primal values, one pass records the values
//! ([`Tape::recording`]) and later passes replay them ([`Tape::replaying`]). In a replay,
//! operations that support it compute only tangents.

mod record;

pub use record::Record;

use crate::vector;
use candle_core::{DType, Device, Tensor};
use planish_kernels::lanes::Element;
use planish_kernels::{DualTensor, Host, Op, Result, Saved};
use std::sync::{Arc, OnceLock};

/// The record of one forward pass.
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
    linear: bool,
    non_finite: Option<Arc<OnceLock<NonFinite>>>,
    stage: usize,
    mode: Mode,
}

/// Where the primal values of an operation come from.
#[derive(Default)]
enum Mode {
    /// The operation computes them.
    #[default]
    Plain,
    /// The operation computes them, and the record stores them.
    Recording(Box<Record>),
    /// Read from the record of an earlier pass. The number is the index of the next operation.
    Replaying(Arc<Record>, usize),
}

/// Where the first NaN or infinity appeared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The operation.
    pub op: &'static str,
    /// The model stage of the operation.
    pub stage: usize,
    /// Whether it appeared in the backward pass.
    pub backward: bool,
}

/// A tensor in the model, with its node on the tape if it is recorded.
#[derive(Clone)]
pub struct Value {
    tensor: DualTensor,
    node: Option<usize>,
}

impl Value {
    /// A value that needs no gradient.
    pub fn constant(tensor: DualTensor) -> Self {
        Self { tensor, node: None }
    }

    /// The tensor.
    pub fn tensor(&self) -> &DualTensor {
        &self.tensor
    }
}

enum Node {
    /// A value whose gradient is requested.
    Leaf,
    /// The result of an operation. `parents[i]` is the node of input i, if that input is recorded.
    Applied {
        op: Box<dyn Op>,
        parents: Vec<Option<usize>>,
        saved: Saved,
        stage: usize,
        /// Index of the operation in the record.
        index: usize,
    },
}

/// Gradients of the watched values, by node.
pub struct Gradients(Vec<Option<DualTensor>>);

impl Gradients {
    /// The gradient of a watched value. `None` if the result does not depend on it.
    pub fn take(&mut self, leaf: &Value) -> Option<DualTensor> {
        self.0.get_mut(leaf.node?)?.take()
    }
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Saves values without their tangents.
    ///
    /// The backward pass then applies the adjoint of the linearised model, and the tangents of the
    /// cotangent pass through it unchanged. This gives Gauss-Newton products.
    pub fn linearised(self) -> Self {
        Self { linear: true, ..self }
    }

    /// A tape that checks every number and stores where the first NaN or infinity appeared. This is
    /// slow.
    pub fn checking_finite(found: Arc<OnceLock<NonFinite>>) -> Self {
        Self { non_finite: Some(found), ..Self::default() }
    }

    /// An empty tape that reports to the same [`NonFinite`] cell.
    pub fn sibling(&self) -> Self {
        Self { non_finite: self.non_finite.clone(), stage: self.stage, ..Self::default() }
    }

    /// A tape that records primal values for later replays. [`Tape::backward_recording`] returns
    /// the record.
    pub fn recording() -> Self {
        Self { mode: Mode::Recording(Box::default()), ..Self::default() }
    }

    /// A tape that replays recorded values. The pass may start at any recorded stage.
    pub fn replaying(record: Arc<Record>) -> Self {
        Self { mode: Mode::Replaying(record, usize::MAX), ..Self::default() }
    }

    /// Marks the start of a model stage with input `x`.
    pub fn enter(&mut self, stage: usize, x: &Value) {
        self.stage = stage;
        match &mut self.mode {
            Mode::Plain => {}
            Mode::Recording(record) => record.enter(stage, &x.tensor),
            Mode::Replaying(record, next) => *next = record.first_operation(stage),
        }
    }

    fn check_finite(&self, x: &DualTensor, here: NonFinite) -> Result<()> {
        if let Some(cell) = &self.non_finite
            && cell.get().is_none()
            && !(is_finite(x.value())? && x.tangent().map_or(Ok(true), is_finite)?)
        {
            // Only the first finding is kept.
            let _ = cell.set(here);
        }
        Ok(())
    }

    /// Registers a value whose gradient is requested.
    pub fn watch(&mut self, tensor: DualTensor) -> Value {
        self.nodes.push(Node::Leaf);
        Value { tensor, node: Some(self.nodes.len() - 1) }
    }

    /// Applies an operation. Records it if any input is recorded.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[&Value]) -> Result<Value> {
        self.apply_boxed(Box::new(op), inputs)
    }

    /// [`Tape::apply`], for an operation in a box.
    pub fn apply_boxed(&mut self, op: Box<dyn Op>, inputs: &[&Value]) -> Result<Value> {
        let tensors: Vec<&DualTensor> = inputs.iter().map(|v| &v.tensor).collect();
        let (y, index) = self.value(&*op, &tensors)?;
        self.check_finite(&y, NonFinite { op: op.name(), stage: self.stage, backward: false })?;
        let parents: Vec<Option<usize>> = inputs.iter().map(|v| v.node).collect();
        let needs_grad: Vec<bool> = parents.iter().map(Option::is_some).collect();
        if !needs_grad.contains(&true) {
            return Ok(Value::constant(y));
        }
        let save = op.save_set(&needs_grad);
        let saved = Saved {
            inputs: tensors
                .iter()
                .enumerate()
                .map(|(i, &x)| (save.inputs >> i & 1 == 1).then(|| self.saved(x)))
                .collect(),
            output: save.output.then(|| self.saved(&y)),
            dims: tensors.iter().map(|x| x.dims().to_vec()).collect(),
        };
        let stage = self.stage;
        self.nodes.push(Node::Applied { op, parents, saved, stage, index });
        Ok(Value { tensor: y, node: Some(self.nodes.len() - 1) })
    }

    /// Returns y and the index of the operation in the record.
    fn value(&mut self, op: &dyn Op, x: &[&DualTensor]) -> Result<(DualTensor, usize)> {
        match &mut self.mode {
            Mode::Plain => Ok((op.value(x)?, 0)),
            Mode::Recording(record) => {
                let y = op.value(x)?;
                let index = record.push(op.can_reuse_primal().then(|| y.value().clone()));
                Ok((y, index))
            }
            Mode::Replaying(record, next) => {
                let index = *next;
                *next = next.saturating_add(1);
                let y = match record.primals(index).and_then(|primals| primals.output.as_ref()) {
                    Some(primal) => op.value_given_primal(x, primal)?,
                    None => op.value(x)?,
                };
                Ok((y, index))
            }
        }
    }

    fn gradients(
        &mut self,
        op: &dyn Op,
        index: usize,
        (saved, gy, needs_grad): (&Saved, &DualTensor, &[bool]),
    ) -> Result<Vec<Option<DualTensor>>> {
        match &mut self.mode {
            Mode::Plain => op.vjp(saved, gy, needs_grad),
            Mode::Recording(record) => {
                let found = op.vjp(saved, gy, needs_grad)?;
                if op.can_reuse_primal() {
                    record.set_gradient(index, found.first().and_then(Option::as_ref));
                }
                Ok(found)
            }
            Mode::Replaying(record, _) => {
                match record.primals(index).and_then(|primals| primals.gradient.as_ref()) {
                    Some(primal) => op.vjp_given_primal(saved, gy, needs_grad, primal),
                    None => op.vjp(saved, gy, needs_grad),
                }
            }
        }
    }

    fn saved(&self, x: &DualTensor) -> DualTensor {
        if self.linear { DualTensor::constant(x.value().clone()) } else { x.clone() }
    }

    /// Runs the backward pass from `y` with cotangent `gy`. Returns the gradients of all watched
    /// values.
    pub fn backward(mut self, y: &Value, gy: DualTensor) -> Result<Gradients> {
        self.sweep(y, gy)
    }

    /// Same as [`Tape::backward`]; also returns the record of a recording tape.
    pub fn backward_recording(mut self, y: &Value, gy: DualTensor) -> Result<(Gradients, Record)> {
        let gradients = self.sweep(y, gy)?;
        match self.mode {
            Mode::Recording(record) => Ok((gradients, *record)),
            _ => Ok((gradients, Record::default())),
        }
    }

    fn sweep(&mut self, y: &Value, gy: DualTensor) -> Result<Gradients> {
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut gradients: Vec<Option<DualTensor>> = vec![None; nodes.len()];
        if let Some(node) = y.node {
            gradients[node] = Some(gy);
        }
        while let Some(node) = nodes.pop() {
            let Node::Applied { op, parents, saved, stage, index } = node else { continue };
            let Some(gy) = gradients[nodes.len()].take() else { continue };
            let needs_grad: Vec<bool> = parents.iter().map(Option::is_some).collect();
            let found = self.gradients(&*op, index, (&saved, &gy, &needs_grad))?;
            drop(saved);
            for (parent, g) in parents.into_iter().zip(found) {
                let (Some(parent), Some(g)) = (parent, g) else { continue };
                self.check_finite(&g, NonFinite { op: op.name(), stage, backward: true })?;
                gradients[parent] = Some(match gradients[parent].take() {
                    Some(sum) => sum.plus(&g)?,
                    None => g,
                });
            }
        }
        Ok(Gradients(gradients))
    }
}

/// Whether every number is finite.
pub fn is_finite(x: &Tensor) -> Result<bool> {
    let summed = matches!(x.dtype(), DType::F32 | DType::F64);
    // On a GPU, a finite sum of squares proves that all numbers are finite. In f64 a sum of finite
    // numbers may overflow, so an infinite sum proves nothing: check on the CPU.
    if x.device().is_cuda() && summed && vector::norm(std::slice::from_ref(x))?.is_finite() {
        return Ok(true);
    }
    let x = x.to_device(&Device::Cpu)?;
    match x.dtype() {
        DType::F64 => finite::<f64>(&x),
        DType::BF16 => finite::<f32>(&x.to_dtype(DType::F32)?),
        _ => finite::<f32>(&x),
    }
}

fn finite<E: Element>(x: &Tensor) -> Result<bool> {
    let host = Host::new("finite", x)?;
    Ok(host.slice::<E>()?.iter().all(|v| v.wide().is_finite()))
}
