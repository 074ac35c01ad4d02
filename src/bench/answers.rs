//! Answers to the three questions about a method, from the test scores of every seed on every image.

use crate::error::Result;
use crate::evaluate::{Crossed, EQUIVALENT_NATS, Effect, Scores, crossed, linearised, mean_stderr};
use serde::{Deserialize, Serialize};

/// What a row gains, with errors over training seeds and test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Does the loss fall? NLL of the untouched model minus NLL of this row.
    pub nll: Effect,
    /// `nll` as a share of what a temperature gains on the untouched model. `None` if that is less than
    /// [`EQUIVALENT_NATS`].
    pub won_back: Option<Effect>,
    /// Top-1 accuracy of this row minus that of the untouched model.
    pub top1: Effect,
    /// NLL of the control minus NLL of this row, at the same seed.
    pub nll_over_control: Option<Effect>,
    /// Does the perturbation matter? The same after a temperature on both sides.
    pub calibrated_nll_over_control: Option<Effect>,
    /// Is anything left beyond a temperature? Calibrated NLL of the untouched model minus that of this row.
    pub calibrated_nll: Effect,
}

impl Answers {
    /// The same figures without verdicts.
    pub(super) fn without_verdicts(mut self) -> Self {
        let Self {
            nll,
            won_back,
            top1,
            nll_over_control,
            calibrated_nll_over_control,
            calibrated_nll,
        } = &mut self;
        let others = [won_back, nll_over_control, calibrated_nll_over_control];
        let all = [nll, top1, calibrated_nll].into_iter().chain(others.into_iter().flatten());
        all.for_each(|effect| effect.verdict = None);
        self
    }
}

/// Scores of one model on each test image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ImageScores {
    /// Cross-entropy, nats.
    pub nll: Vec<f64>,
    /// Cross-entropy at the temperatures fitted on V.
    pub calibrated_nll: Vec<f64>,
    /// 1 if the label has the largest logit, else 0.
    pub top1: Vec<f64>,
}

impl From<[Scores; 2]> for ImageScores {
    fn from([raw, calibrated]: [Scores; 2]) -> Self {
        Self { nll: raw.nll, calibrated_nll: calibrated.nll, top1: raw.top1 }
    }
}

/// Answers for the runs `own`, one per seed, and the runs of their control with the same seeds.
///
/// # Errors
/// Scores of different images.
pub(super) fn answers(
    untouched: &ImageScores,
    own: &[&ImageScores],
    control: Option<&[&ImageScores]>,
) -> Result<Answers> {
    let counts = [own.len(), untouched.nll.len()];
    type Column = fn(&ImageScores) -> &[f64];
    let effect = |table: &[Vec<f64>], margin| -> Result<Effect> {
        let found = Effect::of(crossed(table)?, margin, counts);
        // Without any difference, the same model was compared with itself.
        let same = table.iter().flatten().all(|difference| *difference == 0.0);
        Ok(if same { Effect { verdict: None, ..found } } else { found })
    };
    let over_untouched = |of: Column| -> Vec<Vec<f64>> {
        own.iter().map(|run| differences(of(untouched), of(run))).collect()
    };
    let over_control = |of: Column| -> Result<Option<Effect>> {
        let Some(control) = control else { return Ok(None) };
        let pairs = control.iter().zip(own);
        let table: Vec<Vec<f64>> = pairs.map(|(a, b)| differences(of(a), of(b))).collect();
        Ok(Some(effect(&table, Some(EQUIVALENT_NATS))?))
    };
    let gains = over_untouched(|s| &s.nll);
    let hits: Vec<Vec<f64>> =
        own.iter().map(|run| differences(&run.top1, &untouched.top1)).collect();
    Ok(Answers {
        nll: effect(&gains, Some(EQUIVALENT_NATS))?,
        won_back: won_back(untouched, &gains, counts)?,
        top1: effect(&hits, None)?,
        nll_over_control: over_control(|s| &s.nll)?,
        calibrated_nll_over_control: over_control(|s| &s.calibrated_nll)?,
        calibrated_nll: effect(&over_untouched(|s| &s.calibrated_nll), Some(EQUIVALENT_NATS))?,
    })
}

