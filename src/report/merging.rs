//! The report of `merge`.

use crate::checkpoint::CheckpointInfo;
use crate::data::DamagedFile;
use crate::merge::{CurvePoint, Ingredient, MergeMethod, MergeSession, Merged};
use crate::post_train::result::{BeforeAfter, Output};
use crate::run::RunInfo;
use crate::session::checkpoint_info;
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

impl Merging {
    /// The report of a merge.
    pub fn new(run: RunInfo, session: &MergeSession, found: Merged) -> Self {
        let options = &session.options;
        Self {
            schema: MERGING.into(),
            run,
            checkpoint: checkpoint_info(&session.checkpoints[0]),
            output: found.output,
            method: options.method,
            pretrained: options.pretrained.as_ref().map(|path| path.display().to_string()),
            alpha: found.alpha,
            alpha_given: options.alpha.is_some(),
            best: found.ingredients[found.best].path.clone(),
            ingredients: found.ingredients,
            curve: found.curve,
            validation: found.validation,
            test: found.test,
            damaged: found.damaged,
            notes: found.notes,
        }
    }
}
