//! Calibration: whether confidence matches accuracy.

use super::metrics::maximum;
use super::{Estimate, Scores, jackknife};
use crate::predictions::Predictions;
use crate::random::{stream, unit};
use rayon::prelude::*;

/// Bins of the expected calibration error, as in Guo et al., ICML 2017.
pub const BINS: usize = 15;

/// Draws behind [`null_ece`].
const NULL_DRAWS: usize = 200;

/// One bar of a reliability diagram: the images whose confidence lies in [low, high).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bin {
    /// Lower end, included.
    pub low: f64,
    /// Upper end, exclusive, except in the last bin, which includes 1.
    pub high: f64,
    /// Number of images.
    pub images: usize,
    /// Mean confidence of these images; 0 if there are none.
    pub confidence: f64,
    /// Fraction of these images that are classified correctly; 0 if there are none.
    pub accuracy: f64,
}

impl Bin {
    /// Wilson's 95% interval of the accuracy: (p + z²/2n ± z √(p (1 − p)/n + z²/4n²))/(1 + z²/n)
    /// with z = 1.96 (Wilson, JASA 1927). [0, 1] without images.
    pub fn interval(&self) -> [f64; 2] {
        let (n, p, z) = (self.images as f64, self.accuracy, 1.959_963_984_540_054);
        if self.images == 0 {
            return [0.0, 1.0];
        }
        let square = z * z / n;
        let middle = (p + 0.5 * square) / (1.0 + square);
        let half = z * (p * (1.0 - p) / n + square / (4.0 * n)).sqrt() / (1.0 + square);
        [middle - half, middle + half].map(|x| x.clamp(0.0, 1.0))
    }
}

/// Reliability diagram: [`BINS`] bins of equal width over the confidence.
pub fn reliability(scores: &Scores) -> Vec<Bin> {
    let mut sums = [(0usize, 0.0, 0.0); BINS];
    for (&confidence, &right) in scores.confidence.iter().zip(&scores.top1) {
        let bin = &mut sums[bin_of(confidence)];
        *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + right);
    }
    let bar = |(i, &(images, confidence, right)): (usize, &(usize, f64, f64))| {
        let mean = |sum: f64| if images == 0 { 0.0 } else { sum / images as f64 };
        let edge = |i: usize| i as f64 / BINS as f64;
        Bin {
            low: edge(i),
            high: edge(i + 1),
            images,
            confidence: mean(confidence),
            accuracy: mean(right),
        }
    };
    sums.iter().enumerate().map(bar).collect()
}

/// Expected calibration error at temperature T, between 0 and 1: Σ over bins of (images in the bin
/// / N) · |accuracy − mean confidence|, with its jackknife standard error for fixed bins.
///
/// Naeini et al., AAAI 2015, for the top class as in Guo et al., ICML 2017. Guo's bins are open on
/// the left, which only matters for a confidence exactly on an edge.
pub fn ece(predictions: &Predictions, temperature: f64) -> Estimate {
    ece_of(&Scores::at(predictions, |_| temperature))
}

/// [`ece`] of given scores.
pub fn ece_of(scores: &Scores) -> Estimate {
    let bins: Vec<usize> = scores.confidence.iter().map(|&p| bin_of(p)).collect();
    let excess: Vec<f64> = excess(scores).collect();
    Gaps::of(BINS, bins.iter().copied().zip(excess.iter().copied())).estimate(&bins, &excess)
}

/// The expected calibration error that a perfectly calibrated model with these confidences would
/// have on as many images: the mean over 200 draws in which each prediction is right with the
/// probability of its confidence.
///
/// It is not 0, because the accuracy of a bin varies by chance. An error near it is no evidence of
/// miscalibration.
pub fn null_ece(scores: &Scores, seed: u64) -> f64 {
    let mut rng = stream(seed, "null calibration error");
    let bins: Vec<usize> = scores.confidence.iter().map(|&p| bin_of(p)).collect();
    let total: f64 = (0..NULL_DRAWS)
        .map(|_| {
            let excess = scores.confidence.iter().map(|&p| {
                let right = if unit(&mut rng) < p { 1.0 } else { 0.0 };
                right - p
            });
            Gaps::of(BINS, bins.iter().copied().zip(excess)).total()
        })
        .sum();
    total / (NULL_DRAWS * bins.len()) as f64
}

/// Expected calibration error of the top class over [`BINS`] bins with equally many images. In
/// order of confidence, bins end after ⌊kN/15⌋ images. If an edge falls among equal confidences,
/// each of them counts with their mean accuracy, so the order of images does not matter.
///
/// Nguyen and O'Connor, EMNLP 2015; Nixon et al., "Measuring calibration in deep learning", CVPR
/// workshops 2019. With many confidences near 1, bins of equal width are almost empty below; these
/// bins are not. The standard error is the jackknife's for fixed bins.
pub fn ece_equal_mass(scores: &Scores) -> Estimate {
    let (p, n) = (&scores.confidence, scores.confidence.len());
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut bins = vec![0; n];
    let mut shared = vec![0.0; n];
    let mut rank = 0;
    for tied in order.chunk_by(|&a, &b| p[a] == p[b]) {
        let right: f64 = tied.iter().map(|&i| scores.top1[i]).sum();
        for &image in tied {
            // The bin whose ⌊kN/15⌋ ≤ rank < ⌊(k+1)N/15⌋.
            bins[image] = ((rank + 1) * BINS).div_ceil(n) - 1;
            shared[image] = right / tied.len() as f64 - p[image];
            rank += 1;
        }
    }
    let excess: Vec<f64> = excess(scores).collect();
    Gaps::of(BINS, bins.iter().copied().zip(shared)).estimate(&bins, &excess)
}

