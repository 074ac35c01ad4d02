//! The report of `finetune`.

use crate::checkpoint::StepSettings;
use crate::data::{DamagedFile, DataInfo};
use crate::evaluate::{Estimate, Summary};
use crate::finetune::Finetuned;
use crate::run::RunInfo;
use crate::train;
use crate::train::guard::Stopped;
use serde::{Deserialize, Serialize};

/// Schema of [`Finetuning`].
pub const FINETUNING: &str = "planish/finetuning/1";

/// A fine-tuning run and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finetuning {
    /// [`FINETUNING`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: RunInfo,
    /// The weights file written.
    pub checkpoint: String,
    /// Training, validation and test images, as far as present.
    pub data: Vec<DataInfo>,
    /// Damaged image files that were decoded in part and used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// All settings of the run, as in the checkpoint's provenance.
    pub settings: StepSettings,
    /// The epoch whose weights were kept, starting at 1.
    pub kept_epoch: usize,
    /// Epochs in which the head was trained alone, before all layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub head_epochs: Vec<FinetuneEpoch>,
    /// The epochs, in order.
    pub epochs: Vec<FinetuneEpoch>,
    /// Where and why training was stopped, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// Warnings.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Figures on each set of images. The temperature is fitted on the validation images. For the
    /// validation images themselves, or without any, it is fitted on each half and applied to the
    /// other.
    pub figures: Vec<(String, Summary)>,
}

impl Finetuning {
    /// The report of a run.
    pub fn new(run: RunInfo, found: Finetuned) -> Self {
        Self {
            schema: FINETUNING.into(),
            run,
            checkpoint: found.checkpoint.display().to_string(),
            data: found.data,
            damaged: found.damaged,
            settings: found.settings,
            kept_epoch: found.outcome.epoch,
            head_epochs: found.head_epochs.iter().map(Into::into).collect(),
            epochs: found.outcome.epochs.iter().map(Into::into).collect(),
            stopped: found.outcome.stopped,
            notes: found.notes,
            figures: found.figures,
        }
    }
}

/// What one epoch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinetuneEpoch {
    /// Its number, from 1.
    pub epoch: usize,
    /// Learning rate of its last step.
    #[serde(alias = "rate")]
    pub lr: f64,
    /// Mean loss of its batches, each before its step, augmented and smoothed as asked; nats.
    pub training_loss: f64,
    /// Loss on the validation images, nats; none without such images.
    pub validation: Option<Estimate>,
    /// Share of validation images whose label has the largest logit.
    pub validation_top1: Option<Estimate>,
}

impl From<&train::Epoch> for FinetuneEpoch {
    fn from(epoch: &train::Epoch) -> Self {
        let stderr = epoch.validation_stderr;
        Self {
            epoch: epoch.epoch,
            lr: epoch.lr,
            training_loss: epoch.training_loss,
            validation: epoch.validation_loss.map(|mean| Estimate { mean, stderr }),
            validation_top1: epoch.validation_top1,
        }
    }
}
