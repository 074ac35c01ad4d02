//! What `finetune` reports.

use crate::data::{DamagedFile, DataInfo};
use crate::evaluate::Summary;
use crate::run::Run;
use crate::train::finetune::Epoch;
use serde::{Deserialize, Serialize};

/// Schema of [`Finetuning`].
pub const FINETUNING: &str = "planish/finetuning/1";

/// A run of fine-tuning and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finetuning {
    /// [`FINETUNING`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: Run,
    /// The weights file written.
    pub checkpoint: String,
    /// Training, validation and test images, whichever there are.
    pub data: Vec<DataInfo>,
    /// Damaged image files that were used as they decode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// Everything that fixes the run, as in the checkpoint's provenance.
    pub settings: serde_json::Value,
    /// The epoch whose weights were kept, from 1.
    pub kept_epoch: usize,
    /// Every epoch, in order.
    pub epochs: Vec<Epoch>,
    /// What a reader of the figures should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Figures on each of the image sets; the temperature is fitted on the validation images, by
    /// halves where they are judged themselves or there are none.
    pub figures: Vec<(String, Summary)>,
}
