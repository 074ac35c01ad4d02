//! Result types of a bench.

use super::{Answers, EpochZero};
use crate::cache::CacheInfo;
use crate::data::DamagedFile;
use crate::evaluate::Estimate;
use crate::post_train::result::{LayerBeforeAfter, SamInfo};
use crate::train::{LoraOptions, TrainOptions};
use serde::{Deserialize, Serialize};

/// The result of a bench.
#[derive(Clone, Debug)]
pub struct BenchResult {
    /// Training seeds.
    pub seeds: Vec<u64>,
    /// Origin of the layers of PoL and of adapters; `None` without these methods.
    pub plan: Option<String>,
    /// The training options of all rows.
    pub train: TrainOptions,
    /// The rows, the untuned model first.
    pub rows: Vec<RowResult>,
    /// Time and memory of each trained row.
    pub costs: Vec<Cost>,
    /// Verdicts on the perturbation by calibrated NLL, one sentence per method.
    pub verdicts: Vec<String>,
    /// Damaged image files that any run decoded in part and used.
    pub damaged: Vec<DamagedFile>,
}

/// One row: a method on its layers, over seeds, after the last epoch. Standard errors are over seeds, those
/// of gains over seeds and test images.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowResult {
    /// Name of the row.
    pub name: String,
    /// A [`MethodName`](crate::train::MethodName); `None` for the untuned model.
    pub method: Option<String>,
    /// The perturbed layer p.
    pub perturb: Option<String>,
    /// The updated layer u.
    pub update: Option<String>,
    /// Options of SAM.
    pub sam: Option<SamInfo>,
    /// Options of the adapters, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraOptions>,
    /// Test NLL in nats.
    pub nll: Estimate,
    /// Test NLL after a temperature fitted on V.
    pub calibrated_nll: Estimate,
    /// Number of runs whose loss on V has no minimum over T.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub temperatures_at_bound: usize,
    /// Top-1 accuracy on test.
    pub top1: Estimate,
    /// Expected calibration error, 15 bins of equal width.
    pub ece: Estimate,
    /// Validation NLL.
    pub validation_nll: Option<Estimate>,
    /// Mean ‖Δw_p‖/‖w_p‖ over steps; `None` if the layer was all zeros.
    pub perturbation: Option<Estimate>,
    /// Mean ‖Δw_p‖ over steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perturbation_length: Option<Estimate>,
    /// Share of perturbations that were shortened by the cap.
    pub capped: Option<Estimate>,
    /// Share of steps without a perturbation, because the loss had no minimum along the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Estimate>,
    /// Mean loss over the batches of the last epoch, at the perturbed weights if the method
    /// perturbs.
    pub training_loss: Option<Estimate>,
    /// Name of its control's row.
    pub control: Option<String>,
    /// Number of runs stopped by the guard. They count with the weights of the last good epoch.
    pub stopped: usize,
    /// NLL of the control minus NLL of this row, paired by seed; positive is better. In reports of earlier
    /// versions, its error is over seeds alone.
    pub gain_over_control: Option<Estimate>,
    /// The same for the calibrated NLL.
    pub calibrated_gain_over_control: Option<Estimate>,
    /// All gains with their intervals and verdicts; `None` for the untuned model, and in reports of earlier
    /// versions.
    #[serde(default)]
    pub answers: Option<Answers>,
    /// The same with the untuned model as a candidate of every run; `None` without validation images.
    #[serde(default)]
    pub epoch_zero: Option<EpochZero>,
    /// ΔL and κ of p and u on V, before and after, at the first seed.
    pub layers: Vec<LayerBeforeAfter>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Time and memory of a row. These differ between runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// The row.
    pub name: String,
    /// Seconds per epoch.
    pub seconds_per_epoch: Estimate,
    /// Peak memory of the training process.
    pub peak_mib: Option<Estimate>,
    /// Source of the frozen layers' activations, per run.
    pub cache: Vec<CacheInfo>,
}
