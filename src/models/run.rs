//! How a stage runs: on numbers, or on shapes alone.

use super::builder::{LayerNorm, Linear, PatchProjection};
use super::network::ParamId;
use super::trace::Traced;
use crate::tape::Value;
use planish_kernels::{
    Add, BiasGelu, BiasResidual, Error, Flatten, Gelu, GeluForm, Op, Products, Result,
};

/// The result of an operation in a stage.
#[derive(Clone)]
pub enum Node {
    /// A tensor.
    Value(Value),
    /// A shape.
    Shape(Traced),
}

impl Node {
    /// The tensor.
    ///
    /// # Errors
    /// It is a shape: results of two runs were mixed.
    pub fn value(&self) -> Result<&Value> {
        match self {
            Node::Value(value) => Ok(value),
            Node::Shape(_) => Err(Error::shape("stage", "a tensor", "a shape")),
        }
    }

    /// The shape.
    ///
    /// # Errors
    /// It is a tensor: results of two runs were mixed.
    pub fn traced(&self) -> Result<&Traced> {
        match self {
            Node::Shape(shape) => Ok(shape),
            Node::Value(_) => Err(Error::shape("stage", "a shape", "a tensor")),
        }
    }

    /// Size of each dimension.
    pub fn dims(&self) -> &[usize] {
        match self {
            Node::Value(value) => value.tensor().dims(),
            Node::Shape(shape) => &shape.dims,
        }
    }

    fn on_gpu(&self) -> bool {
        match self {
            Node::Value(value) => value.tensor().on_gpu(),
            Node::Shape(_) => false,
        }
    }
}

/// Runs the operations of a stage.
pub trait Run {
    /// Applies an operation.
    ///
    /// # Errors
    /// Those of the operation.
    fn apply(&mut self, op: Box<dyn Op>, x: &[&Node]) -> Result<Node>;

    /// A parameter.
    ///
    /// # Errors
    /// Those of the operations of its expression, if it has one.
    fn param(&mut self, id: ParamId) -> Result<Node>;

    /// How matrix products are computed.
    fn products(&self) -> Products;
}

impl dyn Run + '_ {
    /// [`Run::apply`], for an operation that is not boxed.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn op(&mut self, op: impl Op + 'static, x: &[&Node]) -> Result<Node> {
        self.apply(Box::new(op), x)
    }

    /// γ (x − μ)/√(σ² + ε) + β.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn layer_norm(&mut self, norm: LayerNorm, x: &Node) -> Result<Node> {
        let (gamma, beta) = (self.param(norm.weight)?, self.param(norm.bias)?);
        self.op(planish_kernels::LayerNorm { eps: norm.eps }, &[x, &gamma, &beta])
    }

    /// x Wᵀ + b.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn linear(&mut self, linear: Linear, x: &Node) -> Result<Node> {
        let (op, weight) = (self.linear_op(), self.param(linear.weight)?);
        match linear.bias {
            Some(bias) => {
                let bias = self.param(bias)?;
                self.op(op, &[x, &weight, &bias])
            }
            None => self.op(op, &[x, &weight]),
        }
    }

    /// The convolution, from patches (B, N, C·h·w).
    ///
    /// # Errors
    /// Those of the operations.
    pub fn patch_projection(&mut self, conv: PatchProjection, patches: &Node) -> Result<Node> {
        let weight = self.param(conv.weight)?;
        // (O, C, h, w) as a linear weight (O, C·h·w).
        let weight = self.op(Flatten, &[&weight])?;
        let op = self.linear_op();
        match conv.bias {
            Some(bias) => {
                let bias = self.param(bias)?;
                self.op(op, &[patches, &weight, &bias])
            }
            None => self.op(op, &[patches, &weight]),
        }
    }

    /// gelu(x Wᵀ + b).
    ///
    /// # Errors
    /// Those of the operations.
    pub fn linear_gelu(&mut self, linear: Linear, form: GeluForm, x: &Node) -> Result<Node> {
        match self.without_bias(linear, x)? {
            (h, Some(bias)) => self.op(BiasGelu { form }, &[&h, &bias]),
            (h, None) => self.op(Gelu { form }, &[&h]),
        }
    }

    /// x + scale · (h Wᵀ + b). Without a scale, x + (h Wᵀ + b).
    ///
    /// # Errors
    /// Those of the operations.
    pub fn residual(
        &mut self,
        x: &Node,
        linear: Linear,
        scale: Option<ParamId>,
        h: &Node,
    ) -> Result<Node> {
        let branch = match scale {
            Some(scale) => {
                let branch = self.linear(linear, h)?;
                let gamma = self.param(scale)?;
                self.op(planish_kernels::LayerScale, &[&branch, &gamma])?
            }
            None => match self.without_bias(linear, h)? {
                (y, Some(bias)) => return self.op(BiasResidual, &[&y, &bias, x]),
                (branch, None) => branch,
            },
        };
        self.op(Add, &[x, &branch])
    }

    /// The operation of a linear layer.
    pub fn linear_op(&self) -> planish_kernels::Linear {
        planish_kernels::Linear { products: self.products() }
    }

    /// A linear layer and its bias. If the bias is returned, the next operation must add it; a GPU
    /// does that in the same pass.
    fn without_bias(&mut self, linear: Linear, x: &Node) -> Result<(Node, Option<Node>)> {
        match linear.bias.filter(|_| x.on_gpu()) {
            None => Ok((self.linear(linear, x)?, None)),
            Some(bias) => {
                let (op, weight) = (self.linear_op(), self.param(linear.weight)?);
                Ok((self.op(op, &[x, &weight])?, Some(self.param(bias)?)))
            }
        }
    }
}
