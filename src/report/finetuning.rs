//! The report of `finetune`.

use crate::data::{DamagedFile, DataInfo};
use crate::evaluate::Summary;
use crate::run::Run;
use crate::train::finetune::Epoch;
use serde::{Deserialize, Serialize};

/// Schema of [`Finetuning`].
pub const FINETUNING: &str = "planish/finetuning/1";

/// A fine-tuning run and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finetuning {
    /// [`FINETUNING`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: Run,
    /// The weights file written.
    pub checkpoint: String,
    /// Training, validation and test images, as far as present.
    pub data: Vec<DataInfo>,
    /// Damaged image files that were decoded in part and used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// All settings of the run, as in the checkpoint's provenance.
    pub settings: serde_json::Value,
    /// The epoch whose weights were kept, starting at 1.
    pub kept_epoch: usize,
    /// The epochs, in order.
    pub epochs: Vec<Epoch>,
    /// Warnings.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Figures on each set of images. The temperature is fitted on the validation images. For the
    /// validation images themselves, or without any, it is fitted on each half and applied to the
    /// other.
    pub figures: Vec<(String, Summary)>,
}
