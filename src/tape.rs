//! Records operations on the way up and sweeps back down.
//!
//! Only what a wanted gradient depends on is recorded, and of that only what each operation says
//! its VJP needs. The sweep drops each record once it has used it, so memory falls as it goes.
//! On tensors with tangents the same sweep returns gradients with tangents, which are
//! Hessian-vector products.

use planish_kernels::{DualTensor, Kept, Op, Result};

/// The record of one forward pass.
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
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
    Applied { op: Box<dyn Op>, parents: Vec<Option<usize>>, kept: Kept },
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

    /// A value whose gradient is wanted.
    pub fn watch(&mut self, tensor: DualTensor) -> Value {
        self.nodes.push(Node::Leaf);
        Value { tensor, node: Some(self.nodes.len() - 1) }
    }

    /// Applies an operation, and records it if any input is recorded.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[&Value]) -> Result<Value> {
        let tensors: Vec<&DualTensor> = inputs.iter().map(|v| &v.tensor).collect();
        let y = op.value(&tensors)?;
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
                .map(|(i, &x)| (keep.inputs >> i & 1 == 1).then(|| x.clone()))
                .collect(),
            output: keep.output.then(|| y.clone()),
            dims: tensors.iter().map(|x| x.dims().to_vec()).collect(),
        };
        self.nodes.push(Node::Applied { op: Box::new(op), parents, kept });
        Ok(Value { tensor: y, node: Some(self.nodes.len() - 1) })
    }

    /// Sweeps back from `y` with cotangent `gy` and returns the gradients of all watched values.
    pub fn backward(self, y: &Value, gy: DualTensor) -> Result<Gradients> {
        let mut nodes = self.nodes;
        let mut gradients: Vec<Option<DualTensor>> = vec![None; nodes.len()];
        if let Some(node) = y.node {
            gradients[node] = Some(gy);
        }
        while let Some(node) = nodes.pop() {
            let Node::Applied { op, parents, kept } = node else { continue };
            let Some(gy) = gradients[nodes.len()].take() else { continue };
            let wanted: Vec<bool> = parents.iter().map(Option::is_some).collect();
            let found = op.vjp(&kept, &gy, &wanted)?;
            drop(kept);
            for (parent, g) in parents.into_iter().zip(found) {
                let (Some(parent), Some(g)) = (parent, g) else { continue };
                gradients[parent] = Some(match gradients[parent].take() {
                    Some(sum) => sum.plus(&g)?,
                    None => g,
                });
            }
        }
        Ok(Gradients(gradients))
    }
}
