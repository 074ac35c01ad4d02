//! The report of `inspect`.

use crate::checkpoint::{Checkpoint, CheckpointInfo, Provenance};
use crate::models::vit::{Activation, Distillation, FinalNorm, Pooling};
use crate::models::{Config, Layer, Weights, arch, convnext, mlp_mixer, vit};
use crate::run::RunInfo;
use crate::session::checkpoint_info;
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
    /// Whether the norms of a block follow attention and MLP.
    #[serde(default)]
    pub post_norm: bool,
    /// Whether queries and keys are normalised.
    #[serde(default)]
    pub qk_norm: bool,
    /// Rows and columns of the stored position embedding, if the network resizes it in every pass.
    #[serde(default)]
    pub stored_positions: Option<[usize; 2]>,
    /// `token`, `mean`, `attention`, or `token and mean`.
    pub pooling: String,
    /// Position of the last norm: `before` or `after` the pooling, or `none`.
    pub final_norm: String,
    /// `gelu`, `gelu_tanh`, `quick_gelu` or `swiglu`.
    pub activation: String,
    /// ε of every layer norm.
    pub eps: f64,
}

impl Inspection {
    /// Describes a checkpoint.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn new(run: RunInfo, checkpoint: &Checkpoint) -> candle_core::Result<Self> {
        let blocks = checkpoint.network.blocks();
        Ok(Self {
            schema: INSPECTION.into(),
            run,
            checkpoint: checkpoint_info(checkpoint),
            architecture_from: checkpoint.architecture_from.clone(),
            recognised: checkpoint.recognised.clone(),
            dtype: checkpoint.dtype.clone(),
            config: ModelInfo::from(&checkpoint.config),
            assumed: checkpoint.assumed.clone(),
            class_names: checkpoint.class_names.clone(),
            layers: blocks
                .iter()
                .map(|layer| LayerInfo::new(layer, &checkpoint.weights))
                .collect::<candle_core::Result<_>>()?,
            provenance: checkpoint.provenance.clone(),
            history: checkpoint.history.clone(),
        })
    }
}

impl LayerInfo {
    fn new(layer: &Layer, weights: &Weights) -> candle_core::Result<Self> {
        let (mut parameters, mut squares) = (0, 0.0);
        for &i in &layer.tensors {
            let values: Vec<f32> = weights.tensor(i).flatten_all()?.to_vec1()?;
            parameters += values.len();
            squares += values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        }
        Ok(Self {
            name: layer.name.clone(),
            tensors: layer.tensors.len(),
            parameters,
            stages: [layer.first_stage, layer.last_stage],
            weight_norm: squares.sqrt(),
        })
    }
}

impl ModelInfo {
    /// Whether the model differs from the architecture with this name. In timm, `model_args` can change
    /// the architecture but not its name.
    pub fn differs_from(&self, name: &str) -> bool {
        match self {
            ModelInfo::Vit(own) => arch::vit(name, own.classes, own.channels).is_ok_and(|named| {
                (named.dim, named.depth, named.patch_size) != (own.dim, own.depth, own.patch_size)
            }),
            ModelInfo::ConvNext(own) => arch::convnext(name, own.classes, own.channels)
                .is_ok_and(|named| (&named.dims, &named.depths) != (&own.dims, &own.depths)),
            ModelInfo::Mixer(own) => {
                arch::mixer(name, own.classes, own.channels).is_ok_and(|named| {
                    (named.dim, named.depth, named.patch_size)
                        != (own.dim, own.depth, own.patch_size)
                })
            }
        }
    }
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
            post_norm: config.post_norm,
            qk_norm: config.qk_norm,
            stored_positions: config.position_resize.map(|resize| resize.grid),
            pooling: match config.pooling {
                Pooling::Token => "token".into(),
                Pooling::Mean => "mean".into(),
                Pooling::Attention => "attention".into(),
                Pooling::TokenAndMean => "token and mean".into(),
            },
            final_norm: match config.final_norm {
                FinalNorm::BeforePool => "before".into(),
                FinalNorm::AfterPool => "after".into(),
                FinalNorm::None => "none".into(),
            },
            activation: match config.activation {
                Activation::Gelu => "gelu".into(),
                Activation::GeluTanh => "gelu_tanh".into(),
                Activation::QuickGelu => "quick_gelu".into(),
                Activation::SwiGlu => "swiglu".into(),
            },
            eps: config.eps,
        }
    }
}
