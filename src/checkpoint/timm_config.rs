//! timm's configuration held against the tensors, and what neither says.

use super::settings::Settings;
use super::{Error, Overrides};
use crate::vit::arch::{TIMM_CLIP_EPS, pooling_name, usual_heads};
use crate::vit::{Activation, Config, FinalNorm, Pooling};
use std::fmt::Debug;
use std::path::Path;

/// Sizes in timm's architecture names and their heads.
const HEADS: [(&str, usize); 4] = [("tiny", 3), ("small", 6), ("base", 12), ("large", 16)];

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

/// Everything that bears on the configuration of one checkpoint.
pub(super) struct Reader<'a> {
    /// The checkpoint.
    pub path: &'a Path,
    /// Its configuration, if it has one.
    pub settings: Option<&'a Settings>,
    /// The user's word.
    pub overrides: &'a Overrides,
    /// What neither says; recorded here.
    pub assumed: Vec<String>,
}

impl Reader<'_> {
    /// Completes what the tensors said with what configuration and flags say.
    ///
    /// # Errors
    /// Contradictions, settings that cannot be served, and an unknown number of heads.
    pub fn complete(&mut self, mut config: Config, rows: usize) -> Result<Config, Error> {
        self.check_structure(&config)?;
        self.grid(&mut config, rows)?;
        self.heads(&mut config)?;
        self.pooling(&mut config)?;
        self.arithmetic(&mut config)?;
        Ok(config)
    }

    /// The architecture's name in the configuration.
    pub fn architecture(&self) -> Result<Option<&str>, Error> {
        self.settings.map_or(Ok(None), |s| s.text("architecture"))
    }

    pub(super) fn contradiction(
        &self,
        place: &str,
        key: &'static str,
        stated: impl Debug,
        shown: impl Debug,
        tensor: &'static str,
    ) -> Error {
        Error::Contradiction {
            path: self.path.to_path_buf(),
            place: place.into(),
            key,
            stated: format!("{stated:?}").into(),
            shown: format!("{shown:?}").into(),
            tensor,
        }
    }

    /// What the configuration may state and the tensors show.
    fn check_structure(&self, config: &Config) -> Result<(), Error> {
        let patch = self.overrides.patch_size;
        if let Some(stated) = patch.filter(|&stated| stated != config.patch_size) {
            let shown = config.patch_size;
            let tensor = "`patch_embed.proj.weight`";
            return Err(self.contradiction("--patch-size", "patch size", stated, shown, tensor));
        }
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

    /// Heads from the flag, the arguments or the architecture's name, in this order.
    fn heads(&mut self, config: &mut Config) -> Result<(), Error> {
        let named = self.architecture()?.and_then(|name| {
            let mut words = name.split('_');
            let family = words.next()?;
            let size = words.next()?;
            let known = ["vit", "deit", "deit3", "flexivit"].contains(&family);
            HEADS.iter().find(|(word, _)| known && *word == size).map(|&(_, heads)| heads)
        });
        let stated = match self.settings {
            Some(settings) => settings.count("model_args.num_heads")?,
            None => None,
        };
        let (place, heads) = match (self.overrides.heads, stated, named) {
            (Some(heads), ..) => ("--heads", heads),
            (None, Some(heads), _) | (None, None, Some(heads)) => {
                (self.settings.map_or("", |s| s.place.as_str()), heads)
            }
            (None, None, None) => {
                let usual = usual_heads(config.dim);
                return Err(Error::HeadsUnknown {
                    path: self.path.to_path_buf(),
                    suggestion: match usual {
                        Some(n) => {
                            format!("give --heads; models of width {} usually have {n}", config.dim)
                        }
                        None => format!("give --heads, a divisor of the width {}", config.dim),
                    },
                });
            }
        };
        if let (Some(flag), Some(file)) = (self.overrides.heads, stated)
            && flag != file
        {
            return Err(Error::Setting {
                place: "--heads".into(),
                key: "heads".into(),
                expected: format!("{file}, as the checkpoint's configuration says"),
                found: flag.to_string(),
                remedy: "leave the flag out".into(),
            });
        }
        if heads == 0 || !config.dim.is_multiple_of(heads) {
            let shown = format!("a width of {}, not a multiple of it", config.dim);
            return Err(self.contradiction(place, "heads", heads, shown, "`attn.qkv.weight`"));
        }
        config.heads = heads;
        Ok(())
    }

    fn pooling(&mut self, config: &mut Config) -> Result<(), Error> {
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
                let mean = !config.class_token || config.final_norm == FinalNorm::AfterPool;
                let pooling = if mean { Pooling::Mean } else { Pooling::Token };
                self.assumed.push(format!("pooling: {}", pooling_name(pooling)));
                pooling
            }
        };
        if config.pooling == Pooling::Token && !config.class_token {
            let place = self.settings.map_or("", |s| s.place.as_str());
            return Err(self.contradiction(place, "global_pool", "token", "none", "`cls_token`"));
        }
        Ok(())
    }

    /// Activation and ε, which leave no trace in the tensors.
    fn arithmetic(&mut self, config: &mut Config) -> Result<(), Error> {
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
