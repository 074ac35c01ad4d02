//! Checks timm's configuration against the tensors and records assumptions.

use super::arguments::Arguments;
use super::error::few;
use super::reader::Reader;
use super::settings::Settings;
use super::timm_names::PLAIN;
use super::{Error, Layout};
use crate::models::arch::{TIMM_EPS, pooling_name};
use crate::models::vit::{Activation, Config, FinalNorm, Pooling};

/// timm's arguments of `VisionTransformer`. Those for the patch grid and the heads are read elsewhere.
const ARGUMENTS: Arguments = Arguments {
    computes: PLAIN,
    read: &[
        "act_layer",
        "class_token",
        "depth",
        "embed_dim",
        "fc_norm",
        "final_norm",
        "global_pool",
        "img_size",
        "in_chans",
        "init_values",
        "mlp_ratio",
        "no_embed_class",
        "num_classes",
        "num_heads",
        "patch_size",
        "pool_include_prefix",
        "pos_embed",
        "pre_norm",
        "proj_bias",
        "qkv_bias",
        "reg_tokens",
    ],
    harmless: &[
        "attn_drop_rate",
        "device",
        "drop_path_rate",
        "drop_rate",
        "dtype",
        "dynamic_img_pad",
        "dynamic_img_size",
        "fix_init",
        "patch_drop_rate",
        "pos_drop_rate",
        "proj_drop_rate",
        "strict_img_size",
        "weight_init",
    ],
    other: &[
        ("attn_layer", "it selects another attention"),
        ("block_fn", "it selects another block"),
        ("embed_layer", "it selects another patch embedding"),
        ("embed_norm_layer", "it puts a norm after the patch projection"),
        ("mlp_layer", "it selects another MLP"),
        ("norm_layer", "it selects another norm"),
        ("qk_norm", "it normalises queries and keys"),
        ("scale_attn_norm", "it puts a norm inside the attention"),
        ("scale_mlp_norm", "it puts a norm inside the MLP"),
        ("use_naflex", "it takes images of any size"),
    ],
    defaults: &[],
};

/// Keys next to `model_args`: those that timm writes, and those that transformers adds when it
/// wraps a timm model.
const TOP_LEVEL: [&str; 24] = [
    "architecture",
    "architectures",
    "do_pooling",
    "dtype",
    "global_pool",
    "id2label",
    "initializer_range",
    "label2id",
    "label_descriptions",
    "label_names",
    "labels",
    "license",
    "model_args",
    "model_type",
    "num_classes",
    "num_features",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "pretrained_cfg",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers_version",
];

/// Supported activations between the two layers of an MLP.
const ACTIVATIONS: &str = "the exact GELU and its tanh approximation (`gelu`, `gelu_tanh`)";

/// Refuses arguments of networks that planish does not compute, and unknown arguments.
pub(super) fn check_arguments(settings: &Settings) -> Result<(), Error> {
    ARGUMENTS.check(settings)?;
    if let Some(kind) = settings.text("model_args.pos_embed")?.filter(|&kind| kind != "learn") {
        let (key, means) = ("model_args.pos_embed", format!("the position embedding is {kind:?}"));
        return Err(settings.not_computed(key, means, PLAIN, "use a plain model"));
    }
    Ok(())
}

