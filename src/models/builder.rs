//! Declares a network: its layers, their stages, and the parameters of each.

use super::network::{Expression, Param, ParamId, Stage, StageFn};
use super::run::{Node, Run};
use planish_kernels::Result;
use std::collections::HashMap;

/// The initial values of a parameter of a new model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// N(0, σ²).
    Normal(f64),
    /// U(−b, b).
    Uniform(f64),
    /// The same number everywhere.
    Constant(f32),
}

/// A branch of a layer that is a stage of its own, such as the attention of a block.
#[derive(Clone, Copy, Debug)]
pub struct Branch {
    /// Name as a layer of its own: `attn` gives `block.0.attn`.
    pub name: &'static str,
    /// Name in messages: `attention` gives `block.0, attention`.
    pub title: &'static str,
}

/// A layer norm over the last dimension.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// γ: (D).
    pub weight: ParamId,
    /// β: (D).
    pub bias: ParamId,
    /// ε, added to the variance.
    pub eps: f64,
}

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// W: (O, I).
    pub weight: ParamId,
    /// b: (O), if it has one.
    pub bias: Option<ParamId>,
}

/// A convolution whose stride is the size of its kernel: a linear layer of patches.
#[derive(Clone, Copy, Debug)]
pub struct PatchProjection {
    /// W: (O, C, h, w).
    pub weight: ParamId,
    /// b: (O), if it has one.
    pub bias: Option<ParamId>,
}

/// Declares the layers of a network, from input to output.
#[derive(Default)]
pub struct Builder {
    pub(super) params: Vec<Param>,
    pub(super) stages: Vec<Stage>,
    pub(super) layers: Vec<String>,
    pub(super) expressions: HashMap<ParamId, Box<Expression>>,
}

impl Builder {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// The parameters declared so far.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Begins a layer. The following stages belong to it.
    pub fn layer(&mut self, name: impl Into<String>) {
        self.layers.push(name.into());
    }

    /// Adds a parameter to the stage of another one.
    pub fn param_beside(
        &mut self,
        other: ParamId,
        name: impl Into<String>,
        shape: &[usize],
        init: Init,
    ) -> ParamId {
        let stage = self.params[other.0].stage;
        StageBuilder { builder: self, stage }.param(name, shape, init)
    }

    /// [`Builder::param_beside`], for a parameter of an adapter.
    pub fn adapter(&mut self, of: ParamId, name: &str, shape: &[usize], init: Init) -> ParamId {
        let id = self.param_beside(of, name, shape, init);
        self.params[id.0].adapter = true;
        id
    }

    /// Replaces a parameter by an expression of itself and of other parameters. It is recorded on the
    /// tape, so gradients and Hessian-vector products are those of the tensors in the expression.
    pub fn express(
        &mut self,
        id: ParamId,
        expression: impl Fn(&mut dyn Run, Node) -> Result<Node> + Send + Sync + 'static,
    ) {
        self.expressions.insert(id, Box::new(expression));
    }

    /// Adds a stage to the current layer. `declare` declares its parameters and returns its function.
    pub fn stage<F>(&mut self, part: Option<Branch>, declare: impl FnOnce(&mut StageBuilder) -> F)
    where
        F: Fn(&mut dyn Run, Node) -> Result<Node> + Send + Sync + 'static,
    {
        let stage = self.stages.len();
        let function: Box<StageFn> = Box::new(declare(&mut StageBuilder { builder: self, stage }));
        let layer = self.layers.len().saturating_sub(1);
        self.stages.push(Stage { layer, part, function });
    }
}

/// Declares the parameters of one stage.
pub struct StageBuilder<'a> {
    builder: &'a mut Builder,
    stage: usize,
}

impl StageBuilder<'_> {
    /// A parameter.
    pub fn param(&mut self, name: impl Into<String>, shape: &[usize], init: Init) -> ParamId {
        self.declare(name.into(), shape, init, false)
    }

    fn declare(&mut self, name: String, shape: &[usize], init: Init, norm: bool) -> ParamId {
        let params = &mut self.builder.params;
        params.push(Param {
            name,
            shape: shape.to_vec(),
            init,
            stage: self.stage,
            norm,
            adapter: false,
        });
        ParamId(params.len() - 1)
    }

    /// A layer norm: `NAME.weight` and `NAME.bias`, initially 1 and 0.
    pub fn layer_norm(&mut self, name: &str, dim: usize, eps: f64) -> LayerNorm {
        let weight = self.declare(format!("{name}.weight"), &[dim], Init::Constant(1.0), true);
        let bias = self.declare(format!("{name}.bias"), &[dim], Init::Constant(0.0), true);
        LayerNorm { weight, bias, eps }
    }

    /// A projection of patches: `NAME.weight` of shape (O, C, h, w) and, if it has initial values,
    /// `NAME.bias`.
    pub fn patch_projection(
        &mut self,
        name: &str,
        shape: [usize; 4],
        weight: Init,
        bias: Option<Init>,
    ) -> PatchProjection {
        let weight = self.param(format!("{name}.weight"), &shape, weight);
        let bias = bias.map(|bias| self.param(format!("{name}.bias"), &shape[..1], bias));
        PatchProjection { weight, bias }
    }

    /// A linear layer: `NAME.weight` and, if it has one, `NAME.bias`, initially 0.
    pub fn linear(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        bias: bool,
        init: Init,
    ) -> Linear {
        let weight = self.param(format!("{name}.weight"), &[outputs, inputs], init);
        let zero = Init::Constant(0.0);
        let bias = bias.then(|| self.param(format!("{name}.bias"), &[outputs], zero));
        Linear { weight, bias }
    }
}
