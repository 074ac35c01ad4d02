//! The result of `post-train`: schema `planish/post-train/1`.

use super::diagnosis::LayerResult;
use super::{CheckpointInfo, DataInfo};
use crate::evaluate::{Estimate, Summary};
use crate::run::Run;
use crate::train::post::{Epoch, Settings};
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/post-train/1";

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// `pol`, `pof` or `sgd`.
    pub name: String,
    /// p, if anything is perturbed.
    pub perturb: Option<String>,
    /// u.
    pub update: String,
    /// Γ, if anything is perturbed.
    pub gamma_max: Option<f64>,
    /// Examples in B′, if anything is perturbed.
    pub perturbation_batch: Option<usize>,
    /// `search` or `newton`, if anything is perturbed.
    pub step: Option<String>,
    /// Where p and u come from.
    pub chosen_by: String,
}

/// Figures of one split.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// The split and where it comes from.
    pub data: DataInfo,
    /// At w*.
    pub before: Summary,
    /// After post-training.
    pub after: Summary,
    /// Paired difference of NLL, before − after: positive is better.
    pub nll_gain: Estimate,
    /// The same after a temperature on either side.
    pub calibrated_nll_gain: Estimate,
}

/// A layer's measurements at w* and after.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerBeforeAfter {
    /// At w*.
    pub before: LayerResult,
    /// After post-training.
    pub after: LayerResult,
}

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
    /// The file that came out.
    pub output: String,
    /// What was done.
    pub method: MethodInfo,
    /// Shared settings.
    pub settings: Settings,
    /// The training images.
    pub training: DataInfo,
    /// Whether the frozen prefix's activations were kept in memory.
    pub cached: bool,
    /// One line an epoch.
    pub epochs: Vec<Epoch>,
    /// V, which chose the plan and the temperature.
    pub validation: Option<BeforeAfter>,
    /// Test, read once.
    pub test: Option<BeforeAfter>,
    /// p and u, measured on V before and after.
    pub layers: Vec<LayerBeforeAfter>,
    /// What a reader should know.
    pub notes: Vec<String>,
}
