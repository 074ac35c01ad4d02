//! Post-training: a method on chosen layers of a fine-tuned checkpoint, guarded and judged.
//!
//! [`PostTrainSession`] prepares a run (it chooses layers, by a diagnosis if needed), forecasts it,
//! trains, judges the result on all of V, saves it and evaluates it on test. [`Trials`] trains many
//! recipes from one checkpoint, for studies and for [`search()`]. Both use the same loop,
//! [`train()`], the same [`FrozenLayers`], and the same [`score`].

mod destination;
mod figures;
mod flips;
mod forecast;
pub mod frozen;
mod judge;
mod record;
pub mod resolve;
pub mod result;
mod run;
pub mod score;
pub mod search;
mod session;
mod trials;

pub use destination::{Destination, Place, read_back};
pub use figures::TunedFigures;
pub use flips::flips;
pub use forecast::{Outlook, outlook_line};
pub use frozen::FrozenLayers;
pub use judge::{Case, Judged, judge};
pub use record::method_info;
pub use run::{FrozenKey, TrialSpec, settings, stepping, views};
pub use score::{Compared, Side, Unusable};
pub use search::search;
pub use session::{PostTrainSession, PostTrained, Preview, TrainedModel};
pub use trials::{Finished, Trial, Trials};

use crate::cache::CacheOptions;
use crate::data::Roles;
use crate::error::{Error, Result};
use crate::lora::LoraOptions;
use crate::objective::{Activations, Examples, Objective};
use crate::options::Limit;
use crate::train::recipe::Recipe;
use crate::train::run::{Outcome, TrainEvent, TrainSettings};
use crate::train::{Keep, MethodOptions, Preset, PresetOptions, Source, TrainOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Identifier and version of a post-training report's schema.
pub const POST_TRAINING: &str = "planish/post-train/1";

/// Number of validation images that each epoch is evaluated on: enough to see the trend.
pub const WATCHED: usize = 1000;

/// Options of post-training: everything a run depends on besides the model, the data and the seed.
///
/// They are the flags of `post-train`. There, `method` is composed of the method's name and
/// [`MethodArgs`](crate::train::MethodArgs).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "cli",
    derive(clap::Args),
    command(mut_args(crate::train::preset::with_defaults))
)]
pub struct PostTrainOptions {
    /// The method and its layers.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub method: MethodOptions,
    /// Published settings. In `method` and `train` they are filled in already: by the command line, or by
    /// [`PostTrainOptions::of_preset`].
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(default)]
    pub preset: PresetOptions,
    /// Use the plan of this `diagnose` report [default: diagnose first]
    #[cfg_attr(feature = "cli", arg(long, value_name = "REPORT", help_heading = "Tuning options"))]
    pub plan: Option<PathBuf>,
    /// Number of validation images for the diagnosis [default: all]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "N", help_heading = "Tuning options", hide_short_help = true)
    )]
    pub samples: Option<usize>,
    /// Training options.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub train: TrainOptions,
    /// Low-rank adapters, of the linear layers of the layers to update.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(default)]
    pub lora: LoraOptions,
    /// Where frozen activations are kept.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub cache: CacheOptions,
    /// Number of validation images for ΔL and κ before and after tuning. [default: all, or --samples]
    ///
    /// ΔL and κ of the perturbed and updated layers are measured before and after tuning. 0 turns
    /// this off.
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "N", help_heading = "Advanced options", hide_short_help = true)
    )]
    pub remeasure: Option<usize>,
    /// Epoch whose weights are kept [default: best; last without validation images]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, help_heading = "Advanced options", hide_short_help = true)
    )]
    pub keep: Option<Keep>,
    /// Write test logits of the tuned model, for `planish compare`.
    ///
    /// The file is safetensors with `logits`, `labels` and `temperature`.
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "FILE", help_heading = "Advanced options", hide_short_help = true)
    )]
    pub dump: Option<PathBuf>,
    /// Write test logits of the input model here, in the same form. A bench needs them.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(default)]
    pub dump_untouched: Option<PathBuf>,
    /// Write the result even if it is worse on the validation images
    #[cfg_attr(
        feature = "cli",
        arg(long, help_heading = "Advanced options", hide_short_help = true)
    )]
    pub write_worse: bool,
    /// Random seed of B, B′ and γ [default: --seed]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "S", help_heading = "Advanced options", hide_short_help = true)
    )]
    pub train_seed: Option<u64>,
    /// Memory limit.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub limit: Limit,
}

impl PostTrainOptions {
    /// A method with defaults for all other options.
    pub fn new(method: MethodOptions) -> Self {
        Self { method, ..Self::default() }
    }

    /// The settings of a publication, with defaults for all other options.
    ///
    /// # Errors
    /// Those of [`MethodArgs::method`](crate::train::MethodArgs::method).
    pub fn of_preset(preset: Preset) -> std::result::Result<Self, crate::options::Error> {
        let name = preset.method();
        let method = preset.method_args(name).method(name)?;
        let of = PresetOptions { preset: Some(preset) };
        Ok(Self { preset: of, train: preset.train(), ..Self::new(method) })
    }

    /// Rejects values out of range and options without effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> std::result::Result<(), crate::options::Error> {
        self.train.check()?;
        self.cache.check()?;
        self.lora.check()?;
        if self.train.nesterov && self.train.momentum == 0.0 {
            let (option, applies_to) = ("nesterov".into(), "`momentum` above 0".into());
            return Err(crate::options::Error::NoEffect { option, applies_to });
        }
        if self.lora.lora.is_some() && !matches!(self.method, MethodOptions::Sgd { .. }) {
            let (option, applies_to) = ("lora".into(), "the method sgd".into());
            return Err(crate::options::Error::NoEffect { option, applies_to });
        }
        self.method.check()
    }

    /// Rejects `dump` without test images.
    fn check_dump(&self, roles: &Roles) -> Result<()> {
        match self.dump.is_some() && roles.test.is_none() {
            true => Err(Error::Missing(
                "`dump` writes logits on test, but there is no test split: set `test_data`".into(),
            )),
            false => Ok(()),
        }
    }
}

/// Trains one recipe from `model`, on a source that starts at the recipe's lowest layer.
///
/// # Errors
/// Those of [`crate::train::run::train`].
pub fn train(
    model: &Objective,
    recipe: &Recipe,
    source: &Source,
    watched: Option<&Activations>,
    settings: &TrainSettings,
    tell: &mut dyn FnMut(TrainEvent),
) -> Result<Outcome> {
    let mut method = recipe.build(&model.network, source.len(), settings.seed)?;
    let watched = watched.map(|watched| watched as &dyn Examples);
    Ok(crate::train::run::train(model, &mut *method, source, watched, settings, tell)?)
}
