//! The architecture of a Vision Transformer: everything that determines its tensors and arithmetic.

use serde::Serialize;

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

/// Architecture of a plain (pre-norm) Vision Transformer, Dosovitskiy et al., ICLR 2021.
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

    /// Elements per image at the head's input: D, or 2 D with two heads.
    pub fn features(&self) -> usize {
        self.dim.saturating_mul(if self.two_heads() { 2 } else { 1 })
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
    pub fn tokens_after(&self, block: usize) -> usize {
        match self.pooling {
            Pooling::Token if block + 1 == self.depth => 1 + usize::from(self.two_heads()),
            _ => self.tokens(),
        }
    }

    /// Elements per image at the input of a stage (see [`super::Layer`]).
    pub fn activation_len(&self, stage: usize) -> usize {
        match stage {
            0 => self.channels * self.image_size[0] * self.image_size[1],
            1 => self.tokens() * self.dim,
            s if s == 2 * self.depth + 2 => self.features(),
            // The block's own attention branch has already dropped tokens.
            s if s % 2 == 0 => self.tokens_after(s / 2 - 1) * self.dim,
            s => self.tokens_after((s - 3) / 2) * self.dim,
        }
    }

    /// All parameter tensors: canonical (timm) name and shape, in timm's order.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let d = self.dim;
        let [ph, pw] = self.patch_size;
        let [gh, gw] = self.grid();
        let mut out: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: String, shape: &[usize]| out.push((name, shape.to_vec()));
        if self.class_token {
            add("cls_token".into(), &[1, 1, d]);
        }
        if self.registers > 0 {
            add("reg_token".into(), &[1, self.registers, d]);
        }
        let rows = gh * gw + if self.position_covers_prefix { self.prefix_tokens() } else { 0 };
        add("pos_embed".into(), &[1, rows, d]);
        if self.distillation != Distillation::None {
            add("dist_token".into(), &[1, 1, d]);
        }
        add("patch_embed.proj.weight".into(), &[d, self.channels, ph, pw]);
        if self.patch_bias {
            add("patch_embed.proj.bias".into(), &[d]);
        }
        if self.norm_pre {
            add("norm_pre.weight".into(), &[d]);
            add("norm_pre.bias".into(), &[d]);
        }
        for i in 0..self.depth {
            let mut block = |name: &str, shape: &[usize]| add(format!("blocks.{i}.{name}"), shape);
            block("norm1.weight", &[d]);
            block("norm1.bias", &[d]);
            block("attn.qkv.weight", &[3 * d, d]);
            if self.qkv_bias {
                block("attn.qkv.bias", &[3 * d]);
            }
            block("attn.proj.weight", &[d, d]);
            block("attn.proj.bias", &[d]);
            if self.layer_scale {
                block("ls1.gamma", &[d]);
            }
            block("norm2.weight", &[d]);
            block("norm2.bias", &[d]);
            block("mlp.fc1.weight", &[self.mlp_dim, d]);
            block("mlp.fc1.bias", &[self.mlp_dim]);
            block("mlp.fc2.weight", &[d, self.mlp_dim]);
            block("mlp.fc2.bias", &[d]);
            if self.layer_scale {
                block("ls2.gamma", &[d]);
            }
        }
        let norm = match self.final_norm {
            FinalNorm::BeforePool => "norm",
            FinalNorm::AfterPool => "fc_norm",
        };
        add(format!("{norm}.weight"), &[d]);
        add(format!("{norm}.bias"), &[d]);
        add("head.weight".into(), &[self.classes, d]);
        add("head.bias".into(), &[self.classes]);
        if self.two_heads() {
            add("head_dist.weight".into(), &[self.classes, d]);
            add("head_dist.bias".into(), &[self.classes]);
        }
        out
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}
