//! Post-training: a method on chosen layers of a fine-tuned checkpoint, guarded and judged.
//!
//! [`PostTrainSession`] prepares a run (layers chosen, by a diagnosis if need be), forecasts it, trains,
//! judges the result on all of V, saves it and measures it on test. [`Trials`] trains many recipes from one
//! checkpoint, for studies and for [`search()`]. Both run the same loop, [`train()`], over the same
//! [`FrozenLayers`], and score with the same [`Side`].

mod destination;
mod figures;
mod flips;
mod forecast;
pub mod frozen;
mod judge;
mod record;
pub mod resolve;
mod run;
pub mod score;
pub mod search;
mod session;
mod trials;

pub use destination::{Destination, Place};
pub use figures::Figures;
pub use flips::flips;
pub use forecast::{Outlook, outlook_line};
pub use frozen::FrozenLayers;
pub use judge::{Case, Judged, judge};
pub use record::method_info;
pub use run::{FrozenKey, Run, configured, settings, stepping, views};
pub use score::{Gains, Side};
pub use search::search;
pub use session::{PostTrainSession, PostTrained, Preview, Trained};
pub use trials::{Compared, Finished, Trial, Trials};

use crate::cache::CacheOptions;
use crate::checkpoint::{Checkpoint, Error as CheckpointError};
use crate::error::Result;
use crate::objective::{Activations, Examples, Objective};
use crate::train::recipe::Recipe;
use crate::train::run::{Event, Outcome, TrainSettings};
use crate::train::{Keep, MethodOptions, Source, TrainOptions};
use crate::vit::Weights;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Validation images that each epoch is watched on: enough to see where a run goes.
pub const WATCHED: usize = 1000;

/// Everything that a run of post-training depends on, beside the model, the data and the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostTrainOptions {
    /// What is done to which layers.
    pub method: MethodOptions,
    /// How it is trained.
    pub train: TrainOptions,
    /// Where frozen activations are kept.
    pub cache: CacheOptions,
    /// Which weights to keep; without it the best where there are validation images, else the last.
    pub keep: Option<Keep>,
    /// Seed of B, B′ and γ; without it the session's.
    pub train_seed: Option<u64>,
    /// A report of a diagnosis whose plan names the layers; without it one is made if needed.
    pub plan: Option<PathBuf>,
    /// Validation images that a plan is made on; without it all.
    pub samples: Option<usize>,
    /// Validation images on which ΔL and κ of the layers are measured before and after; 0 for none,
    /// without it as many as `samples`.
    pub remeasure: Option<usize>,
    /// Write the result even if it is worse than the input on V.
    pub force: bool,
    /// Bound on the memory of the process, MiB.
    pub memory_mib: Option<f64>,
}

impl PostTrainOptions {
    /// A method with the defaults of everything else.
    pub fn new(method: MethodOptions) -> Self {
        Self {
            method,
            train: TrainOptions::default(),
            cache: CacheOptions::default(),
            keep: None,
            train_seed: None,
            plan: None,
            samples: None,
            remeasure: None,
            force: false,
            memory_mib: None,
        }
    }

    /// Refuses values out of range, and options that have no effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> std::result::Result<(), crate::options::Error> {
        self.train.check()?;
        self.cache.check()?;
        self.method.check()
    }
}

/// Trains one recipe from `model` on a source that starts at the recipe's lowest layer.
///
/// # Errors
/// Those of [`crate::train::run::train`].
pub fn train(
    model: &Objective,
    recipe: &Recipe,
    source: &Source,
    watched: Option<&Activations>,
    settings: &TrainSettings,
    tell: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let mut method = recipe.method(&model.config, source.len(), settings.seed)?;
    let watched = watched.map(|watched| watched as &dyn Examples);
    Ok(crate::train::run::train(model, &mut *method, source, watched, settings, tell)?)
}

/// The weights as the checkpoint's file stores them: rounding to its types is part of the result.
/// Nothing, and why, where they do not fit these types.
///
/// # Errors
/// Those of [`Checkpoint::as_stored`] but for an overflow.
pub fn as_stored(
    checkpoint: &Checkpoint,
    weights: &Weights,
) -> Result<(Option<Weights>, Option<String>)> {
    match checkpoint.as_stored(weights) {
        Ok(stored) => Ok((Some(stored), None)),
        Err(error @ CheckpointError::Overflow { .. }) => Ok((None, Some(error.to_string()))),
        Err(error) => Err(error.into()),
    }
}
