//! Compares two models on the same images: differences and their significance.

use super::mcnemar::{McNemar, mcnemar};
use super::verdict::{equivalence, smallest_visible, verdict};
use super::{
    EQUIVALENT_NATS, Error, Estimate, FEW, Scores, Verdict, ece_of, mean_stderr, rounding,
};
use crate::predictions;
use crate::random::{below, stream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Default number of bootstrap resamples of an interval; its ends then have an error of about 6% of
/// a standard error.
pub const RESAMPLES: usize = 2000;

/// One figure of both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// `nll`, `calibrated_nll`, `top1`, `brier`, `ece` or `calibrated_ece`.
    pub figure: String,
    /// Of A.
    pub a: f64,
    /// Of B.
    pub b: f64,
    /// Gain of B: A − B; for `top1` B − A.
    pub gain: f64,
    /// Standard error of the gain: by paired differences for a mean, the bootstrap's spread for a
    /// calibration error. `None` for one image.
    pub gain_stderr: Option<f64>,
    /// 95% interval of the gain by the paired bootstrap; `None` for one image.
    pub interval: Option<[f64; 2]>,
    /// The smallest true gain that images with this error show with 80% power in a two-sided test at 5%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smallest_visible: Option<f64>,
    /// p of two one-sided t tests that the gain is beyond [`EQUIVALENT_NATS`]; of losses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equivalence_p: Option<f64>,
    /// The verdict: a difference is established if the interval excludes 0; for `top1`, if McNemar's
    /// p < 0.05. That there is none is established by the tests of equivalence.
    pub verdict: Verdict,
}

impl Difference {
    /// The gain for display: 0 if rounding of logits explains it.
    pub fn shown_gain(&self) -> Estimate {
        let gain = Estimate { mean: self.gain, stderr: self.gain_stderr };
        gain.beyond_rounding(self.a.abs().max(self.b.abs()))
    }

    /// The interval for display: 0 if rounding of logits explains the gain.
    pub fn shown_interval(&self) -> Option<[f64; 2]> {
        let shown = self.shown_gain();
        let none = shown.mean == 0.0 && shown.stderr == Some(0.0);
        self.interval.map(|interval| if none { [0.0; 2] } else { interval })
    }
}

/// All differences between two models on the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Number of images.
    pub images: usize,
    /// Bootstrap resamples of the images.
    pub resamples: usize,
    /// Their seed.
    pub seed: u64,
    /// Figure by figure.
    pub differences: Vec<Difference>,
    /// McNemar's test of accuracy, on the images that only one model classifies correctly.
    pub mcnemar: McNemar,
}

impl Comparison {
    /// One figure's difference.
    pub fn of(&self, figure: &str) -> Option<&Difference> {
        self.differences.iter().find(|d| d.figure == figure)
    }
}

/// Figures that are means over images.
const MEANS: [&str; 4] = ["nll", "calibrated_nll", "top1", "brier"];
/// Means in nats.
const LOSSES: [&str; 2] = ["nll", "calibrated_nll"];
/// Figures that are calibration errors.
const ERRORS: [&str; 2] = ["ece", "calibrated_ece"];
const ALL: usize = MEANS.len() + ERRORS.len();

