//! The report of `merge`.

use crate::checkpoint::CheckpointInfo;
use crate::data::DamagedFile;
use crate::merge::{CurvePoint, Ingredient, MergeMethod};
use crate::post_train::result::{BeforeAfter, Output};
use crate::run::RunInfo;
use serde::{Deserialize, Serialize};

/// Schema of [`Merging`].
pub const MERGING: &str = "planish/merging/1";

/// Merged checkpoints. Losses are in nats per image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Merging {
    /// [`MERGING`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: RunInfo,
    /// The first checkpoint, whose format the result has.
    pub checkpoint: CheckpointInfo,
    /// The file that was written.
    pub output: Option<Output>,
    /// The method.
    pub method: MergeMethod,
    /// The weights before fine-tuning, if they were used.
    #[serde(default)]
    pub pretrained: Option<String>,
    /// The α that was used.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// Whether α was set and not chosen on V.
    #[serde(default)]
    pub alpha_given: bool,
    /// Figures of each checkpoint on V.
    pub ingredients: Vec<Ingredient>,
    /// Figures on V along α.
    #[serde(default)]
    pub curve: Vec<CurvePoint>,
    /// The best checkpoint on V. `before` in the figures below is this one.
    pub best: String,
    /// On V.
    pub validation: BeforeAfter,
    /// On test.
    pub test: Option<BeforeAfter>,
    /// Damaged image files that were used as decoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// Notes.
    pub notes: Vec<String>,
}
