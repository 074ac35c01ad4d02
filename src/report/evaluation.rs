//! The report of `eval`.

use super::EarlierEvaluation;
use crate::checkpoint::CheckpointInfo;
use crate::data::{DamagedFile, DataInfo};
use crate::error::Result;
use crate::eval::{EvaluateSession, Evaluated};
use crate::evaluate::{ByClass, PredictionsInfo, Summary};
use crate::run::RunInfo;
use crate::session::{Context, checkpoint_info};
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
    /// Figures of each class and group, and the confusion matrix; absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_class: Option<ByClass>,
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

impl Evaluation {
    /// The report of an evaluation, without corrupted images.
    pub fn new(run: RunInfo, session: &EvaluateSession, found: &Evaluated) -> Self {
        Self {
            schema: EVALUATION.into(),
            run,
            checkpoint: checkpoint_info(&session.checkpoint),
            data: found.split.data.clone(),
            figures: found.figures.clone(),
            by_class: Some(found.by_class.clone()),
            precision: session.options.precision.name().into(),
            temperature_origin: found.split.origin.clone(),
            predictions: found.predictions.clone(),
            shifts: None,
            others: found.others.clone(),
            damaged: found.damaged.clone(),
            warnings: found.warnings.clone(),
        }
    }

    /// Adds the corrupted images of the session, and those of an `earlier` report. Calls `save` with
    /// the report after each new cell.
    ///
    /// # Errors
    /// An earlier report of another evaluation; those of [`EvaluateSession::shifts`].
    pub fn add_shifts(
        &mut self,
        session: &EvaluateSession,
        found: &Evaluated,
        earlier: Option<EarlierEvaluation>,
        context: &Context,
        save: &mut dyn FnMut(&Evaluation) -> Result<()>,
    ) -> Result<()> {
        let origin = session.shift_origin()?;
        let kept = earlier.map(|earlier| earlier.shifts(self, origin.as_deref())).transpose()?;
        let known = kept.as_ref().map_or(Vec::new(), |kept| kept.cells.clone());
        let all = session.shifts(found, known, context, &mut |shifts| {
            self.shifts = Some(shifts.clone());
            save(self)
        })?;
        self.shifts = all.or(kept);
        Ok(())
    }
}