/// The ratio of the mean gain to the mean of what a temperature gains, with the error of its linearised form.
fn won_back(
    untouched: &ImageScores,
    gains: &[Vec<f64>],
    counts: [usize; 2],
) -> Result<Option<Effect>> {
    let by_temperature = differences(&untouched.nll, &untouched.calibrated_nll);
    let all = mean_stderr(&by_temperature).mean;
    if all < EQUIVALENT_NATS {
        return Ok(None);
    }
    let ratio = crossed(gains)?.mean / all;
    let linear: Vec<Vec<f64>> =
        gains.iter().map(|gains| linearised(gains, &by_temperature, ratio, all)).collect();
    let found = Crossed { mean: ratio, ..crossed(&linear)? };
    Ok(Some(Effect::of(found, None, counts)))
}

/// a − b, image by image. Of different numbers of images, which [`crossed`] rejects, the first ones.
fn differences(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Verdict;

    fn scores(nll: [f64; 4], calibrated_nll: [f64; 4], top1: [f64; 4]) -> ImageScores {
        // Enough images for a verdict.
        let many = |values: [f64; 4]| values.repeat(10);
        ImageScores { nll: many(nll), calibrated_nll: many(calibrated_nll), top1: many(top1) }
    }

    #[test]
    fn gains_are_those_of_the_definitions() {
        let untouched = scores([2.0, 1.0, 3.0, 0.0], [1.0; 4], [0.0, 1.0, 0.0, 1.0]);
        let run = |shift: f64| {
            scores([1.0 + shift; 4], [0.75 + shift, 0.75, 0.75, 0.75], [1.0, 1.0, 0.0, 1.0])
        };
        let (own, control) = ([run(0.0), run(0.25), run(0.5)], [run(0.5), run(0.75), run(1.0)]);
        let (own, control) = (own.each_ref(), control.each_ref());
        let found = answers(&untouched, &own, Some(&control)).unwrap();
        // Mean NLL 1.5 before, 1.25 after; a temperature gains 0.5.
        assert!((found.nll.mean - 0.25).abs() < 1e-12);
        assert!((found.won_back.unwrap().mean - 0.5).abs() < 1e-12);
        assert!((found.top1.mean - 0.25).abs() < 1e-12);
        // 1 before; 0.75 and a quarter of the mean shift 0.25 after.
        assert!((found.calibrated_nll.mean - 0.1875).abs() < 1e-12);
        let over = found.nll_over_control.unwrap();
        // Every seed and every image gains the same.
        assert_eq!((over.mean, over.stderr, over.verdict), (0.5, Some(0.0), Some(Verdict::Better)));
        let calibrated = found.calibrated_nll_over_control.unwrap();
        assert!((calibrated.mean - 0.125).abs() < 1e-12);
        let own = answers(&untouched, &own, None).unwrap();
        assert_eq!((own.nll_over_control, own.nll), (None, found.nll));
        assert_eq!(found.without_verdicts().calibrated_nll.verdict, None);
    }

    #[test]
    fn a_model_is_not_judged_against_itself() {
        let untouched = scores([2.0, 1.0, 3.0, 0.0], [1.0; 4], [0.0, 1.0, 0.0, 1.0]);
        let trained = scores([1.0; 4], [0.75; 4], [1.0, 1.0, 0.0, 1.0]);
        let found = answers(&untouched, &[&untouched; 3], Some(&[&trained; 3])).unwrap();
        assert_eq!((found.nll.mean, found.nll.verdict), (0.0, None));
        assert_eq!(found.calibrated_nll.verdict, None);
        // The control was trained.
        let over = found.calibrated_nll_over_control.unwrap();
        assert_eq!((over.mean, over.verdict), (-0.25, Some(Verdict::Worse)));
    }

    #[test]
    fn without_a_gain_by_temperature_no_share_of_it_is_won_back() {
        let untouched = scores([1.0; 4], [0.996; 4], [1.0; 4]);
        let run = scores([0.5; 4], [0.5; 4], [1.0; 4]);
        assert_eq!(answers(&untouched, &[&run; 3], None).unwrap().won_back, None);
        let calibrates = scores([1.0; 4], [0.75; 4], [1.0; 4]);
        let found = answers(&calibrates, &[&run; 3], None).unwrap().won_back.unwrap();
        assert_eq!((found.mean, found.stderr), (2.0, Some(0.0)));
    }
}
