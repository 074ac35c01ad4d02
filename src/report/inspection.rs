//! The report of `inspect`.

use crate::checkpoint::CheckpointInfo;
use crate::checkpoint::Provenance;
use crate::models::vit::{Activation, Distillation, FinalNorm, Pooling};
use crate::models::{Config, convnext, mlp_mixer, vit};
use crate::run::RunInfo;
use serde::{Deserialize, Serialize};

/// Schema of [`Inspection`].
pub const INSPECTION: &str = "planish/inspection/1";

/// Description of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// [`INSPECTION`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: RunInfo,
    /// The file.
    pub checkpoint: CheckpointInfo,
    /// The configuration file that names the architecture, if any.
    #[serde(default)]
    pub architecture_from: Option<String>,
    /// How the layout was recognised.
    pub recognised: String,
    /// Stored types and the number of tensors of each.
    pub dtype: String,
    /// The model.
    pub config: ModelInfo,
    /// Settings that were assumed, because tensors, configuration and options do not determine
    /// them.
    pub assumed: Vec<String>,
    /// Names of the classes, by index.
    pub class_names: Option<Vec<String>>,
    /// Layers, from input to output.
    pub layers: Vec<LayerInfo>,
    /// The latest step of its history, if planish made it.
    pub provenance: Option<Provenance>,
    /// All steps of its history, oldest first.
    #[serde(default)]
    pub history: Vec<Provenance>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Its name.
    pub name: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of parameters.
    pub parameters: usize,
    /// First and last stage of the forward pass that use it.
    pub stages: [usize; 2],
    /// Euclidean norm of its weights.
    pub weight_norm: f64,
}

/// Hyperparameters of a model; see [`Config`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModelInfo {
    /// A Vision Transformer.
    Vit(VitInfo),
    /// An MLP-Mixer.
    Mixer(MixerInfo),
    /// A ConvNeXt.
    ConvNext(ConvNextInfo),
}

/// Hyperparameters of a ConvNeXt; see [`convnext::Config`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvNextInfo {
    /// Height and width of the input in pixels.
    pub image_size: [usize; 2],
    /// Side of the stem's patches in pixels.
    pub stem_patch_size: usize,
    /// Input channels.
    pub channels: usize,
    /// Number of blocks of each stage.
    pub depths: Vec<usize>,
    /// Width of each stage.
    pub dims: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
    /// Whether branches are scaled per channel (V1).
    pub layer_scale: bool,
    /// Whether MLPs have global response normalisation (V2).
    pub grn: bool,
    /// ε of the norms below the last, and of the last.
    pub eps: [f64; 2],
}

/// Hyperparameters of an MLP-Mixer; see [`mlp_mixer::Config`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixerInfo {
    /// Height and width of the input in pixels.
    pub image_size: [usize; 2],
    /// Height and width of a patch in pixels.
    pub patch_size: [usize; 2],
    /// Input channels.
    pub channels: usize,
    /// Width of the token stream.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Hidden width of the MLP over tokens.
    pub token_mlp_dim: usize,
    /// Hidden width of the MLP over channels.
    pub channel_mlp_dim: usize,
    /// Number of classes.
    pub classes: usize,
    /// Length of the token sequence.
    pub tokens: usize,
    /// ε of every layer norm.
    pub eps: f64,
}

/// Hyperparameters of a Vision Transformer; see [`vit::Config`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VitInfo {
    /// Height and width of the input in pixels.
    pub image_size: [usize; 2],
    /// Height and width of a patch in pixels.
    pub patch_size: [usize; 2],
    /// Input channels.
    pub channels: usize,
    /// Width of the token stream.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp_dim: usize,
    /// Number of classes.
    pub classes: usize,
    /// Length of the token sequence.
    pub tokens: usize,
    /// Whether there is a class token.
    pub class_token: bool,
    /// Distillation parts present: `none`, `token`, or `token and head`.
    pub distillation: String,
    /// Number of register tokens.
    pub registers: usize,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Whether residual branches are scaled per channel.
    pub layer_scale: bool,
    /// Whether a layer norm follows the embedding.
    pub norm_pre: bool,
    /// `token` or `mean`.
    pub pooling: String,
    /// Position of the last norm: `before` or `after` the pooling.
    pub final_norm: String,
    /// `gelu` or `gelu_tanh`.
    pub activation: String,
    /// ε of every layer norm.
    pub eps: f64,
}

impl From<&Config> for ModelInfo {
    fn from(config: &Config) -> Self {
        match config {
            Config::Vit(config) => ModelInfo::Vit(config.into()),
            Config::Mixer(config) => ModelInfo::Mixer(config.into()),
            Config::ConvNext(config) => ModelInfo::ConvNext(config.into()),
        }
    }
}

impl From<&convnext::Config> for ConvNextInfo {
    fn from(config: &convnext::Config) -> Self {
        Self {
            image_size: config.image_size,
            stem_patch_size: config.patch_size,
            channels: config.channels,
            depths: config.depths.clone(),
            dims: config.dims.clone(),
            classes: config.classes,
            layer_scale: config.layer_scale,
            grn: config.grn,
            eps: [config.eps, config.final_eps],
        }
    }
}

impl From<&mlp_mixer::Config> for MixerInfo {
    fn from(config: &mlp_mixer::Config) -> Self {
        Self {
            image_size: config.image_size,
            patch_size: config.patch_size,
            channels: config.channels,
            dim: config.dim,
            depth: config.depth,
            token_mlp_dim: config.token_mlp_dim,
            channel_mlp_dim: config.channel_mlp_dim,
            classes: config.classes,
            tokens: config.tokens(),
            eps: config.eps,
        }
    }
}

impl From<&vit::Config> for VitInfo {
    fn from(config: &vit::Config) -> Self {
        Self {
            image_size: config.image_size,
            patch_size: config.patch_size,
            channels: config.channels,
            dim: config.dim,
            depth: config.depth,
            heads: config.heads,
            mlp_dim: config.mlp_dim,
            classes: config.classes,
            tokens: config.tokens(),
            class_token: config.class_token,
            distillation: match config.distillation {
                Distillation::None => "none".into(),
                Distillation::Token => "token".into(),
                Distillation::TokenAndHead => "token and head".into(),
            },
            registers: config.registers,
            qkv_bias: config.qkv_bias,
            layer_scale: config.layer_scale,
            norm_pre: config.norm_pre,
            pooling: match config.pooling {
                Pooling::Token => "token".into(),
                Pooling::Mean => "mean".into(),
            },
            final_norm: match config.final_norm {
                FinalNorm::BeforePool => "before".into(),
                FinalNorm::AfterPool => "after".into(),
            },
            activation: match config.activation {
                Activation::Gelu => "gelu".into(),
                Activation::GeluTanh => "gelu_tanh".into(),
            },
            eps: config.eps,
        }
    }
}
