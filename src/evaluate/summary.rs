//! The figures that `eval` prints for a model on a data set.

use super::calibration::{Bin, ece_class_wise, ece_equal_mass, ece_of, reliability};
use super::temperature::{Bound, Fit, fit};
use super::{Error, Estimate, Scores, aurc, losses, mean_stderr};
use crate::predictions::Predictions;
use serde::{Deserialize, Serialize};

/// The images that the temperature is fitted on. They must differ from those it is judged on,
/// because a fit is always at least as good as T = 1 on its own images.
#[derive(Clone, Copy, Debug)]
pub enum Temperature<'a> {
    /// Other images: the validation set.
    FittedOn(&'a Predictions),
    /// No other images exist. The images at these positions are the first half, all others the
    /// second (`stratified_halves` of the labels). Each half is scored at the temperature fitted on
    /// the other. A single image is scored at T = 1. The reported temperature is fitted on all
    /// images and is not used for scores.
    CrossFitted(&'a [usize]),
}

/// Figures of one model on one set of images. Losses are in nats per image, fractions between 0 and
/// 1. `_stderr` is the standard error of the figure before it (absent for a single image).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of images.
    pub images: usize,
    /// Mean cross-entropy of the logits as they are.
    pub nll: f64,
    /// Its standard error.
    pub nll_stderr: Option<f64>,
    /// Fraction of images whose label has the largest logit.
    pub top1: f64,
    /// Its standard error.
    pub top1_stderr: Option<f64>,
    /// Fraction of images whose label is among the five largest logits.
    pub top5: f64,
    /// Expected calibration error, 15 bins of equal width.
    pub ece: f64,
    /// Temperature T fitted as [`Temperature`] says.
    pub temperature: f64,
    /// Temperature at which the first half of the images is scored, if fitted on the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_of_first_half: Option<f64>,
    /// Temperature at which the second half is scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_of_second_half: Option<f64>,
    /// Whether a fit found no minimum of the loss in T.
    pub temperature_at_bound: bool,
    /// The reason: of the fit on all images, otherwise of a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_bound: Option<Bound>,
    /// Mean cross-entropy of logits divided by T.
    pub calibrated_nll: f64,
    /// Its standard error, for T held fixed.
    pub calibrated_nll_stderr: Option<f64>,
    /// Expected calibration error of logits divided by T.
    pub calibrated_ece: f64,
    /// The reliability diagrams; absent in files of earlier builds, and of corrupted images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Reliability>,
    /// Further figures; absent in files of earlier builds, always there in new ones.
    #[serde(flatten)]
    pub details: Option<Details>,
}

impl Summary {
    /// A note about the temperature, if it is not a minimum of the loss.
    pub fn temperature_note(&self) -> Option<&'static str> {
        self.temperature_bound.map(Bound::note)
    }
}

/// Confidence against accuracy, bin by bin of equal width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Of the logits as they are.
    pub raw: Vec<Bin>,
    /// Of logits divided by T.
    pub calibrated: Vec<Bin>,
}

/// Further figures of the unscaled logits, each with its standard error: s/√n for means, the
/// delete-one jackknife for calibration errors and AURC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Standard error of the share of images whose label is among the five largest logits.
    pub top5_stderr: Option<f64>,
    /// Mean Brier score, between 0 and 2.
    pub brier: f64,
    /// Its standard error.
    pub brier_stderr: Option<f64>,
    /// Standard error of the expected calibration error over bins of equal width.
    pub ece_stderr: Option<f64>,
    /// The same error over 15 bins of equally many images.
    pub ece_equal_mass: f64,
    /// Its standard error.
    pub ece_equal_mass_stderr: Option<f64>,
    /// The mean over classes of the calibration error of each class's probability.
    pub ece_class_wise: f64,
    /// Its standard error.
    pub ece_class_wise_stderr: Option<f64>,
    /// Standard error of the calibration error of logits divided by T, T held fixed.
    pub calibrated_ece_stderr: Option<f64>,
    /// Mean confidence.
    pub confidence: f64,
    /// Its standard error.
    pub confidence_stderr: Option<f64>,
    /// Mean entropy of the softmax, nats.
    pub entropy: f64,
    /// Its standard error.
    pub entropy_stderr: Option<f64>,
    /// Area under the risk-coverage curve.
    pub aurc: f64,
    /// Its standard error.
    pub aurc_stderr: Option<f64>,
    /// Number of classes of the model without images here.
    pub absent_classes: usize,
}

/// All figures of `predictions`.
///
/// # Errors
/// One half of a cross-fit is empty.
pub fn summarise(
    predictions: &Predictions,
    temperature_from: Temperature<'_>,
) -> Result<Summary, Error> {
    Ok(summarise_at(predictions, &Temperatures::of(predictions, temperature_from)?))
}

