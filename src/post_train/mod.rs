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
pub use figures::Figures;
pub use flips::flips;
pub use forecast::{Outlook, outlook_line};
pub use frozen::FrozenLayers;
pub use judge::{Case, Judged, judge};
pub use record::method_info;
pub use run::{FrozenKey, Run, configured, settings, stepping, views};
pub use score::{Compared, Side, Unusable};
pub use search::search;
pub use session::{PostTrainSession, PostTrained, Preview, Trained};
pub use trials::{Finished, Trial, Trials};

use crate::cache::CacheOptions;
use crate::data::Roles;
use crate::error::{Error, Result};
use crate::lora::LoraOptions;
use crate::objective::{Activations, Examples, Objective};
use crate::train::recipe::Recipe;
use crate::train::run::{Outcome, TrainEvent, TrainSettings};
use crate::train::{Keep, MethodOptions, Source, TrainOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Identifier and version of a post-training report's schema.
pub const POST_TRAINING: &str = "planish/post-train/1";

/// Number of validation images that each epoch is evaluated on: enough to see the trend.
pub const WATCHED: usize = 1000;

/// Options of post-training: everything a run depends on besides the model, the data and the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostTrainOptions {
    /// The method and its layers.
    pub method: MethodOptions,
    /// Training options.
    pub train: TrainOptions,
    /// Low-rank adapters, of the linear layers of the layers to update.
    #[serde(default)]
    pub lora: LoraOptions,
    /// Where frozen activations are kept.
    pub cache: CacheOptions,
    /// Which weights to keep. Default: the best if there are validation images, else the last.
    pub keep: Option<Keep>,
    /// Seed of B, B′ and γ. Default: the session's seed.
    pub train_seed: Option<u64>,
    /// A diagnosis report whose plan names the layers. Without it, a diagnosis is made if needed.
    pub plan: Option<PathBuf>,
    /// Number of validation images for the diagnosis. Default: all.
    pub samples: Option<usize>,
    /// Number of validation images on which to measure ΔL and κ of the layers before and after; 0
    /// disables this. Default: as many as `samples`.
    pub remeasure: Option<usize>,
    /// File for the tuned model's logits on test.
    pub dump: Option<PathBuf>,
    /// Write the result even if it is worse than the input on V.
    pub force: bool,
    /// Memory limit of the process, MiB.
    pub memory_mib: Option<f64>,
}

impl PostTrainOptions {
    /// A method with defaults for all other options.
    pub fn new(method: MethodOptions) -> Self {
        Self {
            method,
            train: TrainOptions::default(),
            lora: LoraOptions::default(),
            cache: CacheOptions::default(),
            keep: None,
            train_seed: None,
            plan: None,
            samples: None,
            remeasure: None,
            dump: None,
            force: false,
            memory_mib: None,
        }
    }

    /// Rejects values out of range and options without effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> std::result::Result<(), crate::options::Error> {
        self.train.check()?;
        self.cache.check()?;
        self.lora.check()?;
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