/// Compares `a` with `b` on the same images in the same order. Each is a pair of scores: at T = 1
/// and at the model's own temperatures.
///
/// Each of `resamples` draws N images with replacement and computes both models' figures on them,
/// so the variation that both share cancels. An interval is the 2.5% and 97.5% points of the draws
/// (Efron and Tibshirani, "An introduction to the bootstrap", 1993). A calibration error is biased
/// upwards on few images, most for a well-calibrated model (Kumar, Liang and Ma, NeurIPS 2019):
/// between an almost perfectly calibrated model and another, the difference and its interval are
/// understated. Temperatures are fixed. Each interval alone covers 95%; it is over images, not over
/// training seeds. With fewer than [`FEW`] images only McNemar's exact test gives a verdict.
/// Differences up to [`ROUNDING`](super::ROUNDING) count as none. Larger ones are called none only of the
/// losses, and only if they are within [`EQUIVALENT_NATS`] by a test.
///
/// # Errors
/// The numbers of images differ, or are 0.
pub fn compare(
    a: [&Scores; 2],
    b: [&Scores; 2],
    seed: u64,
    resamples: usize,
) -> Result<Comparison, Error> {
    let images = a[0].nll.len();
    if images == 0 {
        return Err(predictions::Error::NoImages.into());
    }
    let lengths = [a[1], b[0], b[1]].map(|scores| scores.nll.len());
    if let Some(&other) = lengths.iter().find(|&&n| n != images) {
        return Err(Error::Unpaired { a: images, b: other });
    }
    let means = [
        gains(&a[0].nll, &b[0].nll),
        gains(&a[1].nll, &b[1].nll),
        gains(&b[0].top1, &a[0].top1),
        gains(&a[0].brier, &b[0].brier),
    ];
    let draws = draws(&means, [a, b], seed, resamples);
    let of_side = |side: [&Scores; 2]| {
        let mean = |values: &[f64]| mean_stderr(values).mean;
        [
            mean(&side[0].nll),
            mean(&side[1].nll),
            mean(&side[0].top1),
            mean(&side[0].brier),
            ece_of(side[0]).mean,
            ece_of(side[1]).mean,
        ]
    };
    let (of_a, of_b) = (of_side(a), of_side(b));
    let differences = (0..ALL).map(|i| {
        let column: Vec<f64> = draws.iter().map(|draw| draw[i]).collect();
        let (name, gain) = match i.checked_sub(MEANS.len()) {
            None => (MEANS[i], mean_stderr(&means[i])),
            Some(j) => (ERRORS[j], Estimate { mean: of_a[i] - of_b[i], stderr: None }),
        };
        let enough = images > 1 && resamples > 1;
        let interval = enough.then(|| interval(&column));
        let gain_stderr = gain.stderr.or_else(|| enough.then(|| spread(&column)));
        let df = images.saturating_sub(1) as f64;
        let in_nats = gain_stderr.filter(|_| LOSSES.contains(&name));
        let equivalence_p =
            in_nats.map(|stderr| equivalence(gain.mean, stderr, df, EQUIVALENT_NATS));
        let judged = interval.filter(|_| images >= FEW);
        Difference {
            figure: name.into(),
            a: of_a[i],
            b: of_b[i],
            gain: gain.mean,
            gain_stderr,
            interval,
            smallest_visible: gain_stderr.map(|stderr| smallest_visible(stderr, df)),
            equivalence_p,
            verdict: judged.map_or(Verdict::Open, |ends| {
                verdict(ends, equivalence_p, rounding(of_a[i].abs().max(of_b[i].abs())))
            }),
        }
    });
    let mut differences: Vec<Difference> = differences.collect();
    let alone = |x: &Scores, y: &Scores| x.top1.iter().zip(&y.top1).filter(|(x, y)| x > y).count();
    let mcnemar = mcnemar(alone(a[0], b[0]), alone(b[0], a[0]));
    if let Some(top1) = differences.iter_mut().find(|d| d.figure == "top1") {
        top1.verdict = match mcnemar {
            McNemar { only_a: 0, only_b: 0, .. } if images >= FEW => Verdict::Equivalent,
            McNemar { p, .. } if p >= 0.05 => Verdict::Open,
            McNemar { only_a, only_b, .. } if only_b > only_a => Verdict::Better,
            _ => Verdict::Worse,
        };
    }
    Ok(Comparison { images, resamples, seed, differences, mcnemar })
}

fn gains(worse: &[f64], better: &[f64]) -> Vec<f64> {
    worse.iter().zip(better).map(|(worse, better)| worse - better).collect()
}

/// The gains of every resample.
fn draws(
    means: &[Vec<f64>; MEANS.len()],
    sides: [[&Scores; 2]; 2],
    seed: u64,
    resamples: usize,
) -> Vec<[f64; ALL]> {
    let n = means[0].len();
    // The calibration error of a resample is the sum over bins of |Σ excess|, so only the bin and
    // the excess of each image are needed.
    let parts = sides.map(|side| side.map(super::calibration::parts));
    let draw = |resample: usize| {
        let mut rng = stream(seed, &format!("paired bootstrap, resample {resample}"));
        let mut sums = [0.0; MEANS.len()];
        let mut gaps = [[[0.0; super::BINS]; 2]; 2];
        for _ in 0..n {
            let image = below(&mut rng, n as u64) as usize;
            sums.iter_mut().zip(means).for_each(|(sum, gains)| *sum += gains[image]);
            for (gaps, parts) in gaps.iter_mut().flatten().zip(parts.iter().flatten()) {
                let (bin, excess) = parts[image];
                gaps[bin] += excess;
            }
        }
        let error = |gaps: &[f64]| gaps.iter().map(|gap| gap.abs()).sum::<f64>();
        let [a, b] = gaps.map(|side| side.map(|gaps| error(&gaps)));
        let [nll, calibrated, top1, brier] = sums;
        [nll, calibrated, top1, brier, a[0] - b[0], a[1] - b[1]].map(|sum| sum / n as f64)
    };
    (0..resamples).into_par_iter().map(draw).collect()
}

/// The 2.5% and 97.5% points of `draws`.
fn interval(draws: &[f64]) -> [f64; 2] {
    let mut sorted = draws.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Linear interpolation between order statistics, as numpy's default.
    let quantile = |share: f64| {
        let at = share * (sorted.len() - 1) as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        let high = (low + 1).min(sorted.len() - 1);
        sorted[low] + part * (sorted[high] - sorted[low])
    };
    [quantile(0.025), quantile(0.975)]
}

fn spread(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