/// All figures of `predictions` at given temperatures.
pub fn summarise_at(predictions: &Predictions, chosen: &Temperatures) -> Summary {
    let (raw, calibrated) = (Scores::at(predictions, |_| 1.0), chosen.scores(predictions));
    let nll = mean_stderr(&raw.nll);
    let [top1, top5] = [&raw.top1, &raw.top5].map(|hits| mean_stderr(hits));
    let calibrated_nll = mean_stderr(&calibrated.nll);
    let (ece, calibrated_ece) = (ece_of(&raw), ece_of(&calibrated));
    Summary {
        images: predictions.images(),
        nll: nll.mean,
        nll_stderr: nll.stderr,
        top1: top1.mean,
        top1_stderr: top1.stderr,
        top5: top5.mean,
        ece: ece.mean,
        temperature: chosen.overall.temperature,
        temperature_of_first_half: chosen.of_half(0),
        temperature_of_second_half: chosen.of_half(1),
        temperature_at_bound: chosen.bound().is_some(),
        temperature_bound: chosen.bound(),
        calibrated_nll: calibrated_nll.mean,
        calibrated_nll_stderr: calibrated_nll.stderr,
        calibrated_ece: calibrated_ece.mean,
        reliability: Some(Reliability {
            raw: reliability(&raw),
            calibrated: reliability(&calibrated),
        }),
        details: Some(details(predictions, &raw, [top5, ece, calibrated_ece])),
    }
}

fn details(
    predictions: &Predictions,
    raw: &Scores,
    [top5, ece, calibrated_ece]: [Estimate; 3],
) -> Details {
    let brier = mean_stderr(&raw.brier);
    let (equal_mass, class_wise) = (ece_equal_mass(raw), ece_class_wise(predictions, |_| 1.0));
    let (confidence, entropy) = (mean_stderr(&raw.confidence), mean_stderr(&raw.entropy));
    let aurc = aurc(raw);
    let mut seen = vec![false; predictions.classes()];
    predictions.labels().iter().for_each(|&label| seen[label as usize] = true);
    Details {
        top5_stderr: top5.stderr,
        brier: brier.mean,
        brier_stderr: brier.stderr,
        ece_stderr: ece.stderr,
        ece_equal_mass: equal_mass.mean,
        ece_equal_mass_stderr: equal_mass.stderr,
        ece_class_wise: class_wise.mean,
        ece_class_wise_stderr: class_wise.stderr,
        calibrated_ece_stderr: calibrated_ece.stderr,
        confidence: confidence.mean,
        confidence_stderr: confidence.stderr,
        entropy: entropy.mean,
        entropy_stderr: entropy.stderr,
        aurc: aurc.mean,
        aurc_stderr: aurc.stderr,
        absent_classes: seen.iter().filter(|seen| !**seen).count(),
    }
}

/// Temperatures as [`Temperature`] specifies: the reported one, and that of each image.
pub struct Temperatures {
    overall: Fit,
    /// Fits on the first half and on the second.
    fits: [Fit; 2],
    /// Whether an image is in the first half; empty where both fits are one.
    first: Vec<bool>,
}

impl Temperatures {
    /// Fits them.
    ///
    /// # Errors
    /// One half of a cross-fit is empty.
    pub fn of(predictions: &Predictions, from: Temperature<'_>) -> Result<Self, Error> {
        let half = match from {
            Temperature::FittedOn(others) => {
                let overall = fit(others);
                return Ok(Self { overall, fits: [overall; 2], first: Vec::new() });
            }
            Temperature::CrossFitted(_) if predictions.images() == 1 => {
                let nll = mean_stderr(&losses(predictions, 1.0)).mean;
                let bound = Some(Bound::Unfitted);
                let overall = Fit { temperature: 1.0, nll, bound };
                return Ok(Self { overall, fits: [overall; 2], first: Vec::new() });
            }
            Temperature::CrossFitted(half) => half,
        };
        let mut first = vec![false; predictions.images()];
        for &image in half {
            if let Some(inside) = first.get_mut(image) {
                *inside = true;
            }
        }
        let side = |wanted: bool| -> Vec<usize> {
            (0..first.len()).filter(|&i| first[i] == wanted).collect()
        };
        let of_first = fit(&predictions.subset(&side(true))?);
        let of_second = fit(&predictions.subset(&side(false))?);
        Ok(Self { overall: fit(predictions), fits: [of_first, of_second], first })
    }

    /// The temperature of one image.
    pub fn at(&self, image: usize) -> f64 {
        // An image of the first half uses the second half's temperature, and vice versa.
        self.fits[usize::from(self.first.get(image) == Some(&true))].temperature
    }

    /// Scores of each image at its temperature.
    pub fn scores(&self, predictions: &Predictions) -> Scores {
        Scores::at(predictions, |image| self.at(image))
    }

    /// Why a fit has no minimum: the fit on all images, otherwise on a half.
    pub fn bound(&self) -> Option<Bound> {
        self.overall.bound.or(self.fits[0].bound).or(self.fits[1].bound)
    }

    /// The temperature that a half's images are scored at, if the halves are scored apart.
    fn of_half(&self, half: usize) -> Option<f64> {
        (!self.first.is_empty()).then(|| self.fits[1 - half].temperature)
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
