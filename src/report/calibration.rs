//! The report of `calibrate`.

use crate::calibrate::{CalibrateSession, Calibrated, LaplaceFigures, NullEce, Scaling};
use crate::checkpoint::CheckpointInfo;
use crate::data::DamagedFile;
use crate::evaluate::{Bound, Estimate, Sets};
use crate::format::{estimate, images, number, percent, share};
use crate::post_train::result::{BeforeAfter, Output};
use crate::run::RunInfo;
use crate::session::checkpoint_info;
use serde::{Deserialize, Serialize};

/// Schema of [`CalibrationReport`].
pub const CALIBRATION: &str = "planish/calibration/1";

/// A checkpoint before and after calibration. Losses are in nats per image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// [`CALIBRATION`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: RunInfo,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The file that was written, if one was.
    pub output: Option<Output>,
    /// The map of the logits.
    pub method: Scaling,
    /// Its temperature, which is folded into the head.
    pub temperature: f64,
    /// Why the temperature is not a minimum of the loss, if it is not.
    #[serde(default)]
    pub temperature_bound: Option<Bound>,
    /// Number of validation images that the map was fitted on.
    pub fitted_on: usize,
    /// On V. The map was fitted on these images.
    pub validation: BeforeAfter,
    /// Gain in NLL on V if each half is mapped by the fit on the other.
    pub cross_fit_gain: Option<Estimate>,
    /// On test.
    pub test: Option<BeforeAfter>,
    /// Calibration errors that perfectly calibrated models of the same confidences would have on
    /// test, or on V without test.
    pub null_ece: NullEce,
    /// Conformal prediction sets on test.
    #[serde(default)]
    pub conformal: Option<Conformal>,
    /// Last-layer Laplace approximation of the checkpoint as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub laplace: Option<LaplaceFigures>,
    /// Damaged image files that were used as decoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// Notes.
    pub notes: Vec<String>,
}

impl CalibrationReport {
    /// The report of a calibration.
    pub fn new(run: RunInfo, session: &CalibrateSession, found: Calibrated) -> Self {
        let options = &session.options;
        let conformal = options.conformal.zip(found.conformal);
        Self {
            schema: CALIBRATION.into(),
            run,
            checkpoint: checkpoint_info(&session.checkpoint),
            output: found.output,
            method: options.method,
            temperature: found.map.temperature.temperature,
            temperature_bound: found.map.temperature.bound,
            fitted_on: found.fitted_on,
            validation: found.validation,
            cross_fit_gain: found.cross_fit_gain,
            test: found.test,
            null_ece: found.null_ece,
            conformal: conformal.map(|(alpha, [before, after])| Conformal { alpha, before, after }),
            laplace: found.laplace,
            damaged: found.damaged,
            notes: found.notes,
        }
    }
}

/// What a last-layer Laplace approximation gives, in one sentence.
pub fn laplace_sentence(figures: &LaplaceFigures) -> String {
    let mut out = format!(
        "Laplace approximation of the head, posterior from {}, prior precision {}: ",
        images(figures.training_images),
        number(figures.prior_precision),
    );
    match (&figures.test, figures.validation_nll) {
        (Some(test), _) => {
            out += &format!(
                "NLL on test {}, gain over the checkpoint as given {}, over the calibrated one {}.",
                estimate(test.nll),
                estimate(test.nll_gain),
                estimate(test.gain_over_calibrated),
            );
        }
        (None, Some(nll)) => {
            out += &format!("NLL on V, cross-fitted on its halves, {}.", estimate(nll));
        }
        (None, None) => out += "V is too small to be halved, so there are no figures.",
    }
    out
}

/// Columns of [`Conformal::rows`].
pub const SET_HEADERS: [&str; 6] =
    ["sets", "coverage", "classes", "empty", "worst class", "threshold"];

/// Conformal prediction sets with thresholds from images that did not choose the map.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conformal {
    /// α: the sets miss the label with this probability.
    pub alpha: f64,
    /// Sets of the checkpoint as given.
    pub before: Vec<Sets>,
    /// Sets of the calibrated one.
    pub after: Vec<Sets>,
}

impl Conformal {
    /// One row for each score, before calibration and after it.
    pub fn rows(&self) -> Vec<[String; 6]> {
        let row = |when: &str, sets: &Sets| {
            let worst = sets.worst_class;
            [
                format!("{} {when}", sets.score.name()),
                share(sets.coverage),
                estimate(sets.size),
                percent(sets.empty),
                worst.map_or(String::new(), |(class, x)| format!("class {class}: {}", percent(x))),
                sets.threshold.map_or("none".into(), number),
            ]
        };
        let before = self.before.iter().map(|sets| row("before", sets));
        before.chain(self.after.iter().map(|sets| row("after", sets))).collect()
    }
}
