//! Records operations on the way up and sweeps back down.
//!
//! Only what a wanted gradient depends on is recorded, and of that only what each operation says
//! its VJP needs. The sweep drops each record once it has used it, so memory falls as it goes.
//! On tensors with tangents the same sweep returns gradients with tangents, which are
//! Hessian-vector products.
//!
//! Where many tangents follow the same values, one pass records these ([`Tape::recording`]), and
//! each that follows replays them ([`Tape::replaying`]): operations that are told their values
//! compute tangents alone.

mod record;

pub use record::Record;

use crate::vector;
use candle_core::{DType, Device, Tensor};
use planish_kernels::lanes::Element;
use planish_kernels::{DualTensor, Host, Kept, Op, Result};
use std::sync::{Arc, OnceLock};

/// The record of one forward pass.
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
    linear: bool,
    watch: Option<Arc<OnceLock<Flaw>>>,
    stage: usize,
    values: Values,
}

/// Where an operation's values are known from, or noted for.
#[derive(Default)]
enum Values {
    /// Nowhere.
    #[default]
    Own,
    /// Noted as they come.
    Noted(Box<Record>),
    /// Known from an earlier pass; the next operation's place there.
    Known(Arc<Record>, usize),
}

/// Where a number first was not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The operation.
    pub op: &'static str,
    /// Its stage of the model.
    pub stage: usize,
    /// On the way back, not on the way up.
    pub backward: bool,
}

/// A tensor on its way through the model, and where it stands on the tape if it is recorded.
#[derive(Clone)]
pub struct Value {
    tensor: DualTensor,
    node: Option<usize>,
}

impl Value {
    /// A value that no gradient is wanted for.
    pub fn constant(tensor: DualTensor) -> Self {
        Self { tensor, node: None }
    }

    /// The numbers.
    pub fn tensor(&self) -> &DualTensor {
        &self.tensor
    }
}

enum Node {
    /// Something whose gradient is wanted.
    Leaf,
    /// The result of an operation; `parents[i]` is where input i stands, if it is recorded.
    Applied {
        op: Box<dyn Op>,
        parents: Vec<Option<usize>>,
        kept: Kept,
        stage: usize,
        /// Its place in a record.
        place: usize,
    },
}

/// Gradients of the watched values.
pub struct Gradients(Vec<Option<DualTensor>>);

impl Gradients {
    /// The gradient of a watched value; `None` if the result does not depend on it.
    pub fn take(&mut self, leaf: &Value) -> Option<DualTensor> {
        self.0.get_mut(leaf.node?)?.take()
    }
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, but values are kept without their tangents: the way back is then the adjoint of
    /// the derivative at the values, and tangents of its seed pass through it as they are.
    pub fn linearised(self) -> Self {
        Self { linear: true, ..self }
    }

    /// A tape that looks at every number, which takes time, and tells where one first was not
    /// finite.
    pub fn looking(found: Arc<OnceLock<Flaw>>) -> Self {
        Self { watch: Some(found), ..Self::default() }
    }

    /// An empty tape that looks out for the same flaw.
    pub fn beside(&self) -> Self {
        Self { watch: self.watch.clone(), stage: self.stage, ..Self::default() }
    }

    /// A tape that notes values for others to replay; [`Tape::backward_noting`] hands them out.
    pub fn recording() -> Self {
        Self { values: Values::Noted(Box::default()), ..Self::default() }
    }

    /// A tape for a pass along recorded values, from any stage that was passed.
    pub fn replaying(record: Arc<Record>) -> Self {
        Self { values: Values::Known(record, usize::MAX), ..Self::default() }
    }

    /// A stage of the model begins, with this input.
    pub fn enter(&mut self, stage: usize, x: &Value) {
        self.stage = stage;
        match &mut self.values {
            Values::Own => {}
            Values::Noted(record) => record.enter(stage, &x.tensor),
            Values::Known(record, next) => *next = record.first_of(stage),
        }
    }

    fn look(&self, x: &DualTensor, flaw: Flaw) -> Result<()> {
        if let Some(watch) = &self.watch
            && watch.get().is_none()
            && !(is_finite(x.value())? && x.tangent().map_or(Ok(true), is_finite)?)
        {
            // Whoever was first has found it.
            let _ = watch.set(flaw);
        }
        Ok(())
    }

    /// A value whose gradient is wanted.
    pub fn watch(&mut self, tensor: DualTensor) -> Value {
        self.nodes.push(Node::Leaf);
        Value { tensor, node: Some(self.nodes.len() - 1) }
    }

