//! The result of `bench`: schema `planish/bench/1`.

use crate::cache::CacheInfo;
use crate::checkpoint::CheckpointInfo;
use crate::data::DamagedFile;
use crate::evaluate::{Comparison, Estimate};
use crate::run::Run;
use crate::train::result::{LayerBeforeAfter, SamInfo};
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/bench/1";

/// One row: a method on its layers, over seeds. Standard errors are over seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What the row is called.
    pub name: String,
    /// `pol`, `pof`, `sam`, `asam`, `looksam`, `sam-norm` or `sgd`; nothing for the untouched
    /// model.
    pub method: Option<String>,
    /// p.
    pub perturb: Option<String>,
    /// u.
    pub update: Option<String>,
    /// What SAM does.
    pub sam: Option<SamInfo>,
    /// Test NLL, nats.
    pub nll: Estimate,
    /// Test NLL after a temperature fitted on V.
    pub calibrated_nll: Estimate,
    /// Runs whose loss on V has no minimum in T.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub temperatures_at_bound: usize,
    /// Share of test images whose label has the largest logit.
    pub top1: Estimate,
    /// Expected calibration error, 15 bins of equal width.
    pub ece: Estimate,
    /// Validation NLL.
    pub validation_nll: Option<Estimate>,
    /// Mean ‖Δw_p‖/‖w_p‖ over steps; nothing for a layer that was all zeros.
    pub perturbation: Option<Estimate>,
    /// Mean ‖Δw_p‖ over steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perturbation_length: Option<Estimate>,
    /// Share of perturbations that the cap shortened.
    pub capped: Option<Estimate>,
    /// Mean loss of the last epoch's batches, under perturbation if any.
    pub training_loss: Option<Estimate>,
    /// Name of the row that is its control.
    pub control: Option<String>,
    /// Runs that the guard stopped; they count with the weights of the last sound epoch before.
    pub stopped: usize,
    /// NLL of this row's control minus its own, paired by seed: positive is better.
    pub gain_over_control: Option<Estimate>,
    /// The same for the calibrated NLL.
    pub calibrated_gain_over_control: Option<Estimate>,
    /// This row against its control, image by image, both at the first seed: A is the control.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// ΔL and κ of p and u on V before and after, at the first seed.
    pub layers: Vec<LayerBeforeAfter>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Time and memory of a row, which differ from run to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// The row.
    pub name: String,
    /// Seconds an epoch.
    pub seconds_per_epoch: Estimate,
    /// Peak memory of the process that trained.
    pub peak_mib: Option<Estimate>,
    /// Where the frozen layers' activations came from, run by run.
    pub cache: Vec<CacheInfo>,
}

/// The `run` object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimedRun {
    /// Command, seed, seconds, memory, host, date.
    #[serde(flatten)]
    pub run: Run,
    /// One entry a trained row.
    pub costs: Vec<Cost>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// How the report came about.
    pub run: TimedRun,
    /// Damaged image files that some run used as they decode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// The model that every row starts from.
    pub checkpoint: CheckpointInfo,
    /// Training seeds.
    pub seeds: Vec<u64>,
    /// Options that all rows share.
    pub settings: serde_json::Value,
    /// Where p and u of PoL come from; nothing without PoL.
    pub plan: Option<String>,
    /// The rows.
    pub rows: Vec<Row>,
    /// What the rows establish, a sentence for each method.
    pub verdicts: Vec<String>,
}
