//! The forward pass, stage by stage, as operations on a tape.
//!
//! Stages (see [`super::Layer`]): 0 is the embedding, (B, C, H, W) → (B, T, D). Each block has its
//! attention branch and its MLP branch, (B, T, D) → (B, T, D). Then come the final norm with the
//! pooling, → (B, D), or (B, 2, D) for two heads; and the head, → (B, classes).
//!
//! If the class token is picked, the last block's attention branch outputs only that token, (B, T,
//! D) → (B, 1, D), or (B, 2, D) with a distillation token, because no other token is used. A pass
//! may start and end at any stage; caches and line searches rely on this.

use super::{Activation, Config, FinalNorm, Pooling, Weights};
use crate::tape::{Tape, Value};
use candle_core::DType;
use planish_kernels::{
    Add, Attention, BiasGelu, BiasResidual, Cast, DualTensor, Error, FirstTokens, Gelu, LayerNorm,
    LayerScale, Linear, MeanTokens, Patches, PickToken, Prepend, Products, Result, Scale,
    WeightRows,
};
use std::collections::BTreeMap;

/// Number of stages of a model.
pub fn stages(config: &Config) -> usize {
    2 * config.depth + 3
}

/// Name of a stage.
pub fn stage_name(config: &Config, stage: usize) -> String {
    match stage {
        0 => "embed".into(),
        s if s == 2 * config.depth + 1 => "norm".into(),
        s if s > 2 * config.depth + 1 => "head".into(),
        s if s % 2 == 1 => format!("block.{}, attention", (s - 1) / 2),
        s => format!("block.{}, MLP", s / 2 - 1),
    }
}

/// One forward pass: the tape, the weights, and the parameters that replace some of them.
pub struct Pass<'a> {
    config: &'a Config,
    weights: &'a Weights,
    /// Parameters that are watched or have tangents, by position in the configuration.
    special: BTreeMap<usize, Value>,
    /// How matrix products are computed.
    products: Products,
    /// The tape.
    pub tape: Tape,
}

impl<'a> Pass<'a> {
    /// A pass with plain weights that records nothing.
    pub fn new(config: &'a Config, weights: &'a Weights, products: Products) -> Self {
        Self { config, weights, special: BTreeMap::new(), products, tape: Tape::new() }
    }

    /// Watches parameter `i`, given with its tangents, if any.
    pub fn watch(&mut self, i: usize, parameter: DualTensor) -> Value {
        let value = self.tape.watch(parameter);
        self.special.insert(i, value.clone());
        value
    }

    /// Gives parameter `i` tangents without watching it.
    pub fn perturb(&mut self, i: usize, parameter: DualTensor) {
        self.special.insert(i, Value::constant(parameter));
    }

    fn parameter(&self, name: &str) -> Option<Value> {
        let i = self.weights.index(name)?;
        Some(match self.special.get(&i) {
            Some(value) => value.clone(),
            None => Value::constant(DualTensor::constant(self.weights.tensor(i).clone())),
        })
    }

    fn required(&self, name: &str) -> Result<Value> {
        self.parameter(name)
            .ok_or_else(|| Error::shape("forward pass", format!("a tensor `{name}`"), "none"))
    }

    /// Runs stages `from..to` on `x`.
    pub fn run(&mut self, from: usize, to: usize, mut x: Value) -> Result<Value> {
        let depth = self.config.depth;
        for stage in from..to {
            self.tape.enter(stage, &x);
            x = self.stored(stage, x)?;
            x = match stage {
                0 => self.embed(x)?,
                s if s == 2 * depth + 1 => self.norm_and_pool(x)?,
                s if s == 2 * depth + 2 => self.head(x)?,
                s if s % 2 == 1 => self.attention((s - 1) / 2, x)?,
                s => self.mlp((s - 1) / 2, x)?,
            };
        }
        Ok(x)
    }

