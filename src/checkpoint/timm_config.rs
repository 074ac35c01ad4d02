//! timm's configuration held against the tensors, and what neither says.

use super::Error;
use super::reader::Reader;
use crate::vit::arch::{TIMM_CLIP_EPS, pooling_name};
use crate::vit::{Activation, Config, FinalNorm, Pooling};

/// Model arguments that change the arithmetic in ways planish does not follow.
const FOREIGN: [&str; 8] = [
    "mlp_layer",
    "attn_layer",
    "block_fn",
    "norm_layer",
    "embed_norm_layer",
    "embed_layer",
    "scale_attn_norm",
    "scale_mlp_norm",
];

impl Reader<'_> {
    /// What timm's configuration may state and the tensors show.
    pub(super) fn check_structure(&self, config: &Config) -> Result<(), Error> {
        let Some(settings) = self.settings else { return Ok(()) };
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
        if settings.number("model_args.init_values")?.is_some() && !config.layer_scale {
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
        let stated = match self.settings {
            Some(settings) => match settings.text("model_args.global_pool")? {
                Some(word) => Some(("model_args.global_pool", word)),
                None => settings.text("global_pool")?.map(|word| ("global_pool", word)),
            },
            None => None,
        };
        config.pooling = match (self.settings, stated) {
            (_, Some((_, "token"))) => Pooling::Token,
            (_, Some((_, "avg"))) => Pooling::Mean,
            (Some(settings), Some((key, _))) => {
                let remedy = "planish pools by class token or mean; use such a model";
                return Err(settings.unsupported(key, "token or avg", remedy));
            }
            _ => {
                let normed_after = config.final_norm == FinalNorm::AfterPool;
                let mean = !config.class_token || normed_after && !config.two_heads();
                let pooling = if mean { Pooling::Mean } else { Pooling::Token };
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

    /// Activation and ε, which leave no trace in the tensors.
    pub(super) fn arithmetic(&mut self, config: &mut Config) -> Result<(), Error> {
        let name = self.architecture()?.unwrap_or("").to_string();
        if name.contains("clip") {
            config.eps = TIMM_CLIP_EPS;
        }
        self.assumed.push(format!("layer norm ε: {:e}", config.eps));
        let stated = match self.settings {
            Some(settings) => settings.text("model_args.act_layer")?,
            None => None,
        };
        config.activation = match (self.settings, stated) {
            (_, Some("gelu")) => Activation::Gelu,
            (_, Some("gelu_tanh")) => Activation::GeluTanh,
            (Some(settings), Some(_)) => {
                let remedy = "planish knows these two only";
                return Err(settings.unsupported(
                    "model_args.act_layer",
                    "gelu or gelu_tanh",
                    remedy,
                ));
            }
            (Some(settings), None) if name.contains("quickgelu") || name.contains("siglip") => {
                let remedy = "if it is one of these, write it under model_args.act_layer";
                let expected = "an architecture whose activation is gelu or gelu_tanh";
                return Err(settings.unsupported("architecture", expected, remedy));
            }
            _ => {
                self.assumed.push("activation: exact GELU".into());
                Activation::Gelu
            }
        };
        let Some(settings) = self.settings else { return Ok(()) };
        for key in FOREIGN.map(|key| format!("model_args.{key}")) {
            if settings.get(&key).is_some_and(|v| v.as_bool() != Some(false)) {
                let remedy = "planish serves plain Vision Transformers only";
                return Err(settings.unsupported(&key, "nothing", remedy));
            }
        }
        let key = "model_args.pool_include_prefix";
        if settings.flag(key)? == Some(true) && config.prefix_tokens() > 0 {
            return Err(settings.unsupported(key, "false", "planish averages over patches only"));
        }
        Ok(())
    }
}
