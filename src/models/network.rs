//! A network: parameters and stages, with what their trace says about them.

use super::builder::{Branch, Builder, Init};
use super::run::{Node, Run};
use super::trace::{self, StageTrace};
use super::{Config, Error, Layer};
use planish_kernels::Result as KernelResult;
use std::collections::HashMap;

/// Index of a parameter in [`Network::params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub usize);

/// A parameter tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Canonical name, which is timm's.
    pub name: String,
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// Values in a new model.
    pub init: Init,
    /// The stage that uses it.
    pub stage: usize,
    /// Whether it is the scale or the shift of a normalisation layer.
    pub norm: bool,
    /// Whether it belongs to an adapter.
    pub adapter: bool,
}

/// The function of a stage.
pub type StageFn = dyn Fn(&mut dyn Run, Node) -> KernelResult<Node> + Send + Sync;

/// The smallest part of a network that a pass can start or end at.
pub struct Stage {
    /// Index of its layer.
    pub(super) layer: usize,
    /// The part of the layer, if the layer has several stages.
    pub(super) part: Option<Branch>,
    pub(super) function: Box<StageFn>,
}

/// A parameter as an expression of others, from the run and the parameter's own tensor.
pub type Expression = dyn Fn(&mut dyn Run, Node) -> KernelResult<Node> + Send + Sync;

/// A network for images of one size.
///
/// Stages are numbered from input to output. A pass may start and end at any of them; caches, frozen
/// layers and line searches rely on this.
pub struct Network {
    config: Config,
    input: [usize; 3],
    classes: usize,
    params: Vec<Param>,
    index: HashMap<String, usize>,
    stages: Vec<Stage>,
    layers: Vec<String>,
    expressions: HashMap<ParamId, Box<Expression>>,
    traced: Vec<StageTrace>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Network").field(&self.config).finish()
    }
}

impl Network {
    /// The network that `builder` declares, for images (C, H, W).
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn new(
        config: Config,
        builder: Builder,
        input: [usize; 3],
        classes: usize,
    ) -> Result<Self, Error> {
        let Builder { params, stages, layers, expressions } = builder;
        let index: HashMap<String, usize> =
            params.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        if index.len() != params.len() || layers.is_empty() {
            return Err(Error::Declaration);
        }
        let traced = Vec::new();
        let mut network =
            Self { config, input, classes, params, index, stages, layers, expressions, traced };
        network.traced = trace::stages(&network)?;
        let logits = network.traced.last().map(|stage| stage.output.as_slice());
        match logits == Some(&[network.classes][..]) {
            true => Ok(network),
            false => Err(Error::Output {
                expected: network.classes,
                found: logits.unwrap_or_default().to_vec(),
            }),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Channels, height and width of an image.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// All parameters, in timm's order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Index of the parameter with this name.
    pub fn param(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Number of numbers in all parameters.
    pub fn parameters(&self) -> usize {
        self.params.iter().map(|param| param.shape.iter().product::<usize>()).sum()
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.stages.len()
    }

    /// Name of a stage in messages: `embed`, `block.0, attention`.
    pub fn stage_name(&self, stage: usize) -> String {
        let Some(Stage { layer, part, .. }) = self.stages.get(stage) else {
            return "logits".into();
        };
        match part {
            Some(part) => format!("{}, {}", self.layers[*layer], part.title),
            None => self.layers[*layer].clone(),
        }
    }

    /// Shape of one image's activations at the input of a stage. The input of the stage after the
    /// last is the logits.
    pub fn activation(&self, stage: usize) -> &[usize] {
        match stage {
            0 => &self.input,
            _ => self.traced.get(stage - 1).map_or(&[], |stage| &stage.output),
        }
    }

    /// Number of numbers of one image at the input of a stage.
    pub fn activation_len(&self, stage: usize) -> usize {
        self.activation(stage).iter().product()
    }

    /// What the trace says about a stage.
    pub fn trace(&self, stage: usize) -> Option<&StageTrace> {
        self.traced.get(stage)
    }

    /// Whether the logits are an affine function of the layer's weights.
    pub fn is_linear_in(&self, layer: &Layer) -> bool {
        trace::is_affine_in(self, layer)
    }

    /// Names of the layers at block granularity.
    /// Index of the layer that holds a parameter, from the input.
    pub fn layer_of(&self, param: usize) -> usize {
        self.stage(self.params[param].stage).layer
    }

    /// Number of layers.
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn layer_names(&self) -> &[String] {
        &self.layers
    }

    pub(super) fn stage(&self, stage: usize) -> &Stage {
        &self.stages[stage]
    }

    pub(super) fn expression(&self, id: ParamId) -> Option<&Expression> {
        self.expressions.get(&id).map(|boxed| &**boxed)
    }
}
