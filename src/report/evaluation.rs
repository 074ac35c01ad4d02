//! What `eval` reports.

use crate::checkpoint::CheckpointInfo;
use crate::data::{DamagedFile, DataInfo};
use crate::evaluate::PredictionsInfo;
use crate::evaluate::Summary;
use crate::run::Run;
use crate::shift::{Other, Shifts};
use serde::{Deserialize, Serialize};

/// Schema of [`Evaluation`].
pub const EVALUATION: &str = "planish/evaluation/1";

/// Figures of one checkpoint on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// [`EVALUATION`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: Run,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The images.
    pub data: DataInfo,
    /// The figures; losses in nats per image.
    pub figures: Summary,
    /// What products took their operands in: `f32` or `bf16`.
    pub precision: String,
    /// Which images the temperature was fitted on.
    pub temperature_origin: String,
    /// The logits, if they were saved.
    #[serde(default)]
    pub predictions: Option<PredictionsInfo>,
    /// The same images, corrupted.
    #[serde(default)]
    pub shifts: Option<Shifts>,
    /// Images of other kinds.
    #[serde(default)]
    pub others: Vec<Other>,
    /// Damaged image files that were used as they decode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// What a reader of the figures should know.
    pub warnings: Vec<String>,
}
