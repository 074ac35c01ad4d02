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
use crate::checkpoint::Checkpoint;
use crate::data::Roles;
use crate::error::{Error, Result};
use crate::lora::{Adapters, Base};
use crate::models::{Layer, Weights};
use crate::objective::{Activations, Examples, Objective};
use crate::options::{self, Limit};
use crate::train::recipe::Recipe;
use crate::train::run::{Outcome, TrainEvent, TrainSettings};
use crate::train::{
    Keep, LoraOptions, MethodArgs, MethodName, MethodOptions, PresetOptions, Source, TrainArgs,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Identifier and version of a post-training report's schema.
pub const POST_TRAINING: &str = "planish/post-train/1";

/// Number of validation images that each epoch is evaluated on: enough to see the trend.
pub const WATCHED: usize = 1000;

/// Options of post-training: everything a run depends on besides the model, the data and the seed.
///
/// They are the flags of `post-train`. What is not given comes from the preset if there is one, else from
/// the defaults. [`PostTrainOptions::method()`] and [`PresetOptions::train_on`] fill it in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct PostTrainOptions {
    /// Post-training method [default: the preset's, else pol]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, help_heading = "Tuning options", display_order = 0)
    )]
    pub method: Option<MethodName>,
    /// Options of the method.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub of_method: MethodArgs,
    /// Published settings.
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
    pub train: TrainArgs,
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
    /// A method with defaults for all other options. All options of the method count as given, so a
    /// preset does not change them.
    pub fn new(method: MethodOptions) -> Self {
        Self::default().with_method(&method)
    }

    /// The same options with another method, whose options all count as given.
    pub(crate) fn with_method(&self, method: &MethodOptions) -> Self {
        Self { method: Some(method.name()), of_method: MethodArgs::from(method), ..self.clone() }
    }

    /// The method with all its options.
    ///
    /// # Errors
    /// Those of [`MethodArgs::method`].
    pub fn method(&self) -> std::result::Result<MethodOptions, options::Error> {
        let name = self.preset.method(self.method);
        self.preset.fill(&self.of_method, name).method(name)
    }

    /// Rejects values out of range and options without effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> std::result::Result<(), options::Error> {
        let train = self.preset.train(&self.train);
        train.check()?;
        self.cache.check()?;
        if train.nesterov && train.momentum == 0.0 {
            let (option, applies_to) = ("nesterov".into(), "`momentum` above 0".into());
            return Err(options::Error::NoEffect { option, applies_to });
        }
        self.method().map(|_| ())
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

/// The result of [`train()`].
pub struct TrainedRecipe {
    /// The selected weights, with adapters merged, and the history of epochs.
    pub outcome: Outcome,
    /// The selected weights of the network with adapters, if adapters were trained.
    pub of_adapters: Option<Weights>,
}

/// Trains one recipe from `model`, or these adapters of its layers, on a source that starts at the
/// recipe's lowest layer.
///
/// # Errors
/// Those of [`crate::train::run::train`].
pub fn train(
    model: &Objective,
    recipe: &Recipe,
    adapters: Option<&Adapters>,
    source: &Source,
    watched: Option<&Activations>,
    settings: &TrainSettings,
    tell: &mut dyn FnMut(TrainEvent),
) -> Result<TrainedRecipe> {
    let watched = watched.map(|watched| watched as &dyn Examples);
    let adapted = adapters.map(|adapters| adapters.of(model, recipe));
    let (own, recipe) = match &adapted {
        Some((own, recipe)) => (own, recipe),
        None => (model, recipe),
    };
    let mut method = recipe.build(&own.network, source.len(), settings.seed)?;
    let mut outcome = crate::train::run::train(own, &mut *method, source, watched, settings, tell)?;
    let mut of_adapters = None;
    if let Some(adapters) = adapters {
        let merged = adapters.merged(&model.network, &outcome.weights)?;
        of_adapters = Some(std::mem::replace(&mut outcome.weights, merged));
    }
    Ok(TrainedRecipe { outcome, of_adapters })
}

/// The model that gets a recipe's adapters.
fn base(checkpoint: &Checkpoint) -> Base<'_> {
    Base {
        checkpoint,
        network: &checkpoint.network,
        weights: &checkpoint.weights,
        new_head: false,
        option: "update",
    }
}

/// The recipe's adapters, if it has any.
///
/// # Errors
/// Those of [`Adapters::prepare`].
fn adapters(recipe: &Recipe, checkpoint: &Checkpoint, seed: u64) -> Result<Option<Adapters>> {
    let layers = std::slice::from_ref(&recipe.update);
    Adapters::prepare(&recipe.lora, &base(checkpoint), layers, seed)
}

/// Checks, before any work, that these layers can get adapters, if the options ask for them.
///
/// # Errors
/// Those of [`Adapters::prepare`].
pub fn check_adapters(lora: &LoraOptions, update: &Layer, checkpoint: &Checkpoint) -> Result<()> {
    Adapters::check(lora, &base(checkpoint), std::slice::from_ref(update))
}
