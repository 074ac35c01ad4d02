//! A forward pass on a tape.

use super::Weights;
use super::network::{Network, ParamId};
use super::run::{Node, Run};
use crate::tape::{Tape, Value};
use candle_core::DType;
use planish_kernels::{Cast, DualTensor, Op, Products, Result};
use std::collections::BTreeMap;

/// One forward pass: the tape, the weights, and the parameters that replace some of them.
pub struct Pass<'a> {
    network: &'a Network,
    weights: &'a Weights,
    /// Parameters that are watched or have tangents, by index.
    replaced: BTreeMap<usize, Value>,
    /// How matrix products are computed.
    products: Products,
    /// The tape.
    pub tape: Tape,
}

impl<'a> Pass<'a> {
    /// A pass with plain weights that records nothing.
    pub fn new(network: &'a Network, weights: &'a Weights, products: Products) -> Self {
        Self { network, weights, replaced: BTreeMap::new(), products, tape: Tape::new() }
    }

    /// Watches parameter `i`, given with its tangents, if any.
    pub fn watch(&mut self, i: usize, parameter: DualTensor) -> Value {
        let value = self.tape.watch(parameter);
        self.replaced.insert(i, value.clone());
        value
    }

    /// Gives parameter `i` tangents without watching it.
    pub fn perturb(&mut self, i: usize, parameter: DualTensor) {
        self.replaced.insert(i, Value::constant(parameter));
    }

    /// Runs stages `from..to` on `x`.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn run(&mut self, from: usize, to: usize, mut x: Value) -> Result<Value> {
        let network = self.network;
        for stage in from..to {
            self.tape.enter(stage, &x);
            x = self.stored(stage, x)?;
            let y = (network.stage(stage).function)(self, Node::Value(x))?;
            x = y.value()?.clone();
        }
        Ok(x)
    }

    /// A stage's input in the stage's storage type. In bf16, a GPU stores activations between the
    /// first and the last stage as bf16, since memory bandwidth dominates there. Elsewhere only
    /// operands of matrix products are rounded.
    fn stored(&mut self, stage: usize, x: Value) -> Result<Value> {
        let between = (1..self.network.stages().saturating_sub(1)).contains(&stage);
        let half = between && self.products == Products::Bf16 && x.tensor().on_gpu();
        let from = x.tensor().value().dtype();
        let to = match from {
            DType::F32 | DType::BF16 if half => DType::BF16,
            DType::BF16 => DType::F32,
            other => other,
        };
        if from == to { Ok(x) } else { self.tape.apply(Cast { from, to }, &[&x]) }
    }
}

impl Run for Pass<'_> {
    fn apply(&mut self, op: Box<dyn Op>, x: &[&Node]) -> Result<Node> {
        let x: Vec<&Value> = x.iter().map(|node| node.value()).collect::<Result<_>>()?;
        Ok(Node::Value(self.tape.apply_boxed(op, &x)?))
    }

    fn param(&mut self, id: ParamId) -> Result<Node> {
        let leaf = match self.replaced.get(&id.0) {
            Some(value) => value.clone(),
            None => Value::constant(DualTensor::constant(self.weights.tensor(id.0).clone())),
        };
        let network = self.network;
        match network.expression(id) {
            Some(expression) => expression(self, Node::Value(leaf)),
            None => Ok(Node::Value(leaf)),
        }
    }

    fn products(&self) -> Products {
        self.products
    }
}