    /// A stage's input in the stage's storage type. In bf16, a GPU stores activations between
    /// embedding and head as bf16, since memory bandwidth dominates there. Elsewhere only operands
    /// of matrix products are rounded.
    fn stored(&mut self, stage: usize, x: Value) -> Result<Value> {
        let between = (1..2 * self.config.depth + 2).contains(&stage);
        let half = between && self.products == Products::Bf16 && x.tensor().on_gpu();
        let from = x.tensor().value().dtype();
        let to = match from {
            DType::F32 | DType::BF16 if half => DType::BF16,
            DType::BF16 => DType::F32,
            other => other,
        };
        if from == to { Ok(x) } else { self.tape.apply(Cast { from, to }, &[&x]) }
    }

    /// Project the patches, prepend tokens, add positions.
    fn embed(&mut self, pixels: Value) -> Result<Value> {
        let patches = self.tape.apply(Patches { size: self.config.patch_size }, &[&pixels])?;
        let weight = self.projection()?;
        let linear = Linear { products: self.products };
        let mut x = match self.parameter("patch_embed.proj.bias") {
            Some(bias) => self.tape.apply(linear, &[&patches, &weight, &bias])?,
            None => self.tape.apply(linear, &[&patches, &weight])?,
        };
        let positions = self.required("pos_embed")?;
        if !self.config.position_covers_prefix {
            x = self.tape.apply(Add, &[&x, &positions])?;
        }
        for name in ["reg_token", "dist_token", "cls_token"] {
            if let Some(token) = self.parameter(name) {
                x = self.tape.apply(Prepend, &[&token, &x])?;
            }
        }
        if self.config.position_covers_prefix {
            x = self.tape.apply(Add, &[&x, &positions])?;
        }
        if self.config.norm_pre { self.layer_norm("norm_pre", &x) } else { Ok(x) }
    }

    /// The patch projection (D, C, h, w) as a linear weight (D, C·h·w).
    fn projection(&mut self) -> Result<Value> {
        let weight = self.required("patch_embed.proj.weight")?;
        self.tape.apply(planish_kernels::Flatten, &[&weight])
    }

    /// x + LayerScale(attention(norm(x))).
    ///
    /// If only the first tokens are needed later, queries and everything after them are computed
    /// for those tokens only; keys and values use all tokens.
    fn attention(&mut self, block: usize, x: Value) -> Result<Value> {
        let attention = Attention { heads: self.config.heads, products: self.products };
        let h = self.layer_norm(&format!("blocks.{block}.norm1"), &x)?;
        let qkv = format!("blocks.{block}.attn.qkv");
        let (mixed, x) = match self.config.tokens_after(block) {
            count if count == self.config.tokens() => {
                let qkv = self.linear(&qkv, &h)?;
                (self.tape.apply(attention, &[&qkv])?, x)
            }
            count => {
                let first = FirstTokens { count };
                let asking = self.tape.apply(first, &[&h])?;
                let d = self.config.dim;
                let queries = self.rows_of_linear(&qkv, WeightRows { from: 0, to: d }, &asking)?;
                let others = WeightRows { from: d, to: 3 * d };
                let keys_and_values = self.rows_of_linear(&qkv, others, &h)?;
                let mixed = self.tape.apply(attention, &[&queries, &keys_and_values])?;
                (mixed, self.tape.apply(first, &[&x])?)
            }
        };
        let names = ["attn.proj", "ls1.gamma"].map(|name| format!("blocks.{block}.{name}"));
        self.residual(x, &names, &mixed)
    }

    /// x + LayerScale(mlp(norm(x))).
    fn mlp(&mut self, block: usize, x: Value) -> Result<Value> {
        let tanh = self.config.activation == Activation::GeluTanh;
        let h = self.layer_norm(&format!("blocks.{block}.norm2"), &x)?;
        let h = match self.apart(&format!("blocks.{block}.mlp.fc1"), &h)? {
            (h, Some(bias)) => self.tape.apply(BiasGelu { tanh }, &[&h, &bias])?,
            (h, None) => self.tape.apply(Gelu { tanh }, &[&h])?,
        };
        let names = ["mlp.fc2", "ls2.gamma"].map(|name| format!("blocks.{block}.{name}"));
        self.residual(x, &names, &h)
    }

