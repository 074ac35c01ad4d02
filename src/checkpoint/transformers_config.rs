//! Checks transformers' `config.json` against the tensors and records assumptions.

use super::reader::Reader;
use super::settings::Settings;
use super::timm_config::check_problem;
use super::timm_names::PLAIN;
use super::{Error, Layout};
use crate::models::vit::{Activation, Config, Distillation, FinalNorm, Pooling};
use serde_json::Value;

/// Networks that transformers computes like planish.
const MODEL_TYPES: [&str; 2] = ["vit", "deit"];

/// The same and transformers' wrapper of timm models, for a timm configuration.
const MODEL_TYPES_OF_TIMM: [&str; 3] = ["vit", "deit", "timm_wrapper"];

/// Classes of these networks. A classifier may be saved under the class name of another one.
const CLASSES: [&str; 9] = [
    "ViTForImageClassification",
    "ViTForMaskedImageModeling",
    "ViTModel",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "DeiTForMaskedImageModeling",
    "DeiTModel",
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
    let computes = "transformers' ViT, DeiT, ConvNeXt and ConvNeXt V2";
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
        let place = settings.place.as_str();
        check_keys(settings, &READ, PLAIN)?;
        check_problem(settings)?;
        self.check_network(config, settings)?;
        for (key, shown, tensor) in [
            ("hidden_size", config.dim, "the patch projection"),
            ("num_hidden_layers", config.depth, "the blocks"),
            ("intermediate_size", config.mlp_dim, "the first layer of the MLP"),
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
        match settings.number("layer_norm_eps")? {
            Some(eps) if eps > 0.0 && eps < 1.0 => config.eps = eps,
            Some(_) => {
                let expected = "a number between 0 and 1";
                return Err(settings.unsupported("layer_norm_eps", expected, "correct it"));
            }
            None => self.assumed.push(format!("layer norm ε: {:e}", config.eps)),
        }
        config.activation = match settings.text("hidden_act")? {
            Some("gelu") => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some(_) => {
                let means = "it selects another activation";
                let computes = "the exact GELU and its tanh approximation (`gelu`, `gelu_new`, \
                     `gelu_pytorch_tanh`)";
                let remedy = "use a model with one of these";
                return Err(settings.not_computed("hidden_act", means, computes, remedy));
            }
            None => {
                self.assumed.push("activation: exact GELU".into());
                Activation::Gelu
            }
        };
        Ok(())
    }
}
