//! Checks transformers' `config.json` against the tensors and records assumptions.

use super::reader::Reader;
use super::settings::Settings;
use super::timm_config::check_problem;
use super::timm_names::PLAIN;
use super::{Error, Layout};
use crate::models::vit::{Activation, Config, Distillation, FinalNorm, Pooling};
use serde_json::Value;

/// Networks that transformers computes like planish.
const MODEL_TYPES: [&str; 8] = [
    "vit",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "clip",
    "clip_vision_model",
    "siglip",
    "siglip_vision_model",
];

/// The same and transformers' wrapper of timm models, for a timm configuration.
const MODEL_TYPES_OF_TIMM: [&str; 3] = ["vit", "deit", "timm_wrapper"];

/// Classes of these networks. A classifier may be saved under the class name of another one.
const CLASSES: [&str; 22] = [
    "CLIPForImageClassification",
    "CLIPModel",
    "CLIPVisionModel",
    "CLIPVisionModelWithProjection",
    "SiglipForImageClassification",
    "SiglipModel",
    "SiglipVisionModel",
    "ViTForImageClassification",
    "ViTForMaskedImageModeling",
    "ViTModel",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "DeiTForMaskedImageModeling",
    "DeiTModel",
    "Dinov2Backbone",
    "Dinov2ForImageClassification",
    "Dinov2Model",
    "Dinov2WithRegistersBackbone",
    "Dinov2WithRegistersForImageClassification",
    "Dinov2WithRegistersModel",
    "TimmWrapperForImageClassification",
    "TimmWrapperModel",
];

/// Settings that planish reads, here or for the patch grid, the heads and the class names.
const READ: [&str; 10] = [
    "hidden_act",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "layer_norm_eps",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
    "qkv_bias",
];

/// Settings of every network that planish reads.
const READ_FOR_ALL: [&str; 6] =
    ["architectures", "id2label", "label2id", "model_type", "num_labels", "problem_type"];

/// Settings that do not change what a trained classifier computes: dropout and initialisation, the
/// pooler, and the settings of all transformers models for text generation and returned results.
const HARMLESS: [&str; 60] = [
    "attention_probs_dropout_prob",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_stride",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_range",
    "length_penalty",
    "license",
    "max_length",
    "min_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "pooler_act",
    "pooler_output_size",
    "prefix",
    "processor_class",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// Settings that change the computation unless they are false or empty, and the change.
const OTHER: [(&str, &str); 7] = [
    ("add_cross_attention", "the model attends to another one"),
    ("auto_map", "the model has custom code"),
    ("is_decoder", "the attention is masked"),
    ("is_encoder_decoder", "the model has a decoder"),
    ("per_layer_config", "layers differ in their settings"),
    ("pruned_heads", "heads are removed when the model is loaded"),
    ("quantization_config", "the weights are quantized"),
];

/// Refuses a network that planish does not compute, by its name alone.
pub(super) fn check_names(settings: &Settings) -> Result<(), Error> {
    let of_timm = settings.states("architecture");
    let types: &[&str] = if of_timm { &MODEL_TYPES_OF_TIMM } else { &MODEL_TYPES };
    let means = "it is another network";
    let computes = "transformers' ViT, DeiT, DINOv2, CLIP, SigLIP, ConvNeXt and ConvNeXt V2";
    let remedy = "use one of these";
    if settings.text("model_type")?.is_some_and(|kind| !types.contains(&kind)) {
        return Err(settings.not_computed("model_type", means, computes, remedy));
    }
    let known = |class: &Value| class.as_str().is_some_and(|c| CLASSES.contains(&c));
    let all_known = |list: &Value| match list.as_array() {
        Some(list) => list.iter().all(known),
        None => known(list),
    };
    if settings.get("architectures").is_some_and(|list| !all_known(list)) {
        return Err(settings.not_computed("architectures", means, computes, remedy));
    }
    Ok(())
}

/// The values of `model_type` for the networks of a layout.
pub(super) fn model_types(layout: Layout) -> &'static [&'static str] {
    match layout {
        Layout::TransformersDinov2 => &MODEL_TYPES[2..4],
        Layout::TransformersClip => &MODEL_TYPES[4..6],
        Layout::TransformersSiglip => &MODEL_TYPES[6..],
        _ => &MODEL_TYPES_OF_TIMM,
    }
}

/// Refuses settings of networks that planish does not compute, and unknown settings. `read` are the
/// settings of this family that planish reads.
pub(super) fn check_keys(
    settings: &Settings,
    read: &[&str],
    computes: &'static str,
) -> Result<(), Error> {
    for key in settings.keys("") {
        if READ_FOR_ALL.contains(&key)
            || read.contains(&key)
            || HARMLESS.contains(&key)
            || key.starts_with('_')
        {
            continue;
        }
        let Some(&(_, means)) = OTHER.iter().find(|(other, _)| *other == key) else {
            let means = "planish does not know what this setting changes";
            let remedy = "remove it if the model is the same without it";
            return Err(settings.not_computed(key, means, computes, remedy));
        };
        if !settings.is_off(key) {
            return Err(settings.not_computed(key, means, computes, "use a plain model"));
        }
    }
    Ok(())
}

