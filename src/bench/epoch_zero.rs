//! The untouched model as a candidate of every run: epoch 0.

use super::RunResult;
use super::answers::{Answers, ImageScores, answers};
use crate::error::Result;
use crate::evaluate::{Estimate, mean_stderr};
use serde::{Deserialize, Serialize};

/// Figures of a row if each run may keep the untouched model instead of the trained one, as V decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochZero {
    /// Number of runs that keep the untouched model.
    pub kept: usize,
    /// Test NLL, with its standard error over seeds.
    pub nll: Estimate,
    /// Test NLL after a temperature fitted on V, with its standard error over seeds.
    pub calibrated_nll: Estimate,
    /// All gains. The runs of the control have the same candidate.
    pub answers: Answers,
}

/// Whether V prefers the trained model to the untouched one, by calibrated NLL. `None` without V.
fn trained_is_better(run: &RunResult) -> Option<bool> {
    let on_v = run.validation.as_ref()?;
    Some(on_v.after.calibrated_nll < on_v.before.calibrated_nll)
}

/// The runs of a row with their scores.
pub(super) struct Scored<'a> {
    /// The runs, one per seed.
    pub runs: &'a [RunResult],
    /// Their scores on test.
    pub scores: &'a [ImageScores],
}

impl<'a> Scored<'a> {
    /// The scores after the last epoch.
    pub fn last(&self) -> Vec<&'a ImageScores> {
        self.scores.iter().collect()
    }

    /// The scores of the models that the runs keep; `None` without V.
    fn kept(&self, untouched: &'a ImageScores) -> Option<Vec<&'a ImageScores>> {
        let choose = |(run, own): (&RunResult, &'a ImageScores)| {
            Some(if trained_is_better(run)? { own } else { untouched })
        };
        self.runs.iter().zip(self.scores).map(choose).collect()
    }
}

/// The figures with epoch 0 as a candidate; `None` without V.
///
/// # Errors
/// Scores of different images.
pub(super) fn epoch_zero(
    untouched: &ImageScores,
    own: &Scored,
    control: Option<&Scored>,
) -> Result<Option<EpochZero>> {
    let Some(kept) = own.kept(untouched) else { return Ok(None) };
    let control = control.and_then(|control| control.kept(untouched));
    let mean = |of: fn(&ImageScores) -> &[f64]| {
        let each: Vec<f64> = kept.iter().map(|scores| mean_stderr(of(scores)).mean).collect();
        mean_stderr(&each)
    };
    Ok(Some(EpochZero {
        kept: own.runs.iter().filter(|run| trained_is_better(run) == Some(false)).count(),
        nll: mean(|scores| &scores.nll),
        calibrated_nll: mean(|scores| &scores.calibrated_nll),
        answers: answers(untouched, &kept, control.as_deref())?,
    }))
}
