//! One training run: a method on layers, with options and a seed.

use crate::cache::CacheOptions;
use crate::data::Augment;
use crate::engine::Precision;
use crate::objective::Objective;
use crate::train::recipe::Recipe;
use crate::train::run::TrainSettings;
use crate::train::{Keep, StopRule, TrainOptions};

/// One training run.
#[derive(Clone, Debug)]
pub struct TrialSpec {
    /// The method and its layers.
    pub recipe: Recipe,
    /// Training options.
    pub train: TrainOptions,
    /// Where frozen activations are kept.
    pub cache: CacheOptions,
    /// Which weights to keep.
    pub keep: Keep,
    /// Seed of B, B′ and γ.
    pub seed: u64,
}

/// Key that two runs must share to reuse each other's frozen activations.
#[derive(Clone, Debug, PartialEq)]
pub struct FrozenKey {
    stage: usize,
    cache: CacheOptions,
    precision: Precision,
    micro_batch: Option<usize>,
    augment: Augment,
    views: usize,
}

impl TrialSpec {
    /// A short name: `pol head → norm`.
    pub fn called(&self) -> String {
        let Recipe { method, perturb, update, lora, .. } = &self.recipe;
        let perturbed = perturb.as_ref().map_or(String::new(), |p| format!("{} → ", p.name));
        let adapters = lora.title().map_or(String::new(), |title| format!("{title} → "));
        format!("{} {perturbed}{adapters}{}", method.name(), update.name)
    }

    /// The control: plain SGD on the same layers, batches and settings.
    pub fn control(&self) -> TrialSpec {
        TrialSpec { recipe: self.recipe.control(), ..self.clone() }
    }

    /// The settings of the loop.
    pub fn settings(&self) -> TrainSettings {
        settings(&self.train, self.keep, self.seed)
    }

    /// Key that two runs must share to reuse each other's frozen activations.
    pub fn frozen_key(&self) -> FrozenKey {
        FrozenKey {
            stage: self.recipe.first_stage(),
            cache: self.cache.clone(),
            precision: self.train.precision,
            micro_batch: self.train.micro_batch().map(|n| n.min(self.train.batch_size)),
            augment: self.train.augment,
            views: views(&self.train),
        }
    }

    /// The model with this run's label smoothing, precision and micro-batch size.
    pub fn model(&self, model: &Objective) -> Objective {
        self.train.configured(model)
    }
}

/// The settings of the loop.
pub fn settings(train: &TrainOptions, keep: Keep, seed: u64) -> TrainSettings {
    train.settings(train.sgd(), keep, StopRule::Exploded, seed)
}

/// The model for training steps whose batches enter at `stage`. It uses larger micro-batches,
/// unless the options set a size or memory is limited.
pub fn stepping(model: &Objective, train: &TrainOptions, bounded: bool, stage: usize) -> Objective {
    match train.micro_batch() {
        None if !bounded => model.for_stage(stage, train.batch_size),
        _ => model.clone(),
    }
}

/// Number of views per training image.
pub fn views(train: &TrainOptions) -> usize {
    match train.augment == Augment::default() {
        true => 1,
        false => train.views.unwrap_or(train.epochs).max(1),
    }
}