    /// Applies an operation, and records it if any input is recorded.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[&Value]) -> Result<Value> {
        let tensors: Vec<&DualTensor> = inputs.iter().map(|v| &v.tensor).collect();
        let (y, place) = self.value(&op, &tensors)?;
        self.look(&y, Flaw { op: op.name(), stage: self.stage, backward: false })?;
        let parents: Vec<Option<usize>> = inputs.iter().map(|v| v.node).collect();
        let wanted: Vec<bool> = parents.iter().map(Option::is_some).collect();
        if !wanted.contains(&true) {
            return Ok(Value::constant(y));
        }
        let keep = op.keep(&wanted);
        let kept = Kept {
            inputs: tensors
                .iter()
                .enumerate()
                .map(|(i, &x)| (keep.inputs >> i & 1 == 1).then(|| self.kept(x)))
                .collect(),
            output: keep.output.then(|| self.kept(&y)),
            dims: tensors.iter().map(|x| x.dims().to_vec()).collect(),
        };
        let stage = self.stage;
        self.nodes.push(Node::Applied { op: Box::new(op), parents, kept, stage, place });
        Ok(Value { tensor: y, node: Some(self.nodes.len() - 1) })
    }

    /// y and the operation's place in the record.
    fn value(&mut self, op: &impl Op, x: &[&DualTensor]) -> Result<(DualTensor, usize)> {
        match &mut self.values {
            Values::Own => Ok((op.value(x)?, 0)),
            Values::Noted(record) => {
                let y = op.value(x)?;
                let place = record.push(op.spares().then(|| y.value().clone()));
                Ok((y, place))
            }
            Values::Known(record, next) => {
                let place = *next;
                *next = next.saturating_add(1);
                let y = match record.known(place).and_then(|known| known.output.as_ref()) {
                    Some(known) => op.value_beside(x, known)?,
                    None => op.value(x)?,
                };
                Ok((y, place))
            }
        }
    }

    fn gradients(
        &mut self,
        op: &dyn Op,
        place: usize,
        (kept, gy, wanted): (&Kept, &DualTensor, &[bool]),
    ) -> Result<Vec<Option<DualTensor>>> {
        match &mut self.values {
            Values::Own => op.vjp(kept, gy, wanted),
            Values::Noted(record) => {
                let found = op.vjp(kept, gy, wanted)?;
                if op.spares() {
                    record.set_gradient(place, found.first().and_then(Option::as_ref));
                }
                Ok(found)
            }
            Values::Known(record, _) => {
                match record.known(place).and_then(|known| known.gradient.as_ref()) {
                    Some(known) => op.vjp_beside(kept, gy, wanted, known),
                    None => op.vjp(kept, gy, wanted),
                }
            }
        }
    }

    fn kept(&self, x: &DualTensor) -> DualTensor {
        if self.linear { DualTensor::constant(x.value().clone()) } else { x.clone() }
    }

    /// Sweeps back from `y` with cotangent `gy` and returns the gradients of all watched values.
    pub fn backward(mut self, y: &Value, gy: DualTensor) -> Result<Gradients> {
        self.sweep(y, gy)
    }

    /// The same, and what a recording tape has noted.
    pub fn backward_noting(mut self, y: &Value, gy: DualTensor) -> Result<(Gradients, Record)> {
        let gradients = self.sweep(y, gy)?;
        match self.values {
            Values::Noted(record) => Ok((gradients, *record)),
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
            let Node::Applied { op, parents, kept, stage, place } = node else { continue };
            let Some(gy) = gradients[nodes.len()].take() else { continue };
            let wanted: Vec<bool> = parents.iter().map(Option::is_some).collect();
            let found = self.gradients(&*op, place, (&kept, &gy, &wanted))?;
            drop(kept);
            for (parent, g) in parents.into_iter().zip(found) {
                let (Some(parent), Some(g)) = (parent, g) else { continue };
                self.look(&g, Flaw { op: op.name(), stage, backward: true })?;
                gradients[parent] = Some(match gradients[parent].take() {
                    Some(sum) => sum.plus(&g)?,
                    None => g,
                });
            }
        }
        Ok(Gradients(gradients))
    }
}

/// Whether every number is.
pub fn is_finite(x: &Tensor) -> Result<bool> {
    let summed = matches!(x.dtype(), DType::F32 | DType::F64);
    // There a sum of squares tells, which of finite numbers overflows but in f64.
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
