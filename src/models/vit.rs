//! Vision Transformers, Dosovitskiy et al., ICLR 2021, and their common variants.
//!
//! Stages: the embedding, (B, C, H, W) → (B, T, D); for each block its attention branch and its MLP
//! branch, (B, T, D) → (B, T, D); the final norm with the pooling, → (B, D), or (B, 2, D) for two
//! heads; and the head, → (B, classes).
//!
//! If the class token is picked, the last block's attention branch outputs only that token, (B, T,
//! D) → (B, 1, D), or (B, 2, D) with a distillation token, because no other token is used.

use super::position::{self, PositionResize};
use super::{Branch, Builder, Error, Init, LayerNorm, Linear, Network, Node, Run, StageBuilder};
use planish_kernels::{
    Add, Attention, Concat, FirstTokens, GeluForm, MeanTokens, MixTokens, Patches, PickToken,
    Prepend, Regroup, Result, Scale, SkipTokens, SwiGlu, WeightRows,
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
    /// One learnt query that attends to the patch tokens, then an MLP (timm: `map`).
    Attention,
    /// The class token and after it the mean over patch tokens, 2·D numbers, as in transformers'
    /// DINOv2.
    TokenAndMean,
}

/// Position of the last layer norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalNorm {
    /// On all tokens, before pooling: tensors `norm.*`.
    BeforePool,
    /// On the pooled feature: tensors `fc_norm.*`.
    AfterPool,
    /// There is none.
    None,
}

