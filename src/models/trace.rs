//! Runs a network without numbers.
//!
//! Every operation states the shape of its result, its floating-point operations, what its VJP needs
//! saved, and the inputs in which it is affine. A run over the stages collects these, as
//! `jax.eval_shape` collects shapes.

use super::network::{Network, ParamId};
use super::run::{Node, Run};
use super::{Error, Layer};
use planish_kernels::{Op, Products, Result};
use std::collections::BTreeSet;

/// A stage, for one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageTrace {
    /// Shape of its output, without the batch dimension.
    pub output: Vec<usize>,
    /// Floating-point operations in matrix products and convolutions; a multiply-add is two.
    pub flops: f64,
    /// Numbers that a gradient of all weights saves on the tape, without parameters.
    pub saved: usize,
}

/// How a tensor depends on the weights of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Dependence {
    #[default]
    None,
    Affine,
    Nonlinear,
}

/// A tensor without its numbers.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Size of each dimension.
    pub dims: Vec<usize>,
    /// Number that identifies an activation; `None` for parameters.
    activation: Option<usize>,
    dependence: Dependence,
}

impl Traced {
    /// A constant computed from parameters.
    pub(super) fn of_parameters(dims: Vec<usize>) -> Self {
        Self { dims, activation: None, dependence: Dependence::None }
    }
}

/// A run that only follows shapes.
struct Tracer<'a> {
    network: &'a Network,
    /// Parameters of the layer whose influence is followed.
    layer: BTreeSet<usize>,
    activations: usize,
    flops: f64,
    /// Activations that are saved on the tape, with their sizes.
    saved: BTreeSet<usize>,
    saved_len: usize,
}

impl<'a> Tracer<'a> {
    fn new(network: &'a Network, layer: BTreeSet<usize>) -> Self {
        let saved = BTreeSet::new();
        Self { network, layer, activations: 0, flops: 0.0, saved, saved_len: 0 }
    }

    fn activation(&mut self, dims: Vec<usize>, dependence: Dependence) -> Traced {
        self.activations += 1;
        Traced { dims, activation: Some(self.activations), dependence }
    }

    fn save(&mut self, x: &Traced) {
        if let Some(activation) = x.activation
            && self.saved.insert(activation)
        {
            self.saved_len += x.dims.iter().product::<usize>();
        }
    }

    fn stage(&mut self, stage: usize, x: Node) -> Result<Node> {
        let network = self.network;
        (network.stage(stage).function)(self, x)
    }
}

impl Run for Tracer<'_> {
    fn apply(&mut self, op: Box<dyn Op>, x: &[&Node]) -> Result<Node> {
        let x: Vec<&Traced> = x.iter().map(|node| node.traced()).collect::<Result<_>>()?;
        let dims: Vec<&[usize]> = x.iter().map(|x| x.dims.as_slice()).collect();
        let y = op.shape(&dims)?;
        let depends: Vec<bool> = x.iter().map(|x| x.dependence != Dependence::None).collect();
        let dependence = match x.iter().map(|x| x.dependence).max().unwrap_or_default() {
            Dependence::Affine if !op.is_affine_in(&depends) => Dependence::Nonlinear,
            other => other,
        };
        // A function of parameters alone is computed once for all images.
        if x.iter().all(|x| x.activation.is_none()) {
            return Ok(Node::Shape(Traced { dims: y, activation: None, dependence }));
        }
        self.flops += op.flops(&dims);
        let y = self.activation(y, dependence);
        let save = op.save_set(&vec![true; x.len()]);
        for (i, x) in x.iter().enumerate() {
            if save.inputs >> i & 1 == 1 {
                self.save(x);
            }
        }
        if save.output {
            self.save(&y);
        }
        Ok(Node::Shape(y))
    }

    fn param(&mut self, id: ParamId) -> Result<Node> {
        let dependence = match self.layer.contains(&id.0) {
            true => Dependence::Affine,
            false => Dependence::None,
        };
        let dims = self.network.params()[id.0].shape.clone();
        let leaf = Node::Shape(Traced { dims, activation: None, dependence });
        match self.network.expression(id) {
            Some(expression) => expression(self, leaf),
            None => Ok(leaf),
        }
    }

    fn products(&self) -> Products {
        Products::default()
    }
}

/// The trace of every stage.
///
/// # Errors
/// Shapes that do not fit together.
pub(super) fn stages(network: &Network) -> std::result::Result<Vec<StageTrace>, Error> {
    let mut tracer = Tracer::new(network, BTreeSet::new());
    let dims = std::iter::once(1).chain(network.input()).collect();
    let mut x = Node::Shape(tracer.activation(dims, Dependence::None));
    let mut traced = Vec::with_capacity(network.stages());
    for stage in 0..network.stages() {
        (tracer.flops, tracer.saved_len) = (0.0, 0);
        x = tracer.stage(stage, x)?;
        let output = x.dims().get(1..).unwrap_or_default().to_vec();
        traced.push(StageTrace { output, flops: tracer.flops, saved: tracer.saved_len });
    }
    Ok(traced)
}

/// Whether the logits are an affine function of the layer's weights.
pub(super) fn is_affine_in(network: &Network, layer: &Layer) -> bool {
    let mut tracer = Tracer::new(network, layer.tensors.iter().copied().collect());
    let dims = std::iter::once(1).chain(network.activation(layer.first_stage).iter().copied());
    let mut x = Node::Shape(tracer.activation(dims.collect(), Dependence::None));
    for stage in layer.first_stage..network.stages() {
        match tracer.stage(stage, x) {
            Ok(y) => x = y,
            // The network was traced when it was built.
            Err(_) => return false,
        }
    }
    x.traced().is_ok_and(|logits| logits.dependence != Dependence::Nonlinear)
}
