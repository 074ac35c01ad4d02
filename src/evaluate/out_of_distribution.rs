//! Detection of out-of-distribution images by the model's logits.

use super::Estimate;
use crate::predictions::Predictions;
use crate::random::{below, stream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Number of resamples for the standard error of FPR@95.
const RESAMPLES: u64 = 1000;

/// Largest softmax probability of each image: high for known images. Hendrycks and Gimpel, ICLR
/// 2017.
pub fn max_probability(predictions: &Predictions) -> Vec<f64> {
    super::Scores::at(predictions, |_| 1.0).confidence
}

/// Negative energy of each image, log Σⱼ exp zⱼ at T = 1: high for known images. Liu, Wang, Owens
/// and Li, NeurIPS 2020.
pub fn negative_energy(predictions: &Predictions) -> Vec<f64> {
    predictions.map(|_, row, _| {
        let max = super::metrics::maximum(row);
        max + row.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
    })
}

/// How well a score separates two sets of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Probability that a known image scores higher than one of the other set, ties counting half;
    /// with the standard error of DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988, which is
    /// `None` for a set of one image.
    pub auroc: Estimate,
    /// Fraction of the other set classified as known, at the highest threshold that keeps at least
    /// 95% of the known images (a score at the threshold is kept); with the standard error of a
    /// seeded bootstrap of both sets.
    pub fpr95: Estimate,
}

/// Compares the scores of known images with those of other images. Scores must be finite, and both
/// sets non-empty.
pub fn detect(known: &[f64], others: &[f64], seed: u64) -> Detection {
    let sorted = |scores: &[f64]| {
        let mut scores = scores.to_vec();
        scores.sort_by(f64::total_cmp);
        scores
    };
    let (known, others) = (sorted(known), sorted(others));
    Detection { auroc: auroc(&known, &others), fpr95: fpr95(&known, &others, seed) }
}

/// Both are ascending. With the distribution functions F and G of the sets (ties half), the area is
/// the mean of G over the known images, and its variance is s²(G)/n + s²(F)/m with sample variances
/// s².
fn auroc(known: &[f64], others: &[f64]) -> Estimate {
    let placed = |scores: &[f64], among: &[f64]| -> Vec<f64> {
        let share = |x: &f64| {
            let below = among.partition_point(|y| y < x);
            let equal = among.partition_point(|y| y <= x) - below;
            (below as f64 + 0.5 * equal as f64) / among.len() as f64
        };
        scores.iter().map(share).collect()
    };
    let over = super::mean_stderr(&placed(known, others));
    let under = super::mean_stderr(&placed(others, known));
    let stderr = over.stderr.zip(under.stderr).map(|(a, b)| (a * a + b * b).sqrt());
    Estimate { mean: over.mean, stderr }
}

/// Both ascending.
fn fpr95(known: &[f64], others: &[f64], seed: u64) -> Estimate {
    let (n, m) = (known.len(), others.len());
    // At most ⌊n/20⌋ known images may fall below the threshold.
    let dropped = n / 20;
    let accepted = |threshold: f64| m - others.partition_point(|y| *y < threshold);
    let mean = accepted(known[dropped]) as f64 / m as f64;
    if n < 2 || m < 2 {
        return Estimate { mean, stderr: None };
    }
    let draw = |resample: u64| {
        let mut rng = stream(seed, &format!("FPR@95, resample {resample}"));
        let mut counts = vec![0usize; n];
        (0..n).for_each(|_| counts[below(&mut rng, n as u64) as usize] += 1);
        let mut seen = 0;
        let at = counts.iter().position(|count| {
            seen += count;
            seen > dropped
        });
        let first = m - accepted(known[at.unwrap_or(n - 1)]);
        let taken = (0..m).filter(|_| below(&mut rng, m as u64) as usize >= first).count();
        taken as f64 / m as f64
    };
    let draws: Vec<f64> = (0..RESAMPLES).into_par_iter().map(draw).collect();
    let centre = draws.iter().sum::<f64>() / draws.len() as f64;
    let squares: f64 = draws.iter().map(|x| (x - centre).powi(2)).sum();
    Estimate { mean, stderr: Some((squares / (draws.len() - 1) as f64).sqrt()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::unit;

    #[test]
    fn separate_equal_and_swapped_scores() {
        let (low, high) = ([1.0, 2.0, 3.0], [4.0, 5.0]);
        let separate = detect(&high, &low, 0);
        assert_eq!(separate.auroc, Estimate { mean: 1.0, stderr: Some(0.0) });
        assert_eq!(separate.fpr95, Estimate { mean: 0.0, stderr: Some(0.0) });
        let swapped = detect(&low, &high, 0);
        assert_eq!((swapped.auroc.mean, swapped.fpr95.mean), (0.0, 1.0));
        let identical = detect(&[1.0; 4], &[1.0; 3], 0);
        assert_eq!((identical.auroc.mean, identical.fpr95.mean), (0.5, 1.0));
        assert_eq!(detect(&[1.0], &[1.0, 2.0], 0).auroc, Estimate { mean: 0.25, stderr: None });
    }

    #[test]
    fn energy_and_confidence_of_known_logits() {
        let p = Predictions::new(vec![0.0, 0.0, 1000.0, 1000.0], 2, &[0, 0]).unwrap();
        assert_eq!(negative_energy(&p), [2f64.ln(), 1000.0 + 2f64.ln()]);
        assert_eq!(max_probability(&p), [0.5, 0.5]);
    }

    #[test]
    fn standard_errors_match_the_spread_over_samples() {
        // 400 samples of 60 known and 80 others, from uniform scores shifted by 0.4:
        // P(known > other) = 1 − 0.6²/2; the 5% point of the known is 0.45, so FPR@95 = 0.55.
        let mut rng = stream(9, "detection test");
        let mut samples =
            |n: usize, shift: f64| -> Vec<f64> { (0..n).map(|_| shift + unit(&mut rng)).collect() };
        let found: Vec<Detection> = (0..400)
            .map(|i| {
                let (known, others) = (samples(60, 0.4), samples(80, 0.0));
                detect(&known, &others, i)
            })
            .collect();
        for (figure, truth, bias) in [
            ((|d: &Detection| d.auroc) as fn(&Detection) -> Estimate, 0.82, 0.005),
            // The fourth of sixty is the 6.6% point in expectation: 0.466.
            (|d: &Detection| d.fpr95, 0.55, 0.03),
        ] {
            let mean = found.iter().map(|d| figure(d).mean).sum::<f64>() / 400.0;
            let square = |d: &Detection| (figure(d).mean - mean).powi(2);
            let spread = (found.iter().map(square).sum::<f64>() / 399.0).sqrt();
            let reported = found.iter().map(|d| figure(d).stderr.unwrap()).sum::<f64>() / 400.0;
            println!("mean {mean:.4} ({truth}), spread {spread:.4}, reported {reported:.4}");
            assert!((mean - truth).abs() < bias, "{mean} {truth}");
            assert!((reported / spread - 1.0).abs() < 0.15, "{reported} {spread}");
        }
    }
}