/// Expected calibration error of every class's probability, averaged over all C classes: (1/C) Σ
/// over classes and bins of (images in the bin / N) · |fraction of the class − mean probability|,
/// with [`BINS`] bins of equal width over the probability.
///
/// Kull et al., "Beyond temperature scaling", NeurIPS 2019. A class without images in the split
/// also counts; its fraction is 0. The standard error is the jackknife's.
pub fn ece_class_wise(
    predictions: &Predictions,
    temperature: impl Fn(usize) -> f64 + Sync,
) -> Estimate {
    let (classes, n) = (predictions.classes(), predictions.images());
    let columns = Columns::of(predictions, temperature);
    let gaps: Vec<Gaps> = (0..classes).into_par_iter().map(|c| columns.gaps(c)).collect();
    let total: f64 = gaps.iter().map(Gaps::total).sum();
    let without = predictions.map(|image, row, _| {
        let change = |(class, &z): (usize, &f64)| {
            let (bin, excess) = columns.excess(image, z, class);
            gaps[class].change(bin, excess)
        };
        let change: f64 = row.iter().enumerate().map(change).sum();
        (total + change) / (n as f64 - 1.0) / classes as f64
    });
    Estimate { mean: total / n as f64 / classes as f64, stderr: jackknife::stderr(&without) }
}

/// The calibration error of each class's probability, whose mean is [`ece_class_wise`].
pub(super) fn of_each_class(
    predictions: &Predictions,
    temperature: impl Fn(usize) -> f64 + Sync,
) -> Vec<Estimate> {
    let columns = Columns::of(predictions, temperature);
    let of_class = |class: usize| {
        let (bins, excess): (Vec<usize>, Vec<f64>) = columns.of_class(class).unzip();
        columns.gaps(class).estimate(&bins, &excess)
    };
    (0..predictions.classes()).into_par_iter().map(of_class).collect()
}

/// Probabilities by class: largest logit, β and sum of exponentials of each image, so that single classes can
/// be evaluated.
struct Columns<'a> {
    predictions: &'a Predictions,
    parts: Vec<(f64, f64, f64)>,
}

impl<'a> Columns<'a> {
    fn of(predictions: &'a Predictions, temperature: impl Fn(usize) -> f64 + Sync) -> Self {
        let parts = predictions.map(|image, row, _| {
            let (max, beta) = (maximum(row), temperature(image).recip());
            let sum: f64 = row.iter().map(|z| (beta * (z - max)).exp()).sum();
            (max, beta, sum)
        });
        Self { predictions, parts }
    }

    /// Bin of the class's probability, and whether the image is of the class minus this probability.
    fn excess(&self, image: usize, z: f64, class: usize) -> (usize, f64) {
        let (max, beta, sum) = self.parts[image];
        let p = (beta * (z - max)).exp() / sum;
        let is = if self.predictions.labels()[image] as usize == class { 1.0 } else { 0.0 };
        (bin_of(p), is - p)
    }

    fn of_class(&self, class: usize) -> impl Iterator<Item = (usize, f64)> {
        let column =
            self.predictions.values().iter().skip(class).step_by(self.predictions.classes());
        column.enumerate().map(move |(image, &z)| self.excess(image, z, class))
    }

    fn gaps(&self, class: usize) -> Gaps {
        Gaps::of(BINS, self.of_class(class))
    }
}

/// Bin and excess of each image: N times [`ece_of`] is the sum over bins of |Σ excess|.
pub(super) fn parts(scores: &Scores) -> Vec<(usize, f64)> {
    scores.confidence.iter().map(|&p| bin_of(p)).zip(excess(scores)).collect()
}

/// Excess: 1 for a correct image, otherwise 0, minus the confidence.
fn excess(scores: &Scores) -> impl Iterator<Item = f64> {
    scores.top1.iter().zip(&scores.confidence).map(|(right, p)| right - p)
}

/// The bin of equal width in which a probability lies; the last is closed at 1.
fn bin_of(probability: f64) -> usize {
    ((probability * BINS as f64) as usize).min(BINS - 1)
}

/// Sums of excess by bin: N times the calibration error is the sum of their absolute values.
struct Gaps(Vec<f64>);

impl Gaps {
    fn of(bins: usize, images: impl Iterator<Item = (usize, f64)>) -> Self {
        let mut sums = vec![0.0; bins];
        for (bin, excess) in images {
            sums[bin] += excess;
        }
        Self(sums)
    }

    fn total(&self) -> f64 {
        self.0.iter().map(|sum| sum.abs()).sum()
    }

    /// Change of the total without an image of this bin and excess.
    fn change(&self, bin: usize, excess: f64) -> f64 {
        (self.0[bin] - excess).abs() - self.0[bin].abs()
    }

    fn estimate(&self, bins: &[usize], excess: &[f64]) -> Estimate {
        let (total, n) = (self.total(), bins.len() as f64);
        let images = bins.iter().zip(excess);
        let without: Vec<f64> =
            images.map(|(&bin, &e)| (total + self.change(bin, e)) / (n - 1.0)).collect();
        Estimate { mean: total / n, stderr: jackknife::stderr(&without) }
    }
}

#[cfg(test)]
#[path = "calibration_tests.rs"]
mod tests;