/// The nonlinearity of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x Φ(x) with the exact error function, used everywhere except in Flax.
    Gelu,
    /// The tanh approximation of `jax.nn.gelu`.
    GeluTanh,
    /// x σ(1.702 x), as in OpenAI's CLIP.
    QuickGelu,
    /// SiLU(a) b of two linear maps a and b of the input. Their weights are the halves of `mlp.fc1`,
    /// in this order: `SwiGLUPacked` of timm, as in the giant DINOv2.
    SwiGlu,
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
    /// Whether register tokens have no position although the other prefix tokens have one, as in
    /// transformers' DINOv2.
    pub registers_without_position: bool,
    /// The stored position embedding, if the network resizes it in every pass.
    pub position_resize: Option<PositionResize>,
    /// Whether the patch projection has a bias.
    pub patch_bias: bool,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Whether each residual branch is scaled per channel (LayerScale, Touvron et al. 2021).
    pub layer_scale: bool,
    /// Whether the layer norms of a block follow attention and MLP, inside the residual branch (timm:
    /// `ResPostBlock`), instead of preceding them.
    pub post_norm: bool,
    /// Whether queries and keys of each head are normalised by a layer norm.
    pub qk_norm: bool,
    /// Whether a layer norm follows the embedding (`norm_pre`).
    pub norm_pre: bool,
    /// Position of the last layer norm.
    pub final_norm: FinalNorm,
    /// How tokens become one feature vector.
    pub pooling: Pooling,
    /// Whether class and register tokens take part in a mean or an attention pooling.
    pub pool_prefix: bool,
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

    /// Number of prefix tokens that have a row in the position embedding.
    pub fn prefix_positions(&self) -> usize {
        match (self.position_covers_prefix, self.registers_without_position) {
            (false, _) => 0,
            (true, false) => self.prefix_tokens(),
            (true, true) => self.prefix_tokens() - self.registers,
        }
    }

    /// Index of the class token. Registers without position come before it: only attention sees the
    /// order of tokens, and does not depend on it.
    fn class_index(&self) -> usize {
        if self.registers_without_position { self.registers } else { 0 }
    }

    /// Width of the features that the head classifies.
    pub fn features(&self) -> usize {
        match self.pooling {
            Pooling::Token | Pooling::Mean | Pooling::Attention => self.dim,
            Pooling::TokenAndMean => 2 * self.dim,
        }
    }

    /// Rows and columns of the stored position embedding.
    pub fn stored_grid(&self) -> [usize; 2] {
        self.position_resize.map_or(self.grid(), |resize| resize.grid)
    }

    /// Length T of the token sequence.
    pub fn tokens(&self) -> usize {
        self.prefix_tokens() + self.grid()[0] * self.grid()[1]
    }

    /// Number of tokens after a block: all, or after the last block only those that are picked by
    /// position.
    fn tokens_after(&self, block: usize) -> usize {
        match self.pooling {
            Pooling::Token if block + 1 == self.depth && self.class_index() == 0 => {
                1 + usize::from(self.two_heads())
            }
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
        match (self.pooling, self.final_norm) {
            (Pooling::Attention, place) => {
                if place == FinalNorm::BeforePool {
                    b.layer("norm");
                    b.stage(None, |s| self.norm_alone(s, "norm"));
                }
                b.layer("pool");
                b.stage(None, |s| self.attention_pool(s));
                if place == FinalNorm::AfterPool {
                    b.layer("norm");
                    b.stage(None, |s| self.norm_alone(s, "fc_norm"));
                }
            }
            (_, place) => {
                b.layer(if place == FinalNorm::None { "pool" } else { "norm" });
                b.stage(None, |s| self.norm_and_pool(s));
            }
        }
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
        let (stored, grid) = (self.stored_grid(), self.grid());
        let prefix = self.prefix_positions();
        let rows = stored.iter().product::<usize>() + prefix;
        let positions = s.param("pos_embed", &[1, rows, d], stds);
        let resize = self.position_resize.filter(|_| stored != grid).map(|how| {
            let matrix = position::matrix(prefix, stored, grid, how.antialias);
            MixTokens::new(prefix + grid.iter().product::<usize>(), matrix)
        });
        let distilled = self.distillation != Distillation::None;
        let distilled = distilled.then(|| s.param("dist_token", &[1, 1, d], stds));
        let fan_in = self.channels * size[0] * size[1];
        let uniform = Init::Uniform(1.0 / (fan_in as f64).sqrt());
        let shape = [d, self.channels, size[0], size[1]];
        let bias = self.patch_bias.then_some(uniform);
        let proj = s.patch_projection("patch_embed.proj", shape, uniform, bias);
        let norm = self.norm_pre.then(|| s.layer_norm("norm_pre", d, self.eps));
        // Prefix tokens without and with a position, each from the last to the first.
        let (bare, placed) = match (self.position_covers_prefix, self.registers_without_position) {
            (false, _) => ([registers, distilled, class], [None; 3]),
            (true, false) => ([None; 3], [registers, distilled, class]),
            (true, true) => ([registers, None, None], [None, distilled, class]),
        };
        move |run, pixels| {
            let patches = run.op(Patches { size }, &[&pixels])?;
            let mut x = run.patch_projection(proj, &patches)?;
            for token in placed.into_iter().flatten() {
                let token = run.param(token)?;
                x = run.op(Prepend, &[&token, &x])?;
            }
            let mut positions = run.param(positions)?;
            if let Some(resize) = &resize {
                positions = run.op(resize.clone(), &[&positions])?;
            }
            x = run.op(Add, &[&x, &positions])?;
            for token in bare.into_iter().flatten() {
                let token = run.param(token)?;
                x = run.op(Prepend, &[&token, &x])?;
            }
            match norm {
                Some(norm) => run.layer_norm(norm, &x),
                None => Ok(x),
            }
        }
    }

    /// x + LayerScale(attention(norm(x))), or x + norm(attention(x)).
    ///
    /// If only the first tokens are needed later, queries and everything after them are computed
    /// for those tokens only; keys and values use all tokens.
    fn attention(
        &self,
        s: &mut StageBuilder,
        block: usize,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, heads, name) = (self.dim, self.heads, format!("blocks.{block}"));
        let norm = BlockNorm { name: format!("{name}.norm1"), after: self.post_norm };
        let before = norm.before(s, self);
        let normal = Init::Normal(STD);
        let qkv = s.linear(&format!("{name}.attn.qkv"), [d, 3 * d], self.qkv_bias, normal);
        let per_head = self.qk_norm.then(|| {
            let mut norm = |which: &str| {
                s.layer_norm(&format!("{name}.attn.{which}_norm"), d / heads.max(1), self.eps)
            };
            [norm("q"), norm("k")]
        });
        let proj = s.linear(&format!("{name}.attn.proj"), [d, d], true, normal);
        let scale = self.scale(s, &format!("{name}.ls1.gamma"));
        let end = BranchEnd { linear: proj, scale, norm: norm.after(s, self) };
        let count = self.tokens_after(block);
        let first = (count < self.tokens()).then_some(FirstTokens { count });
        move |run, x| {
            let attention = Attention { heads, products: run.products() };
            let h = normed(run, before, &x)?;
            if first.is_none() && per_head.is_none() {
                let qkv = run.linear(qkv, &h)?;
                let mixed = run.op(attention, &[&qkv])?;
                return end.residual(run, &x, &mixed);
            }
            let asking = picked(run, first, &h)?;
            let mut queries = linear_rows(run, qkv, WeightRows { from: 0, to: d }, &asking)?;
            let others = match per_head {
                None => linear_rows(run, qkv, WeightRows { from: d, to: 3 * d }, &h)?,
                Some([of_queries, of_keys]) => {
                    queries = norm_of_heads(run, of_queries, [d, heads], &queries)?;
                    let keys = linear_rows(run, qkv, WeightRows { from: d, to: 2 * d }, &h)?;
                    let keys = norm_of_heads(run, of_keys, [d, heads], &keys)?;
                    let values = linear_rows(run, qkv, WeightRows { from: 2 * d, to: 3 * d }, &h)?;
                    run.op(Concat, &[&keys, &values])?
                }
            };
            let mixed = run.op(attention, &[&queries, &others])?;
            let x = picked(run, first, &x)?;
            end.residual(run, &x, &mixed)
        }
    }

    /// x + LayerScale(mlp(norm(x))), or x + norm(mlp(x)).
    fn mlp(
        &self,
        s: &mut StageBuilder,
        block: usize,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, hidden, name) = (self.dim, self.mlp_dim, format!("blocks.{block}"));
        let norm = BlockNorm { name: format!("{name}.norm2"), after: self.post_norm };
        let before = norm.before(s, self);
        let form = self.gelu_form();
        let inner = if form.is_some() { hidden } else { 2 * hidden };
        let fc1 = s.linear(&format!("{name}.mlp.fc1"), [d, inner], true, Init::Normal(STD));
        let fc2 = s.linear(&format!("{name}.mlp.fc2"), [hidden, d], true, Init::Normal(STD));
        let scale = self.scale(s, &format!("{name}.ls2.gamma"));
        let end = BranchEnd { linear: fc2, scale, norm: norm.after(s, self) };
        move |run, x| {
            let h = normed(run, before, &x)?;
            let h = match form {
                Some(form) => run.linear_gelu(fc1, form, &h)?,
                None => {
                    let gate = linear_rows(run, fc1, WeightRows { from: 0, to: hidden }, &h)?;
                    let rest = WeightRows { from: hidden, to: 2 * hidden };
                    let up = linear_rows(run, fc1, rest, &h)?;
                    run.op(SwiGlu, &[&gate, &up])?
                }
            };
            end.residual(run, &x, &h)
        }
    }

    /// The form of the GELU, unless the MLP is gated.
    fn gelu_form(&self) -> Option<GeluForm> {
        match self.activation {
            Activation::Gelu => Some(GeluForm::Exact),
            Activation::GeluTanh => Some(GeluForm::Tanh),
            Activation::QuickGelu => Some(GeluForm::Quick),
            Activation::SwiGlu => None,
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
            FinalNorm::BeforePool => Some("norm"),
            FinalNorm::AfterPool => Some("fc_norm"),
            FinalNorm::None => None,
        };
        let norm = name.map(|name| s.layer_norm(name, self.dim, self.eps));
        // A norm acts on each token alone, so it may follow the picking of a token.
        let picks = self.pooling == Pooling::Token;
        let after = picks || self.final_norm == FinalNorm::AfterPool;
        let (before, after) = if after { (None, norm) } else { (norm, None) };
        let (pooling, two_heads) = (self.pooling, self.two_heads());
        let (index, skip) = (self.class_index(), self.unpooled());
        move |run, x| {
            let x = normed(run, before, &x)?;
            let pooled = match pooling {
                Pooling::Token if two_heads => run.op(FirstTokens { count: 2 }, &[&x])?,
                Pooling::Token => run.op(PickToken { index }, &[&x])?,
                Pooling::Mean | Pooling::Attention => run.op(MeanTokens { skip }, &[&x])?,
                Pooling::TokenAndMean => {
                    let token = run.op(PickToken { index }, &[&x])?;
                    let mean = run.op(MeanTokens { skip }, &[&x])?;
                    run.op(Concat, &[&token, &mean])?
                }
            };
            normed(run, after, &pooled)
        }
    }

    /// Prefix tokens that take no part in the pooling.
    fn unpooled(&self) -> usize {
        if self.pool_prefix { 0 } else { self.prefix_tokens() }
    }

    fn norm_alone(
        &self,
        s: &mut StageBuilder,
        name: &str,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let norm = s.layer_norm(name, self.dim, self.eps);
        move |run, x| run.layer_norm(norm, &x)
    }

    /// y + mlp(norm(y)), where y is the attention of a learnt query to the tokens. (B, T, D) → (B, D).
    fn attention_pool(
        &self,
        s: &mut StageBuilder,
    ) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (d, heads, hidden, normal) = (self.dim, self.heads, self.mlp_dim, Init::Normal(STD));
        let std = 1.0 / (d as f64).sqrt();
        let latent = s.param("attn_pool.latent", &[1, 1, d], Init::Normal(std));
        let query = s.linear("attn_pool.q", [d, d], true, normal);
        let keys_and_values = s.linear("attn_pool.kv", [d, 2 * d], true, normal);
        let proj = s.linear("attn_pool.proj", [d, d], true, normal);
        let norm = s.layer_norm("attn_pool.norm", d, self.eps);
        let fc1 = s.linear("attn_pool.mlp.fc1", [d, hidden], true, normal);
        let fc2 = s.linear("attn_pool.mlp.fc2", [hidden, d], true, normal);
        let (form, skip) = (self.gelu_form().unwrap_or(GeluForm::Exact), self.unpooled());
        move |run, x| {
            let attention = Attention { heads, products: run.products() };
            let x = if skip > 0 { run.op(SkipTokens { count: skip }, &[&x])? } else { x };
            let latent = run.param(latent)?;
            let query = run.linear(query, &latent)?;
            // The same query for every image: a sum with zeros of that many images.
            let first = run.op(FirstTokens { count: 1 }, &[&x])?;
            let zeros = run.op(Scale { factor: 0.0 }, &[&first])?;
            let queries = run.op(Add, &[&zeros, &query])?;
            let others = run.linear(keys_and_values, &x)?;
            let mixed = run.op(attention, &[&queries, &others])?;
            let y = run.linear(proj, &mixed)?;
            let h = run.layer_norm(norm, &y)?;
            let h = run.linear_gelu(fc1, form, &h)?;
            let y = run.residual(&y, fc2, None, &h)?;
            run.op(PickToken { index: 0 }, &[&y])
        }
    }

    /// The classifier. With two, one on each token, the mean of their logits.
    fn head(&self, s: &mut StageBuilder) -> impl Fn(&mut dyn Run, Node) -> Result<Node> + use<> {
        let (sizes, normal) = ([self.features(), self.classes], Init::Normal(STD));
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

/// The layer norm of a branch, in its place among the branch's parameters.
struct BlockNorm {
    name: String,
    after: bool,
}

impl BlockNorm {
    /// The norm of the branch's input.
    fn before(&self, s: &mut StageBuilder, config: &Config) -> Option<LayerNorm> {
        (!self.after).then(|| s.layer_norm(&self.name, config.dim, config.eps))
    }

    /// The norm of the branch's output.
    fn after(&self, s: &mut StageBuilder, config: &Config) -> Option<LayerNorm> {
        self.after.then(|| s.layer_norm(&self.name, config.dim, config.eps))
    }
}

/// The end of a branch: its last linear layer, LayerScale or a norm, and the residual sum.
#[derive(Clone, Copy)]
struct BranchEnd {
    linear: Linear,
    scale: Option<super::ParamId>,
    norm: Option<LayerNorm>,
}

impl BranchEnd {
    fn residual(self, run: &mut dyn Run, x: &Node, h: &Node) -> Result<Node> {
        let Some(norm) = self.norm else { return run.residual(x, self.linear, self.scale, h) };
        let branch = run.linear(self.linear, h)?;
        let branch = run.layer_norm(norm, &branch)?;
        run.op(Add, &[x, &branch])
    }
}

/// The first tokens of x, or all.
fn picked(run: &mut dyn Run, first: Option<FirstTokens>, x: &Node) -> Result<Node> {
    match first {
        Some(first) => run.op(first, &[x]),
        None => Ok(x.clone()),
    }
}

/// The norm of x, if there is one.
fn normed(run: &mut dyn Run, norm: Option<LayerNorm>, x: &Node) -> Result<Node> {
    match norm {
        Some(norm) => run.layer_norm(norm, x),
        None => Ok(x.clone()),
    }
}

/// The layer norm of each head of x: (B, T, D).
fn norm_of_heads(
    run: &mut dyn Run,
    norm: LayerNorm,
    [d, heads]: [usize; 2],
    x: &Node,
) -> Result<Node> {
    let each = run.op(Regroup { columns: d / heads }, &[x])?;
    let each = run.layer_norm(norm, &each)?;
    run.op(Regroup { columns: d }, &[&each])
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
