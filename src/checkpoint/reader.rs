//! Combines configuration, options and layout of any library.

use super::layout::Family;
use super::settings::Settings;
use super::timm_names::{self, Named};
use super::{Error, Layout, Load, timm_config, torchvision, transformers_config};
use crate::models::arch::usual_heads;
use crate::models::vit::Config;
use std::fmt::Debug;
use std::path::Path;

/// The library whose settings a configuration has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// timm. Also used without a configuration.
    Timm,
    /// transformers'.
    Transformers,
}

impl Dialect {
    /// Decides by the keys of the configuration; without a configuration or telling keys, by the
    /// layout.
    pub fn of(settings: Option<&Settings>, layout: Layout) -> Dialect {
        let has = |keys: &[&str]| {
            settings.is_some_and(|found| keys.iter().any(|key| found.get(key).is_some()))
        };
        if has(&["architecture", "pretrained_cfg", "model_args"]) {
            Dialect::Timm
        } else if has(&["model_type", "architectures", "hidden_size"]) || layout.is_transformers() {
            Dialect::Transformers
        } else {
            Dialect::Timm
        }
    }
}

/// Refuses a configuration of a network that planish does not compute. Called before the tensors
/// are examined, because errors about tensor names would be less clear.
///
/// # Errors
/// [`Error::NotComputed`].
pub(super) fn check_network(settings: &Settings, family: Family) -> Result<(), Error> {
    timm_names::check(settings)?;
    if family != Family::Vit {
        return Ok(());
    }
    timm_config::check_arguments(settings)?;
    transformers_config::check_names(settings)
}

/// All inputs for the configuration of one checkpoint.
pub(super) struct Reader<'a> {
    /// The checkpoint.
    pub path: &'a Path,
    /// Layout of its tensor names.
    pub layout: Layout,
    /// Library of its configuration.
    pub dialect: Dialect,
    /// Its configuration, if it has one.
    pub settings: Option<&'a Settings>,
    /// Its `preprocessor_config.json`, if it has one.
    pub images: Option<&'a Settings>,
    /// The user's options.
    pub overrides: &'a Load,
    /// Assumptions made so far.
    pub assumed: Vec<String>,
}

impl Reader<'_> {
    /// Completes the configuration of the tensors with that of the configuration file and the
    /// options.
    ///
    /// # Errors
    /// Contradictions, unsupported settings, and an unknown number of heads.
    pub fn complete(&mut self, mut config: Config, rows: usize) -> Result<Config, Error> {
        if let Some(settings) = self.settings {
            let (key, shown, tensor) = ("model_type", self.layout.name(), "their names");
            let kinds = transformers_config::model_types(self.layout);
            if let Some(stated) = settings.text(key)?.filter(|stated| !kinds.contains(stated)) {
                return Err(self.contradiction(&settings.place, key, stated, shown, tensor));
            }
        }
        match self.layout {
            Layout::TransformersDinov2 => return self.complete_dinov2(config, rows),
            Layout::TransformersClip | Layout::TransformersSiglip => {
                return self.complete_clip(config, rows);
            }
            _ => {}
        }
        self.check_patch_size(config.patch_size)?;
        let transformers = self.settings.filter(|_| self.dialect == Dialect::Transformers);
        match transformers {
            Some(settings) => self.check_transformers(&config, settings)?,
            None => self.check_structure(&config)?,
        }
        self.grid(&mut config, rows)?;
        self.heads(&mut config)?;
        match transformers {
            Some(settings) => self.transformers_arithmetic(&mut config, settings)?,
            None => {
                self.pooling(&mut config)?;
                self.arithmetic(&mut config)?;
            }
        }
        Ok(config)
    }

    /// The architecture's name in the configuration.
    pub fn architecture(&self) -> Result<Option<&str>, Error> {
        match self.dialect {
            Dialect::Timm => self.settings.map_or(Ok(None), |s| s.text("architecture")),
            Dialect::Transformers => {
                let list = self.settings.and_then(|s| s.get("architectures"));
                Ok(list.and_then(|list| list.get(0)?.as_str()))
            }
        }
    }

    /// What timm's name of the architecture implies, if the configuration has one.
    pub(super) fn named(&self) -> Result<Option<Named>, Error> {
        Ok(match self.dialect {
            Dialect::Timm => self.architecture()?.map(Named::new),
            Dialect::Transformers => None,
        })
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

    /// Checks the option `patch_size` against the tensors.
    pub(super) fn check_patch_size(&self, shown: [usize; 2]) -> Result<(), Error> {
        let tensor = "the patch projection";
        match self.overrides.patch_size.filter(|&stated| stated != shown) {
            Some(stated) => {
                Err(self.contradiction("`patch_size`", "patch size", stated, shown, tensor))
            }
            None => Ok(()),
        }
    }

    /// Refuses the option `heads` for a model without attention.
    pub(super) fn refuse_heads(&self) -> Result<(), Error> {
        match self.overrides.heads {
            None => Ok(()),
            Some(heads) => Err(Error::Option {
                option: "heads",
                expected: "nothing, since the model has no attention".into(),
                found: heads.to_string(),
                remedy: "omit the option",
            }),
        }
    }

    /// Heads from the option, the arguments or the architecture's name, in this order. Norms of queries
    /// and keys show them, too.
    pub(super) fn heads(&mut self, config: &mut Config) -> Result<(), Error> {
        let named = self.named()?.and_then(|named| named.heads());
        let key = match self.dialect {
            Dialect::Timm => "model_args.num_heads",
            Dialect::Transformers => "num_attention_heads",
        };
        let stated = match self.settings {
            Some(settings) => settings.count(key)?,
            None => None,
        };
        let shown = config.qk_norm.then_some(config.heads);
        let published = match self.layout {
            Layout::Torchvision => {
                torchvision::published_heads(config.dim, config.depth, config.mlp_dim)
            }
            _ => None,
        };
        let (place, heads) = match (self.overrides.heads, stated.or(named), published) {
            (Some(heads), ..) => ("`heads`", heads),
            (None, Some(heads), _) => (self.settings.map_or("", |s| s.place.as_str()), heads),
            (None, None, _) if shown.is_some() => ("the tensors", config.heads),
            (None, None, Some(heads)) => {
                self.assumed
                    .push(format!("heads: {heads}, as in torchvision's model of this size"));
                ("torchvision", heads)
            }
            (None, None, None) => {
                let usual = usual_heads(config.dim);
                return Err(Error::HeadsUnknown {
                    path: self.path.to_path_buf(),
                    suggestion: match usual {
                        Some(n) => {
                            format!("set `heads`; models of width {} usually have {n}", config.dim)
                        }
                        None => format!("set `heads` to a divisor of the width {}", config.dim),
                    },
                });
            }
        };
        if let (Some(flag), Some(file)) = (self.overrides.heads, stated.or(named))
            && flag != file
        {
            return Err(Error::Option {
                option: "heads",
                expected: format!("{file}, as in the checkpoint's configuration"),
                found: flag.to_string(),
                remedy: "omit the option",
            });
        }
        if let Some(shown) = shown.filter(|&shown| shown != heads) {
            let tensor = "`blocks.*.attn.q_norm`";
            return Err(self.contradiction(place, "heads", heads, shown, tensor));
        }
        if heads == 0 || !config.dim.is_multiple_of(heads) {
            let shown = format!("a width of {}, not a multiple of it", config.dim);
            return Err(self.contradiction(place, "heads", heads, shown, "`attn.qkv.weight`"));
        }
        config.heads = heads;
        Ok(())
    }
}
