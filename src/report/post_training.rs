//! The result of `post-train`: schema `planish/post-train/1`.

use crate::cache::{CacheInfo, CacheMode};
use crate::checkpoint::CheckpointInfo;
use crate::data::{DamagedFile, DataInfo};
use crate::evaluate::PredictionsInfo;
use crate::forecast::Expected;
use crate::post_train::result::{
    Augmentation, BeforeAfter, LayerBeforeAfter, MethodInfo, Output, Selection,
};
use crate::post_train::search::RecipeSearch;
use crate::post_train::{PostTrainSession, PostTrained};
use crate::run::RunInfo;
use crate::session::{checkpoint_info, data_info};
use crate::train::Preset;
use crate::train::run::{Epoch, TrainSettings};
use serde::{Deserialize, Serialize};

pub use crate::post_train::POST_TRAINING as SCHEMA;

/// Time of the run and of its parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimedPostTraining {
    /// Command, seed, seconds, memory, host, date.
    #[serde(flatten)]
    pub run: RunInfo,
    /// Median seconds per epoch, steps only.
    pub seconds_per_epoch: f64,
    /// Peak memory of the process at the end of training.
    pub training_peak_mib: Option<u64>,
    /// Seconds to compute the prefix's activations once; 0 if they were not cached.
    pub cache_seconds: f64,
    /// Where the activations were cached.
    pub cache: CacheInfo,
    /// Forecast made before the start; `None` if no forecast was requested.
    pub forecast: Option<Expected>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostTrainReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// Provenance of the report.
    pub run: TimedPostTraining,
    /// The input model.
    pub checkpoint: CheckpointInfo,
    /// The file written; `None` if the guard rejected the result.
    pub output: Option<Output>,
    /// The method and its layers.
    pub method: MethodInfo,
    /// The publication whose settings were the defaults, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Shared settings.
    pub settings: TrainSettings,
    /// The training images.
    pub training: DataInfo,
    /// Micro-batch size of a step. It affects results only by rounding.
    pub micro_batch: usize,
    /// Whether blocks were recomputed in the backward pass, to stay within the memory limit.
    #[serde(default)]
    pub recompute: bool,
    /// Type of the operands of matrix products in training: `f32` or `bf16`. Figures are computed
    /// in f32.
    pub precision: String,
    /// Whether the frozen prefix's activations were cached.
    pub cached: bool,
    /// The search that chose the method and its settings, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<RecipeSearch>,
    /// Augmentation of training images, if any.
    pub augmentation: Option<Augmentation>,
    /// One entry per epoch.
    pub epochs: Vec<Epoch>,
    /// Which weights were kept, and the criterion.
    pub selection: Selection,
    /// Figures on V, which selected the plan, the epoch and the temperature.
    pub validation: Option<BeforeAfter>,
    /// Figures on test, computed once, and only if a file was written.
    pub test: Option<BeforeAfter>,
    /// The tuned model's logits on test, if they were saved.
    #[serde(default)]
    pub predictions: Option<PredictionsInfo>,
    /// ΔL and κ of p and u, measured on V before and after.
    pub layers: Vec<LayerBeforeAfter>,
    /// Class names, if the checkpoint or the data set contains them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_names: Option<Vec<String>>,
    /// Damaged image files that were decoded in part and used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// Notes.
    pub notes: Vec<String>,
}

impl PostTrainReport {
    /// The report of a run, with the search that chose its recipe and the forecast, if there were any.
    pub fn new(
        run: RunInfo,
        session: &PostTrainSession,
        mut found: PostTrained,
        search: Option<RecipeSearch>,
        forecast: Option<Expected>,
    ) -> Self {
        found.notes.extend(search.as_ref().and_then(RecipeSearch::taken));
        let seconds_per_epoch = found.outcome.seconds_per_epoch();
        let epochs = found.outcome.epochs;
        let CacheInfo { seconds: cache_seconds, mode, .. } = found.cache;
        let checkpoint = &session.checkpoint;
        Self {
            schema: SCHEMA.into(),
            run: TimedPostTraining {
                run,
                seconds_per_epoch,
                training_peak_mib: found.training_peak_mib,
                cache_seconds,
                cache: found.cache,
                forecast,
            },
            checkpoint: checkpoint_info(checkpoint),
            output: found.output,
            method: found.method,
            preset: session.options.preset.preset,
            settings: session.settings.clone(),
            training: data_info(session.data.of(&session.train), &session.train, "train"),
            micro_batch: session.stepping().micro_batch,
            recompute: session.model.checkpointing,
            precision: session.model.precision.name().into(),
            cached: mode != CacheMode::Off,
            search,
            augmentation: session.augmentation(),
            epochs,
            selection: found.selection,
            validation: found.figures.validation,
            test: found.figures.test,
            predictions: found.figures.predictions,
            layers: found.figures.layers,
            class_names: checkpoint
                .class_names
                .clone()
                .or(session.train.class_names().map(<[_]>::to_vec)),
            damaged: found.damaged,
            notes: found.notes,
        }
    }
}