impl Reader<'_> {
    /// Checks settings that the configuration may state against the tensors.
    pub(super) fn check_transformers(
        &self,
        config: &Config,
        settings: &Settings,
    ) -> Result<(), Error> {
        check_keys(settings, &READ, PLAIN)?;
        check_problem(settings)?;
        self.check_network(config, settings)?;
        self.check_mlp(config, settings)?;
        self.check_sizes(config, settings)
    }

    /// Checks the stated width of the MLP.
    pub(super) fn check_mlp(&self, config: &Config, settings: &Settings) -> Result<(), Error> {
        let key = "intermediate_size";
        match settings.count(key)?.filter(|&stated| stated != config.mlp_dim) {
            None => Ok(()),
            Some(stated) => {
                let (shown, tensor) = (config.mlp_dim, "the first layer of the MLP");
                Err(self.contradiction(settings.place.as_str(), key, stated, shown, tensor))
            }
        }
    }

    /// Checks the sizes that all Vision Transformers of transformers state.
    pub(super) fn check_sizes(&self, config: &Config, settings: &Settings) -> Result<(), Error> {
        let place = settings.place.as_str();
        for (key, shown, tensor) in [
            ("hidden_size", config.dim, "the patch projection"),
            ("num_hidden_layers", config.depth, "the blocks"),
            ("num_channels", config.channels, "the patch projection"),
            ("num_labels", config.classes, "the classifier"),
        ] {
            if let Some(stated) = settings.count(key)?.filter(|&stated| stated != shown) {
                return Err(self.contradiction(place, key, stated, shown, tensor));
            }
        }
        if let Some(stated) = settings.pair("patch_size")?.filter(|&p| p != config.patch_size) {
            let (shown, tensor) = (config.patch_size, "the patch projection");
            return Err(self.contradiction(place, "patch_size", stated, shown, tensor));
        }
        if let Some(stated) = settings.flag("qkv_bias")?.filter(|&stated| stated != config.qkv_bias)
        {
            let (shown, tensor) = (config.qkv_bias, "biases of query, key and value");
            return Err(self.contradiction(place, "qkv_bias", stated, shown, tensor));
        }
        Ok(())
    }

    /// Checks that the tensors belong to the stated network. In another library's layout they may
    /// have parts that transformers' networks do not have.
    fn check_network(&self, config: &Config, settings: &Settings) -> Result<(), Error> {
        let place = settings.place.as_str();
        let after_pool = config.final_norm == FinalNorm::AfterPool;
        for (strange, shown, tensor) in [
            (!config.class_token, "no class token", "`cls_token`"),
            (config.registers > 0, "register tokens", "`reg_token`"),
            (config.layer_scale, "LayerScale", "`blocks.*.ls1`"),
            (config.norm_pre, "a norm after the embedding", "`norm_pre`"),
            (after_pool, "a norm after the pooling", "`fc_norm`"),
            (config.final_norm == FinalNorm::None, "no last norm", "`norm`"),
            (config.qk_norm, "norms of queries and keys", "`blocks.*.attn.q_norm`"),
            (config.pooling == Pooling::Attention, "attention pooling", "`attn_pool`"),
            (config.activation == Activation::SwiGlu, "gated MLPs", "`blocks.*.mlp.fc1`"),
        ] {
            if strange {
                let stated = "a network of transformers, which has no such part";
                return Err(self.contradiction(place, "model_type", stated, shown, tensor));
            }
        }
        let kind = settings.text("model_type")?;
        let (found, tensor) = (config.distillation, "the distillation token");
        match (kind, found) {
            (Some("vit"), Distillation::Token | Distillation::TokenAndHead) => {
                Err(self.contradiction(place, "model_type", "vit", "a distilled DeiT", tensor))
            }
            (Some("deit"), Distillation::None) => {
                Err(self.contradiction(place, "model_type", "deit", "no distillation", tensor))
            }
            _ => Ok(()),
        }
    }

    /// Pooling, activation and ε, which the tensors do not determine.
    pub(super) fn transformers_arithmetic(
        &mut self,
        config: &mut Config,
        settings: &Settings,
    ) -> Result<(), Error> {
        config.pooling = Pooling::Token;
        if !config.position_covers_prefix {
            let (key, stated) = ("model_type", "a position for the class token");
            let place = settings.place.as_str();
            return Err(self.contradiction(place, key, stated, "none", "the position embedding"));
        }
        if !settings.states("model_type") && self.layout == Layout::Timm {
            self.assumed.push("blocks: layer norm before attention and MLP".into());
        }
        self.stated_eps(&mut config.eps)?;
        config.activation = self.stated_activation()?;
        Ok(())
    }

    /// ε of the layer norms, if the configuration states it.
    pub(super) fn stated_eps(&mut self, eps: &mut f64) -> Result<(), Error> {
        let key = "layer_norm_eps";
        match (self.settings, self.settings.map_or(Ok(None), |s| s.number(key))?) {
            (_, Some(stated)) if stated > 0.0 && stated < 1.0 => *eps = stated,
            (Some(settings), Some(_)) => {
                return Err(settings.unsupported(key, "a number between 0 and 1", "correct it"));
            }
            _ => self.assumed.push(format!("layer norm ε: {eps:e}")),
        }
        Ok(())
    }

    /// The activation that the configuration states, or the exact GELU.
    pub(super) fn stated_activation(&mut self) -> Result<Activation, Error> {
        let key = "hidden_act";
        match (self.settings, self.settings.map_or(Ok(None), |s| s.text(key))?) {
            (_, Some("gelu")) => Ok(Activation::Gelu),
            (_, Some("gelu_new" | "gelu_pytorch_tanh")) => Ok(Activation::GeluTanh),
            (_, Some("quick_gelu")) => Ok(Activation::QuickGelu),
            (Some(settings), Some(_)) => {
                let means = "it selects another activation";
                let computes = "the exact GELU, its tanh approximation and QuickGELU (`gelu`, \
                     `gelu_new`, `gelu_pytorch_tanh`, `quick_gelu`)";
                let remedy = "use a model with one of these";
                Err(settings.not_computed(key, means, computes, remedy))
            }
            _ => {
                self.assumed.push("activation: exact GELU".into());
                Ok(Activation::Gelu)
            }
        }
    }
}
