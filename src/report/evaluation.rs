//! The report of `eval`.

use crate::checkpoint::CheckpointInfo;
use crate::data::{DamagedFile, DataInfo};
use crate::evaluate::PredictionsInfo;
use crate::evaluate::Summary;
use crate::run::RunInfo;
use crate::shift::{Other, Shifts};
use serde::{Deserialize, Serialize};

pub use crate::session::evaluate::EVALUATION;

/// Figures of one checkpoint on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// [`EVALUATION`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: RunInfo,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The images.
    pub data: DataInfo,
    /// The figures; losses in nats per image.
    pub figures: Summary,
    /// Type of the operands of matrix products: `f32` or `bf16`.
    pub precision: String,
    /// Images on which the temperature was fitted.
    pub temperature_origin: String,
    /// The logits, if they were saved.
    #[serde(default)]
    pub predictions: Option<PredictionsInfo>,
    /// Results on corrupted versions of the images.
    #[serde(default)]
    pub shifts: Option<Shifts>,
    /// Results of out-of-distribution detection.
    #[serde(default)]
    pub others: Vec<Other>,
    /// Damaged image files that were decoded in part and used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// Warnings.
    pub warnings: Vec<String>,
}