impl Reader<'_> {
    /// The keys next to `model_args`. Arguments misplaced there count as stated; others are noted
    /// as unused.
    pub(super) fn check_top_level(
        &mut self,
        settings: &Settings,
        arguments: &Arguments,
    ) -> Result<(), Error> {
        check_problem(settings)?;
        let mut unread = Vec::new();
        for key in settings.keys("") {
            let argument = key == "act_layer" || arguments.selects(key).is_some();
            if argument && !settings.is_off(key) {
                let means = "an argument of the network, outside `model_args`";
                let remedy = "move it into `model_args`, or remove it";
                return Err(settings.not_computed(key, means, arguments.computes, remedy));
            }
            if !TOP_LEVEL.contains(&key) && !key.starts_with('_') {
                unread.push(format!("\"{key}\""));
            }
        }
        // In timm's old format, the keys of `pretrained_cfg` are also there.
        let first_form = settings.states("architecture") && !settings.states("pretrained_cfg");
        if !unread.is_empty() && !first_form {
            let keys = few(&unread);
            self.assumed.push(format!("{keys} in {}: without effect", settings.place));
        }
        Ok(())
    }

    /// Checks settings that timm's configuration may state against the tensors.
    pub(super) fn check_structure(&mut self, config: &Config) -> Result<(), Error> {
        let Some(settings) = self.settings else { return Ok(()) };
        self.check_top_level(settings, &ARGUMENTS)?;
        let place = settings.place.as_str();
        for (key, shown, tensor) in [
            ("num_classes", config.classes, "`head.weight`"),
            ("model_args.num_classes", config.classes, "`head.weight`"),
            ("model_args.embed_dim", config.dim, "`patch_embed.proj.weight`"),
            ("model_args.depth", config.depth, "`blocks.*`"),
            ("model_args.in_chans", config.channels, "`patch_embed.proj.weight`"),
            ("model_args.reg_tokens", config.registers, "`reg_token`"),
        ] {
            if let Some(stated) = settings.count(key)?.filter(|&stated| stated != shown) {
                return Err(self.contradiction(place, key, stated, shown, tensor));
            }
        }
        for (key, shown, tensor) in [
            ("model_args.qkv_bias", config.qkv_bias, "`blocks.*.attn.qkv.bias`"),
            ("model_args.class_token", config.class_token, "`cls_token`"),
            ("model_args.pre_norm", config.norm_pre, "`norm_pre.weight`"),
            ("model_args.proj_bias", true, "`blocks.*.attn.proj.bias`"),
            ("model_args.final_norm", true, "`norm.weight` or `fc_norm.weight`"),
            (
                "model_args.fc_norm",
                config.final_norm == FinalNorm::AfterPool,
                "`norm.weight` or `fc_norm.weight`",
            ),
        ] {
            if let Some(stated) = settings.flag(key)?.filter(|&stated| stated != shown) {
                return Err(self.contradiction(place, key, stated, shown, tensor));
            }
        }
        if let Some(stated) = settings.pair("model_args.patch_size")?
            && stated != config.patch_size
        {
            let (key, tensor) = ("model_args.patch_size", "`patch_embed.proj.weight`");
            return Err(self.contradiction(place, key, stated, config.patch_size, tensor));
        }
        let scaled = settings.number("model_args.init_values")?.is_some_and(|value| value != 0.0);
        if scaled && !config.layer_scale {
            let key = "model_args.init_values";
            return Err(self.contradiction(place, key, "LayerScale", "none", "`blocks.*.ls1`"));
        }
        if let Some(ratio) = settings.number("model_args.mlp_ratio")? {
            let stated = config.dim as f64 * ratio;
            if stated as usize != config.mlp_dim {
                let key = "model_args.mlp_ratio";
                let shown = config.mlp_dim as f64 / config.dim as f64;
                return Err(self.contradiction(place, key, ratio, shown, "`blocks.0.mlp.fc1`"));
            }
        }
        Ok(())
    }

    pub(super) fn pooling(&mut self, config: &mut Config) -> Result<(), Error> {
        let mut stated = None;
        if let Some(settings) = self.settings {
            for key in ["model_args.global_pool", "global_pool", "pretrained_cfg.global_pool"] {
                stated = stated.or(settings.text(key)?.map(|word| (key, word)));
            }
        }
        config.pooling = match (self.settings, stated) {
            (_, Some((_, "token"))) => Pooling::Token,
            (_, Some((_, "avg"))) => Pooling::Mean,
            (Some(settings), Some((key, _))) => {
                let means = "it selects another pooling";
                let computes = "the class token and the mean over patches (`token`, `avg`)";
                let remedy = "use a model with this pooling";
                return Err(settings.not_computed(key, means, computes, remedy));
            }
            _ => {
                let by_name = self.named()?.and_then(|named| named.pooling());
                let normed_after = config.final_norm == FinalNorm::AfterPool;
                let mean = !config.class_token || normed_after && !config.two_heads();
                let by_tensors = if mean { Pooling::Mean } else { Pooling::Token };
                let pooling = by_name.unwrap_or(by_tensors);
                self.assumed.push(format!("pooling: {}", pooling_name(pooling)));
                pooling
            }
        };
        if config.pooling == Pooling::Mean && config.two_heads() {
            let place = self.settings.map_or("", |s| s.place.as_str());
            let shown = "a classifier on the distillation token";
            return Err(self.contradiction(place, "global_pool", "avg", shown, "`head_dist`"));
        }
        if config.pooling == Pooling::Token && !config.class_token {
            let place = self.settings.map_or("", |s| s.place.as_str());
            return Err(self.contradiction(place, "global_pool", "token", "none", "`cls_token`"));
        }
        Ok(())
    }

    /// Activation, ε and the place of the norms, which the tensors do not determine.
    pub(super) fn arithmetic(&mut self, config: &mut Config) -> Result<(), Error> {
        self.note_architecture(config)?;
        let named = self.named()?;
        // If a configuration says null, timm uses its own default, not the architecture's.
        let stated = |key: &str| self.settings.is_some_and(|s| s.states(key));
        let (null_norm, null_activation) =
            (stated("model_args.norm_layer"), stated("model_args.act_layer"));
        if null_norm {
            config.eps = TIMM_EPS;
        } else if let Some(eps) = named.as_ref().and_then(|named| named.eps()) {
            config.eps = eps;
        }
        self.assumed.push(format!("layer norm ε: {:e}", config.eps));
        let key = "model_args.act_layer";
        let stated = match self.settings {
            Some(settings) => settings.text(key)?.map(|name| (settings, name.to_lowercase())),
            None => None,
        };
        let by_name = named.as_ref().and_then(|named| named.activation());
        config.activation = match (stated, by_name, self.settings) {
            (Some((settings, name)), ..) => match name.as_str() {
                "gelu" | "" => Activation::Gelu,
                "gelu_tanh" => Activation::GeluTanh,
                _ => {
                    let means = "it selects another activation";
                    let remedy = "use a model with one of these";
                    return Err(settings.not_computed(key, means, ACTIVATIONS, remedy));
                }
            },
            (None, ..) if null_activation => Activation::Gelu,
            (None, Some(why), Some(settings)) => {
                let remedy = "if it is one of these, write it under `model_args.act_layer`";
                return Err(settings.not_computed("architecture", why, ACTIVATIONS, remedy));
            }
            (None, ..) => {
                self.assumed.push("activation: exact GELU".into());
                Activation::Gelu
            }
        };
        let Some(settings) = self.settings else { return Ok(()) };
        let key = "model_args.pool_include_prefix";
        if settings.flag(key)? == Some(true) && config.prefix_tokens() > 0 {
            let means = "class and register tokens take part in the mean";
            let computes = "the mean over patches only";
            return Err(settings.not_computed(
                key,
                means,
                computes,
                "use a model with this pooling",
            ));
        }
        Ok(())
    }

    /// Notes an architecture name that does not begin like timm's names of its family.
    pub(super) fn note_name(&mut self, families: &[&str]) -> Result<(), Error> {
        let Some(name) = self.architecture()? else { return Ok(()) };
        let known = families.iter().any(|f| name.rsplit('/').next().unwrap_or(name).starts_with(f));
        if !known {
            let note =
                format!("architecture: \"{name}\" is unknown to planish; assumed to be as timm's");
            self.assumed.push(note);
        }
        Ok(())
    }

    /// Notes assumptions for an architecture name that timm does not define, or for no name.
    fn note_architecture(&mut self, config: &Config) -> Result<(), Error> {
        let named = self.named()?;
        let blocks = "layer norm before attention and MLP";
        match (self.architecture()?, named) {
            (Some(_), Some(named)) if named.is_known() => {}
            (Some(name), _) => self.assumed.push(format!(
                "architecture: \"{name}\" is unknown to planish; assumed to be a plain Vision \
                 Transformer with {} heads, {blocks}",
                config.heads
            )),
            // The other libraries' tensor names belong to their own plain networks.
            (None, _) if self.layout != Layout::Timm => {}
            (None, _) => self.assumed.push(format!("blocks: {blocks}")),
        }
        Ok(())
    }
}

/// Refuses models for multi-label classification or regression.
pub(super) fn check_problem(settings: &Settings) -> Result<(), Error> {
    let key = "problem_type";
    match settings.text(key)?.filter(|&kind| kind != "single_label_classification") {
        None => Ok(()),
        Some(_) => {
            let means = "the model was trained with another loss";
            let computes = "the cross-entropy of one label per image";
            let remedy = "use a model of single_label_classification";
            Err(settings.not_computed(key, means, computes, remedy))
        }
    }
}
