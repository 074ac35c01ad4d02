//! The result of `post-train`: schema `planish/post-train/1`.

use crate::cache::CacheInfo;
use crate::checkpoint::CheckpointInfo;
use crate::data::{DamagedFile, DataInfo};
use crate::evaluate::PredictionsInfo;
use crate::forecast::Expected;
use crate::post_train::search::Search;
use crate::run::Run;
use crate::train::result::{
    Augmentation, BeforeAfter, LayerBeforeAfter, MethodInfo, Output, Selection,
};
use crate::train::run::{Epoch, TrainSettings};
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/post-train/1";

/// Time of the run and of its parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimedRun {
    /// Command, seed, seconds, memory, host, date.
    #[serde(flatten)]
    pub run: Run,
    /// Median over epochs, steps alone.
    pub seconds_per_epoch: f64,
    /// Peak memory of the process when training ended.
    pub training_peak_mib: Option<u64>,
    /// Seconds that the prefix's activations took, once; 0 where they were not cached.
    pub cache_seconds: f64,
    /// Where they were kept.
    pub cache: CacheInfo,
    /// What was expected before it started; nothing under `--quiet`.
    pub forecast: Option<Expected>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// How the report came about.
    pub run: TimedRun,
    /// The model that went in.
    pub checkpoint: CheckpointInfo,
    /// The file that came out; nothing where the guard refused to write one.
    pub output: Option<Output>,
    /// What was done.
    pub method: MethodInfo,
    /// Shared settings.
    pub settings: TrainSettings,
    /// The training images.
    pub training: DataInfo,
    /// Images in a micro-batch of a step; no result depends on it but by rounding.
    pub micro_batch: usize,
    /// Whether blocks were computed again on the way back, to keep within a bound on memory.
    #[serde(default)]
    pub recompute: bool,
    /// What products took their operands in while it was trained: `f32` or `bf16`. Figures are of
    /// f32.
    pub precision: String,
    /// Whether the frozen prefix's activations were kept.
    pub cached: bool,
    /// The search that chose the method and its settings, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// How training images were augmented, if they were.
    pub augmentation: Option<Augmentation>,
    /// One line an epoch.
    pub epochs: Vec<Epoch>,
    /// Which weights were kept, and how they were judged.
    pub selection: Selection,
    /// V, which chose the plan, the epoch and the temperature.
    pub validation: Option<BeforeAfter>,
    /// Test, read once, and only if a file was written.
    pub test: Option<BeforeAfter>,
    /// The tuned model's logits on test, if they were saved.
    #[serde(default)]
    pub predictions: Option<PredictionsInfo>,
    /// p and u, measured on V before and after.
    pub layers: Vec<LayerBeforeAfter>,
    /// Names of the classes, where checkpoint or data have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_names: Option<Vec<String>>,
    /// Damaged image files that were used as they decode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// What a reader should know.
    pub notes: Vec<String>,
}