    /// x + LayerScale(linear(h)).
    fn residual(&mut self, x: Value, [name, scale]: &[String; 2], h: &Value) -> Result<Value> {
        let branch = match self.parameter(scale) {
            Some(gamma) => {
                let branch = self.linear(name, h)?;
                self.tape.apply(LayerScale, &[&branch, &gamma])?
            }
            None => match self.apart(name, h)? {
                (y, Some(bias)) => return self.tape.apply(BiasResidual, &[&y, &bias, &x]),
                (branch, None) => branch,
            },
        };
        self.tape.apply(Add, &[&x, &branch])
    }

    fn norm_and_pool(&mut self, x: Value) -> Result<Value> {
        let skip = self.config.prefix_tokens();
        let x = match self.config.pooling {
            // The norm acts on each token alone, so only the picked tokens are needed.
            Pooling::Token if self.config.two_heads() => {
                self.tape.apply(FirstTokens { count: 2 }, &[&x])?
            }
            Pooling::Token => self.tape.apply(PickToken { index: 0 }, &[&x])?,
            Pooling::Mean if self.config.final_norm == FinalNorm::AfterPool => {
                self.tape.apply(MeanTokens { skip }, &[&x])?
            }
            Pooling::Mean => {
                let normed = self.layer_norm("norm", &x)?;
                return self.tape.apply(MeanTokens { skip }, &[&normed]);
            }
        };
        match self.config.final_norm {
            FinalNorm::BeforePool => self.layer_norm("norm", &x),
            FinalNorm::AfterPool => self.layer_norm("fc_norm", &x),
        }
    }

    /// The classifier. With two, one on each token, the mean of their logits.
    fn head(&mut self, x: Value) -> Result<Value> {
        if !self.config.two_heads() {
            return self.linear("head", &x);
        }
        let class = self.tape.apply(PickToken { index: 0 }, &[&x])?;
        let class = self.linear("head", &class)?;
        let distilled = self.tape.apply(PickToken { index: 1 }, &[&x])?;
        let distilled = self.linear("head_dist", &distilled)?;
        let sum = self.tape.apply(Add, &[&class, &distilled])?;
        self.tape.apply(Scale { factor: 0.5 }, &[&sum])
    }

    fn layer_norm(&mut self, name: &str, x: &Value) -> Result<Value> {
        let gamma = self.required(&format!("{name}.weight"))?;
        let beta = self.required(&format!("{name}.bias"))?;
        self.tape.apply(LayerNorm { eps: self.config.eps }, &[x, &gamma, &beta])
    }

    fn linear(&mut self, name: &str, x: &Value) -> Result<Value> {
        let weight = self.required(&format!("{name}.weight"))?;
        let linear = Linear { products: self.products };
        match self.parameter(&format!("{name}.bias")) {
            Some(bias) => self.tape.apply(linear, &[x, &weight, &bias]),
            None => self.tape.apply(linear, &[x, &weight]),
        }
    }

    /// A linear layer and its bias. If the bias is returned, the next operation must add it; a GPU
    /// does that in the same pass.
    fn apart(&mut self, name: &str, x: &Value) -> Result<(Value, Option<Value>)> {
        let bias = self.parameter(&format!("{name}.bias")).filter(|_| x.tensor().on_gpu());
        let Some(bias) = bias else { return Ok((self.linear(name, x)?, None)) };
        let weight = self.required(&format!("{name}.weight"))?;
        let linear = Linear { products: self.products };
        Ok((self.tape.apply(linear, &[x, &weight])?, Some(bias)))
    }

    /// A linear layer restricted to some of its outputs.
    fn rows_of_linear(&mut self, name: &str, rows: WeightRows, x: &Value) -> Result<Value> {
        let weight = self.required(&format!("{name}.weight"))?;
        let linear = Linear { products: self.products };
        let weight = self.tape.apply(rows, &[&weight])?;
        match self.parameter(&format!("{name}.bias")) {
            Some(bias) => {
                let bias = self.tape.apply(rows, &[&bias])?;
                self.tape.apply(linear, &[x, &weight, &bias])
            }
            None => self.tape.apply(linear, &[x, &weight]),
        }
    }
}
