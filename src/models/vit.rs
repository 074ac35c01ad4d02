//! Vision Transformers with pre-norm blocks, Dosovitskiy et al., ICLR 2021.
//!
//! Stages: the embedding, (B, C, H, W) → (B, T, D); for each block its attention branch and its MLP
//! branch, (B, T, D) → (B, T, D); the final norm with the pooling, → (B, D), or (B, 2, D) for two
//! heads; and the head, → (B, classes).
//!
//! If the class token is picked, the last block's attention branch outputs only that token, (B, T,
//! D) → (B, 1, D), or (B, 2, D) with a distillation token, because no other token is used.

use super::{Branch, Builder, Error, Init, Linear, Network, Node, Run, StageBuilder};
use planish_kernels::{
    Add, Attention, FirstTokens, MeanTokens, Patches, PickToken, Prepend, Result, Scale, WeightRows,
};
use serde::Serialize;

/// Standard deviation of timm's initial linear weights and position embedding.
const STD: f64 = 0.02;
/// Standard deviation of timm's initial class and register tokens.
const TOKEN_STD: f64 = 1e-6;
/// LayerScale's initial value, the most common one in timm's architectures.
const LAYER_SCALE: f32 = 1e-5;

const ATTENTION: Branch = Branch { name: "attn", title: "attention" };
const MLP: Branch = Branch { name: "mlp", title: "MLP" };

/// How the token sequence becomes one feature vector per image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The class token alone.
    Token,
    /// The mean over patch tokens; class and register tokens are left out.
    Mean,
}

/// Position of the last layer norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalNorm {
    /// On all tokens, before pooling: tensors `norm.*`.
    BeforePool,
    /// On the pooled feature: tensors `fc_norm.*`.
    AfterPool,
}

/// The nonlinearity of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x Φ(x) with the exact error function, used everywhere except in Flax.
    Gelu,
    /// The tanh approximation of `jax.nn.gelu`.
    GeluTanh,
}

/// Parts of DeiT's distillation in a model (Touvron et al., ICML 2021, §4): a second learnt token
/// after the class token, and its own classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distillation {
    /// No distillation.
    None,
    /// Only the token, as in transformers' `DeiTForImageClassification`.
    Token,
    /// Token and classifier `head_dist`; the logits are the mean of both classifiers.
    TokenAndHead,
}

/// Configuration of a Vision Transformer: everything that determines its tensors and arithmetic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Height and width of the input in pixels.
    pub image_size: [usize; 2],
    /// Height and width of a patch in pixels.
    pub patch_size: [usize; 2],
    /// Input channels: 1 (grey) or 3 (RGB), or any number for prepared tensors.
    pub channels: usize,
    /// Width D of the token stream.
    pub dim: usize,
    /// Number of blocks L.
    pub depth: usize,
    /// Attention heads; D is a multiple of it.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp_dim: usize,
    /// Number of classes.
    pub classes: usize,
    /// Whether a class token is prepended.
    pub class_token: bool,
    /// Whether a distillation token follows the class token, and whether it is classified.
    pub distillation: Distillation,
    /// Number of register tokens, between class token and patches.
    pub registers: usize,
    /// Whether the position embedding has rows for the tokens before the patches (timm: `not
    /// no_embed_class`).
    pub position_covers_prefix: bool,
    /// Whether the patch projection has a bias.
    pub patch_bias: bool,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Whether each residual branch is scaled per channel (LayerScale, Touvron et al. 2021).
    pub layer_scale: bool,
    /// Whether a layer norm follows the embedding (`norm_pre`).
    pub norm_pre: bool,
    /// Position of the last layer norm.
    pub final_norm: FinalNorm,
    /// How tokens become one feature vector.
    pub pooling: Pooling,
    /// The MLP's nonlinearity.
    pub activation: Activation,
    /// ε of every layer norm: timm and torchvision 1e-6, transformers 1e-12.
    pub eps: f64,
}

impl Config {
    /// Number of class, distillation and register tokens, which precede the patches.
    pub fn prefix_tokens(&self) -> usize {
        let distillation = usize::from(self.distillation != Distillation::None);
        usize::from(self.class_token) + distillation + self.registers
    }

    /// Whether the distillation token has its own classifier.
    pub fn two_heads(&self) -> bool {
        self.distillation == Distillation::TokenAndHead
    }

    /// Number of patches, vertically and horizontally.
    pub fn grid(&self) -> [usize; 2] {
        [self.image_size[0] / self.patch_size[0], self.image_size[1] / self.patch_size[1]]
    }

