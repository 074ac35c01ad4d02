//! Checks timm's configuration against the tensors and records assumptions.

use super::arguments::Arguments;
use super::error::{Mismatch, few};
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
        "qk_norm",
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
const ACTIVATIONS: &str = "the exact GELU, its tanh approximation and QuickGELU (`gelu`, `gelu_tanh`, \
     `quick_gelu`), and SiLU in gated MLPs (`silu`)";

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
        let normed = config.final_norm != FinalNorm::None;
        let expected = match self.settings {
            Some(settings) if settings.flag("model_args.final_norm")? == Some(false) => true,
            _ => self.named()?.is_some_and(|named| named.no_final_norm()),
        };
        if !normed && !expected {
            let missing = ["norm.weight", "norm.bias"].map(String::from).into();
            let report = Box::new(Mismatch { missing, ..Mismatch::default() });
            let (path, layout) = (self.path.to_path_buf(), self.layout.name());
            return Err(Error::Tensors { path, layout, report });
        }
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
            ("model_args.qk_norm", config.qk_norm, "`blocks.*.attn.q_norm`"),
            ("model_args.final_norm", normed, "`norm.weight` or `fc_norm.weight`"),
            (
                "model_args.fc_norm",
                // Without a last norm, its place has no meaning.
                config.final_norm == FinalNorm::AfterPool
                    || !normed && settings.flag("model_args.fc_norm")? == Some(true),
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
        // In blocks with norms after attention and MLP, it initialises the norms.
        let post_norm = self.named()?.is_some_and(|named| named.post_norm());
        if scaled && !config.layer_scale && !post_norm {
            let key = "model_args.init_values";
            return Err(self.contradiction(place, key, "LayerScale", "none", "`blocks.*.ls1`"));
        }
        if let Some(ratio) = settings.number("model_args.mlp_ratio")? {
            let stated = config.dim as f64 * ratio;
            // timm's width of a gated MLP counts both halves of its first layer.
            let halves = if config.activation == Activation::SwiGlu { 2 } else { 1 };
            if stated as usize != halves * config.mlp_dim {
                let key = "model_args.mlp_ratio";
                let shown = (halves * config.mlp_dim) as f64 / config.dim as f64;
                return Err(self.contradiction(place, key, ratio, shown, "`blocks.0.mlp.fc1`"));
            }
        }
        Ok(())
    }

    pub(super) fn pooling(&mut self, config: &mut Config) -> Result<(), Error> {
        let mut stated = None;
        let attends = config.pooling == Pooling::Attention;
        if let Some(settings) = self.settings {
            for key in ["model_args.global_pool", "global_pool", "pretrained_cfg.global_pool"] {
                stated = stated.or(settings.text(key)?.map(|word| (key, word)));
            }
        }
        config.pooling = match (self.settings, stated) {
            (_, Some((_, "token"))) => Pooling::Token,
            (_, Some((_, "avg"))) => Pooling::Mean,
            (_, Some((_, "map"))) => Pooling::Attention,
            (Some(settings), Some((key, _))) => {
                let means = "it selects another pooling";
                let computes = "the class token, the mean over patches and attention pooling \
                     (`token`, `avg`, `map`)";
                let remedy = "use a model with this pooling";
                return Err(settings.not_computed(key, means, computes, remedy));
            }
            _ => {
                let by_name = self.named()?.and_then(|named| named.pooling());
                let normed_after = config.final_norm == FinalNorm::AfterPool;
                let mean = !config.class_token || normed_after && !config.two_heads();
                let by_tensors = if mean { Pooling::Mean } else { Pooling::Token };
                let pooling = match attends {
                    true => Pooling::Attention,
                    false => by_name.unwrap_or(by_tensors),
                };
                self.assumed.push(format!("pooling: {}", pooling_name(pooling)));
                pooling
            }
        };
        let place = self.settings.map_or("", |s| s.place.as_str());
        if (config.pooling == Pooling::Attention) != attends {
            let stated = pooling_name(config.pooling);
            let shown = if attends { "map" } else { "no attention pooling" };
            return Err(self.contradiction(place, "global_pool", stated, shown, "`attn_pool`"));
        }
        if config.pooling != Pooling::Token && config.two_heads() {
            let (stated, shown) =
                (pooling_name(config.pooling), "a classifier on the distillation token");
            return Err(self.contradiction(place, "global_pool", stated, shown, "`head_dist`"));
        }
        if config.pooling == Pooling::Token && !config.class_token {
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
        let by_name = named.as_ref().and_then(|named| named.activation());
        let gated = config.activation == Activation::SwiGlu;
        config.activation = self.timm_activation(gated, by_name, null_activation)?;
        config.post_norm = named.as_ref().is_some_and(|named| named.post_norm());
        if config.post_norm && config.layer_scale {
            let place = self.settings.map_or("", |s| s.place.as_str());
            let (stated, shown) = ("norms after attention and MLP", "LayerScale");
            return Err(self.contradiction(place, "architecture", stated, shown, "`blocks.*.ls1`"));
        }
        config.pool_prefix = named.as_ref().is_some_and(|named| named.pools_prefix());
        if let Some(settings) = self.settings {
            let stated = settings.flag("model_args.pool_include_prefix")?;
            config.pool_prefix = stated.unwrap_or(config.pool_prefix);
        }
        // It changes a pooling of several tokens only.
        config.pool_prefix &= config.pooling != Pooling::Token && config.prefix_tokens() > 0;
        Ok(())
    }

    /// The activation. `gated` is what the tensors show, and `named` what the architecture's name says.
    fn timm_activation(
        &mut self,
        gated: bool,
        named: Option<Result<Activation, &'static str>>,
        null: bool,
    ) -> Result<Activation, Error> {
        let key = "model_args.act_layer";
        let place = self.settings.map_or("", |s| s.place.as_str());
        let known = self.named()?.is_some_and(|named| named.is_known());
        let by_name = named == Some(Ok(Activation::SwiGlu));
        if gated != by_name && known {
            let words = |gated| if gated { "gated MLPs" } else { "MLPs without a gate" };
            let tensor = "`blocks.*.mlp.fc1`";
            let (stated, shown) = (words(by_name), words(gated));
            return Err(self.contradiction(place, "architecture", stated, shown, tensor));
        }
        let stated = match self.settings {
            Some(settings) => settings.text(key)?.map(|name| (settings, name.to_lowercase())),
            None => None,
        };
        match (stated, named, self.settings) {
            (Some((settings, name)), ..) => match (name.as_str(), gated) {
                ("gelu" | "", false) => Ok(Activation::Gelu),
                ("gelu_tanh", false) => Ok(Activation::GeluTanh),
                ("quick_gelu", false) => Ok(Activation::QuickGelu),
                ("silu" | "swish", true) => Ok(Activation::SwiGlu),
                _ => {
                    let means = "it selects another activation";
                    let remedy = "use a model with one of these";
                    Err(settings.not_computed(key, means, ACTIVATIONS, remedy))
                }
            },
            (None, _, Some(settings)) if null && gated => {
                let means = "the gate's activation is the GELU";
                Err(settings.not_computed(key, means, ACTIVATIONS, "use a model with SiLU"))
            }
            (None, ..) if null => Ok(Activation::Gelu),
            (None, Some(Err(why)), Some(settings)) => {
                let remedy = "if it is one of these, write it under `model_args.act_layer`";
                Err(settings.not_computed("architecture", why, ACTIVATIONS, remedy))
            }
            (None, Some(Ok(activation)), _) if gated == by_name => Ok(activation),
            (None, ..) if gated => {
                let text = "MLP: gated, SiLU of the first half of its first layer (SwiGLU)";
                self.assumed.push(text.into());
                Ok(Activation::SwiGlu)
            }
            (None, ..) => {
                self.assumed.push("activation: exact GELU".into());
                Ok(Activation::Gelu)
            }
        }
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
        let post_norm = named.as_ref().is_some_and(|named| named.post_norm());
        let place = if post_norm { "after" } else { "before" };
        let blocks = format!("layer norm {place} attention and MLP");
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
