//! The figures that `eval` prints for a model on a data set.

use super::calibration::ece_with;
use super::metrics::{hits, loss, losses, mean_stderr};
use super::temperature::{Fit, fit};
use super::{Error, Predictions, ece};
use serde::{Deserialize, Serialize};

/// Which images the temperature is fitted on. Never those it is then judged by: a fit is always at
/// least as good as T = 1 on its own images.
#[derive(Clone, Copy, Debug)]
pub enum Temperature<'a> {
    /// Other images: the validation set.
    FittedOn(&'a Predictions),
    /// There are no others. The images at these positions are one half, all the rest the second
    /// (`stratified_halves` of the labels); each half is scored at the temperature of the other.
    /// The temperature reported is fitted on both together, and scores nothing here.
    CrossFitted(&'a [usize]),
}

/// Figures of one model on one set of images. Losses in nats per image, shares between 0 and 1,
/// each `_stderr` the standard error of the figure before it (absent for a single image).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of images.
    pub images: usize,
    /// Mean cross-entropy of the logits as they are.
    pub nll: f64,
    /// Its standard error.
    pub nll_stderr: Option<f64>,
    /// Share of images whose label has the largest logit.
    pub top1: f64,
    /// Its standard error.
    pub top1_stderr: Option<f64>,
    /// Share of images whose label is among the five largest logits.
    pub top5: f64,
    /// Expected calibration error, 15 bins of equal width.
    pub ece: f64,
    /// Temperature T fitted as [`Temperature`] says.
    pub temperature: f64,
    /// Whether a fit found no minimum inside 10⁻³ ≤ T ≤ 10³.
    pub temperature_at_bound: bool,
    /// Mean cross-entropy of logits divided by T.
    pub calibrated_nll: f64,
    /// Its standard error, for T held fixed.
    pub calibrated_nll_stderr: Option<f64>,
    /// Expected calibration error of logits divided by T.
    pub calibrated_ece: f64,
}

/// All figures of `predictions`.
///
/// # Errors
/// A cross-fit whose one half is empty.
pub fn summarise(
    predictions: &Predictions,
    temperature_from: Temperature<'_>,
) -> Result<Summary, Error> {
    let (overall, of_image) = temperatures(predictions, temperature_from)?;
    let calibrated =
        predictions.map(|image, row, label| loss(row, label, of_image(image).usable().recip()));
    let nll = mean_stderr(&losses(predictions, 1.0));
    let top1 = mean_stderr(&hits(predictions, 1));
    let calibrated_nll = mean_stderr(&calibrated);
    Ok(Summary {
        images: predictions.images(),
        nll: nll.mean,
        nll_stderr: nll.stderr,
        top1: top1.mean,
        top1_stderr: top1.stderr,
        top5: mean_stderr(&hits(predictions, 5)).mean,
        ece: ece(predictions, 1.0),
        temperature: overall.temperature,
        temperature_at_bound: overall.at_bound
            || (0..predictions.images()).any(|image| of_image(image).at_bound),
        calibrated_nll: calibrated_nll.mean,
        calibrated_nll_stderr: calibrated_nll.stderr,
        calibrated_ece: ece_with(predictions, |image| of_image(image).usable()),
    })
}

/// The temperature to report, and the one each image is scored at.
fn temperatures(
    predictions: &Predictions,
    from: Temperature<'_>,
) -> Result<(Fit, impl Fn(usize) -> Fit + Sync), Error> {
    let (overall, fits, first) = match from {
        Temperature::FittedOn(others) => {
            let fitted = fit(others);
            (fitted, [fitted; 2], Vec::new())
        }
        Temperature::CrossFitted(half) => {
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
            (fit(predictions), [of_first, of_second], first)
        }
    };
    // An image of the first half takes the second's temperature, and the other way round.
    let of_image = move |image: usize| fits[usize::from(first.get(image) == Some(&true))];
    Ok((overall, of_image))
}

#[cfg(test)]
mod tests {
    use super::super::{brier, paired};
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        classes: usize,
        logits: Vec<f64>,
        labels: Vec<u32>,
        brier: f64,
        #[serde(flatten)]
        figures: serde_json::Value,
    }

    fn cases() -> Vec<Case> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/metrics.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn predictions(case: &Case) -> Predictions {
        Predictions::new(case.logits.clone(), case.classes, &case.labels).unwrap()
    }

    #[test]
    fn figures_agree_with_scipy() {
        let cases = cases();
        assert_eq!(cases.len(), 3);
        for case in &cases {
            let p = predictions(case);
            let s = summarise(&p, Temperature::FittedOn(&p)).unwrap();
            let close = |name: &str, got: f64, tolerance: f64| {
                let expected = case.figures[name].as_f64().unwrap();
                let error = (got / expected - 1.0).abs();
                assert!(error < tolerance, "{} {name}: {got} ≠ {expected}", case.name);
            };
            close("nll", s.nll, 1e-12);
            close("nll_stderr", s.nll_stderr.unwrap(), 1e-12);
            close("top1", s.top1, 1e-12);
            close("top5", s.top5, 1e-12);
            close("ece", s.ece, 1e-12);
            // scipy stops where the loss no longer changes in f64: half the digits of T.
            close("temperature", s.temperature, 1e-6);
            close("calibrated_nll", s.calibrated_nll, 1e-12);
            close("calibrated_nll_stderr", s.calibrated_nll_stderr.unwrap(), 1e-6);
            close("calibrated_ece", s.calibrated_ece, 1e-6);
            let b = mean_stderr(&brier(&p, 1.0)).mean;
            assert!((b / case.brier - 1.0).abs() < 1e-12, "{}", case.name);
            assert!(!s.temperature_at_bound);
        }
    }

    #[test]
    fn a_fit_never_loses_on_its_own_images() {
        for case in cases() {
            let p = predictions(&case);
            let fitted = fit(&p);
            let gain = paired(&losses(&p, 1.0), &losses(&p, fitted.temperature)).unwrap();
            assert!(gain.mean >= 0.0, "{}: {gain:?}", case.name);
        }
    }

    #[test]
    fn each_half_is_scored_at_the_other_halfs_temperature() {
        let p = predictions(&cases()[0]);
        let first: Vec<usize> = (0..p.images()).step_by(2).collect();
        let second: Vec<usize> = (1..p.images()).step_by(2).collect();
        let s = summarise(&p, Temperature::CrossFitted(&first)).unwrap();
        let [a, b] = [&first, &second].map(|half| p.subset(half).unwrap());
        let crossed = [losses(&a, fit(&b).temperature), losses(&b, fit(&a).temperature)].concat();
        assert!((s.calibrated_nll - mean_stderr(&crossed).mean).abs() < 1e-12);
        assert_eq!(s.temperature, fit(&p).temperature);
        let own = summarise(&p, Temperature::FittedOn(&p)).unwrap();
        assert!(s.calibrated_nll > own.calibrated_nll);
    }

    #[test]
    fn one_image_and_all_right() {
        let one = Predictions::new(vec![1.0, 0.0], 2, &[0]).unwrap();
        let s = summarise(&one, Temperature::FittedOn(&one)).unwrap();
        assert_eq!((s.images, s.top1, s.top5, s.nll_stderr), (1, 1.0, 1.0, None));
        // Nothing was measured, so nothing is scaled.
        assert!(s.temperature_at_bound && s.calibrated_nll == s.nll);
        assert!(serde_json::to_value(&s).unwrap()["nll_stderr"].is_null());
        let empty = summarise(&one, Temperature::CrossFitted(&[0]));
        assert_eq!(empty, Err(Error::NoImages));
    }
}