    /// Length T of the token sequence.
    pub fn tokens(&self) -> usize {
        self.prefix_tokens() + self.grid()[0] * self.grid()[1]
    }

    /// Number of tokens after a block: all, or after the last block only those that are picked by
    /// position.
    fn tokens_after(&self, block: usize) -> usize {
        match self.pooling {
            Pooling::Token if block + 1 == self.depth => 1 + usize::from(self.two_heads()),
            _ => self.tokens(),
        }
    }

    /// The network.
    ///
    /// Initial values are timm's (`init_weights_vit_timm`): N(0, 0.02²) for linear weights (including
    /// the heads), the position embedding and a distillation token; N(0, 10⁻¹²) for class and register
    /// tokens; PyTorch's default U(±1/√fan-in) for the patch projection; LayerScale 10⁻⁵; norms 1;
    /// other biases 0. timm truncates the normals at ±2, which is 100 standard deviations and never
    /// reached.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn network(&self) -> std::result::Result<Network, Error> {
        let [height, width] = self.image_size;
        let input = [self.channels, height, width];
        Network::new(super::Config::Vit(self.clone()), self.declare(), input, self.classes)
    }

    /// Declares parameters and stages.
    pub fn declare(&self) -> Builder {
        let mut b = Builder::new();
        b.layer("embed");
        b.stage(None, |s| self.embed(s));
        for block in 0..self.depth {
            b.layer(format!("block.{block}"));
            b.stage(Some(ATTENTION), |s| self.attention(s, block));
            b.stage(Some(MLP), |s| self.mlp(s, block));
        }
        b.layer("norm");
        b.stage(None, |s| self.norm_and_pool(s));
        b.layer("head");
        b.stage(None, |s| self.head(s));
        b
    }

    /// Projects the patches, prepends tokens, adds positions.
    fn embed(&self, s: &mut StageBuilder) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, size) = (self.dim, self.patch_size);
        let (tokens, stds) = (Init::Normal(TOKEN_STD), Init::Normal(STD));
        let class = self.class_token.then(|| s.param("cls_token", &[1, 1, d], tokens));
        let count = self.registers;
        let registers = (count > 0).then(|| s.param("reg_token", &[1, count, d], tokens));
        let patches = self.grid().iter().product::<usize>();
        let prefix = if self.position_covers_prefix { self.prefix_tokens() } else { 0 };
        let positions = s.param("pos_embed", &[1, patches + prefix, d], stds);
        let distilled = self.distillation != Distillation::None;
        let distilled = distilled.then(|| s.param("dist_token", &[1, 1, d], stds));
        let fan_in = self.channels * size[0] * size[1];
        let uniform = Init::Uniform(1.0 / (fan_in as f64).sqrt());
        let shape = [d, self.channels, size[0], size[1]];
        let bias = self.patch_bias.then_some(uniform);
        let proj = s.patch_projection("patch_embed.proj", shape, uniform, bias);
        let norm = self.norm_pre.then(|| s.layer_norm("norm_pre", d, self.eps));
        let covers_prefix = self.position_covers_prefix;
        move |run, pixels| {
            let patches = run.op(Patches { size }, &[&pixels])?;
            let mut x = run.patch_projection(proj, &patches)?;
            let positions = run.param(positions)?;
            if !covers_prefix {
                x = run.op(Add, &[&x, &positions])?;
            }
            for token in [registers, distilled, class].into_iter().flatten() {
                let token = run.param(token)?;
                x = run.op(Prepend, &[&token, &x])?;
            }
            if covers_prefix {
                x = run.op(Add, &[&x, &positions])?;
            }
            match norm {
                Some(norm) => run.layer_norm(norm, &x),
                None => Ok(x),
            }
        }
    }

    /// x + LayerScale(attention(norm(x))).
    ///
    /// If only the first tokens are needed later, queries and everything after them are computed
    /// for those tokens only; keys and values use all tokens.
    fn attention(
        &self,
        s: &mut StageBuilder,
        block: usize,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, heads, name) = (self.dim, self.heads, format!("blocks.{block}"));
        let norm = s.layer_norm(&format!("{name}.norm1"), d, self.eps);
        let normal = Init::Normal(STD);
        let qkv = s.linear(&format!("{name}.attn.qkv"), [d, 3 * d], self.qkv_bias, normal);
        let proj = s.linear(&format!("{name}.attn.proj"), [d, d], true, normal);
        let scale = self.scale(s, &format!("{name}.ls1.gamma"));
        let count = self.tokens_after(block);
        let first = (count < self.tokens()).then_some(FirstTokens { count });
        move |run, x| {
            let attention = Attention { heads, products: run.products() };
            let h = run.layer_norm(norm, &x)?;
            let Some(first) = first else {
                let qkv = run.linear(qkv, &h)?;
                let mixed = run.op(attention, &[&qkv])?;
                return run.residual(&x, proj, scale, &mixed);
            };
            let picked = run.op(first, &[&h])?;
            let queries = linear_rows(run, qkv, WeightRows { from: 0, to: d }, &picked)?;
            let others = linear_rows(run, qkv, WeightRows { from: d, to: 3 * d }, &h)?;
            let mixed = run.op(attention, &[&queries, &others])?;
            let x = run.op(first, &[&x])?;
            run.residual(&x, proj, scale, &mixed)
        }
    }

    /// x + LayerScale(mlp(norm(x))).
    fn mlp(
        &self,
        s: &mut StageBuilder,
        block: usize,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, hidden, name) = (self.dim, self.mlp_dim, format!("blocks.{block}"));
        let norm = s.layer_norm(&format!("{name}.norm2"), d, self.eps);
        let fc1 = s.linear(&format!("{name}.mlp.fc1"), [d, hidden], true, Init::Normal(STD));
        let fc2 = s.linear(&format!("{name}.mlp.fc2"), [hidden, d], true, Init::Normal(STD));
        let scale = self.scale(s, &format!("{name}.ls2.gamma"));
        let tanh = self.activation == Activation::GeluTanh;
        move |run, x| {
            let h = run.layer_norm(norm, &x)?;
            let h = run.linear_gelu(fc1, tanh, &h)?;
            run.residual(&x, fc2, scale, &h)
        }
    }

    fn scale(&self, s: &mut StageBuilder, name: &str) -> Option<super::ParamId> {
        self.layer_scale.then(|| s.param(name, &[self.dim], Init::Constant(LAYER_SCALE)))
    }

    fn norm_and_pool(
        &self,
        s: &mut StageBuilder,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let name = match self.final_norm {
            FinalNorm::BeforePool => "norm",
            FinalNorm::AfterPool => "fc_norm",
        };
        let norm = s.layer_norm(name, self.dim, self.eps);
        let (pooling, final_norm) = (self.pooling, self.final_norm);
        let (two_heads, skip) = (self.two_heads(), self.prefix_tokens());
        move |run, x| {
            let pooled = match pooling {
                // The norm acts on each token alone, so only the picked tokens are needed.
                Pooling::Token if two_heads => run.op(FirstTokens { count: 2 }, &[&x])?,
                Pooling::Token => run.op(PickToken { index: 0 }, &[&x])?,
                Pooling::Mean if final_norm == FinalNorm::AfterPool => {
                    run.op(MeanTokens { skip }, &[&x])?
                }
                Pooling::Mean => {
                    let normed = run.layer_norm(norm, &x)?;
                    return run.op(MeanTokens { skip }, &[&normed]);
                }
            };
            run.layer_norm(norm, &pooled)
        }
    }

    /// The classifier. With two, one on each token, the mean of their logits.
    fn head(&self, s: &mut StageBuilder) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (sizes, normal) = ([self.dim, self.classes], Init::Normal(STD));
        let head = s.linear("head", sizes, true, normal);
        let second = self.two_heads().then(|| s.linear("head_dist", sizes, true, normal));
        move |run, x| {
            let Some(second) = second else { return run.linear(head, &x) };
            let class = run.op(PickToken { index: 0 }, &[&x])?;
            let class = run.linear(head, &class)?;
            let distilled = run.op(PickToken { index: 1 }, &[&x])?;
            let distilled = run.linear(second, &distilled)?;
            let sum = run.op(Add, &[&class, &distilled])?;
            run.op(Scale { factor: 0.5 }, &[&sum])
        }
    }
}

/// A linear layer restricted to some of its outputs.
fn linear_rows(run: &mut dyn Run, linear: Linear, rows: WeightRows, x: &Node) -> Result<Node> {
    let (op, weight) = (run.linear_op(), run.param(linear.weight)?);
    let weight = run.op(rows, &[&weight])?;
    match linear.bias {
        Some(bias) => {
            let bias = run.param(bias)?;
            let bias = run.op(rows, &[&bias])?;
            run.op(op, &[x, &weight, &bias])
        }
        None => run.op(op, &[x, &weight]),
    }
}
