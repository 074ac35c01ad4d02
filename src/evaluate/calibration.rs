//! Whether a model that says 80% is right 80% of the time.

use super::Predictions;
use super::metrics::{maximum, rank};

/// Bins of the expected calibration error, as in Guo et al., ICML 2017.
pub const BINS: usize = 15;

/// One bar of a reliability diagram: the images whose confidence lies in [low, high).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bin {
    /// Lower end, included.
    pub low: f64,
    /// Upper end, excluded but for the last bin, which is closed at 1.
    pub high: f64,
    /// Number of images.
    pub images: usize,
    /// Mean confidence of these images; 0 for none.
    pub confidence: f64,
    /// Share of these images that are classified rightly; 0 for none.
    pub accuracy: f64,
}

/// Reliability diagram at temperature T: [`BINS`] bins of equal width over the confidence, which is
/// the largest softmax probability of z/T.
pub fn reliability(predictions: &Predictions, temperature: f64) -> Vec<Bin> {
    bins(&outcomes(predictions, |_| temperature))
}

/// Expected calibration error at temperature T, between 0 and 1:
/// Σ over bins of (images in the bin / N) · |accuracy − mean confidence|.
///
/// Naeini et al., AAAI 2015, on the top class as in Guo et al., ICML 2017. Guo's bins are open on
/// the left; only a confidence exactly on an edge tells the difference.
pub fn ece(predictions: &Predictions, temperature: f64) -> f64 {
    gap(&bins(&outcomes(predictions, |_| temperature)))
}

/// [`ece`] with a temperature for each image.
pub(super) fn ece_with(
    predictions: &Predictions,
    temperature: impl Fn(usize) -> f64 + Sync,
) -> f64 {
    gap(&bins(&outcomes(predictions, temperature)))
}

/// Confidence of each image, and whether its first-ranked class is its label.
fn outcomes(p: &Predictions, temperature: impl Fn(usize) -> f64 + Sync) -> Vec<(f64, bool)> {
    p.map(|image, row, label| {
        let (max, beta) = (maximum(row), temperature(image).recip());
        let sum: f64 = row.iter().map(|z| (beta * (z - max)).exp()).sum();
        (sum.recip(), rank(row, label) == 0)
    })
}

fn bins(outcomes: &[(f64, bool)]) -> Vec<Bin> {
    let mut sums = [(0usize, 0.0, 0usize); BINS];
    for &(confidence, right) in outcomes {
        let bin = &mut sums[((confidence * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + usize::from(right));
    }
    let bar = |(i, &(images, confidence, right)): (usize, &(usize, f64, usize))| {
        let mean = |sum: f64| if images == 0 { 0.0 } else { sum / images as f64 };
        let edge = |i: usize| i as f64 / BINS as f64;
        Bin {
            low: edge(i),
            high: edge(i + 1),
            images,
            confidence: mean(confidence),
            accuracy: mean(right as f64),
        }
    };
    sums.iter().enumerate().map(bar).collect()
}

fn gap(bins: &[Bin]) -> f64 {
    let n: usize = bins.iter().map(|bin| bin.images).sum();
    let weighted = |bin: &Bin| bin.images as f64 * (bin.accuracy - bin.confidence).abs();
    bins.iter().map(weighted).sum::<f64>() / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certain_and_right_is_calibrated_certain_and_wrong_is_not() {
        let p = |label| Predictions::new(vec![0.0, 900.0], 2, &[label]).unwrap();
        assert_eq!((ece(&p(1), 1.0), ece(&p(0), 1.0)), (0.0, 1.0));
        assert_eq!(reliability(&p(1), 1.0)[BINS - 1].images, 1);
    }

    #[test]
    fn bins_by_hand() {
        // Two classes, p = 0.9 = 1/(1+e^-z): z = ln 9. Bin 13 holds [13/15, 14/15).
        // Three right of four: |0.75 − 0.9|. Two at p = 0.6 (bin 9), one right: |0.5 − 0.6|.
        let (a, b) = (9f64.ln(), 1.5f64.ln());
        let values = [a, a, a, a, b, b].iter().flat_map(|&z| [z, 0.0]).collect();
        let p = Predictions::new(values, 2, &[0, 0, 0, 1, 0, 1]).unwrap();
        let bars = reliability(&p, 1.0);
        let filled: Vec<usize> = (0..BINS).filter(|&i| bars[i].images > 0).collect();
        assert_eq!(filled[1], 13);
        assert!((ece(&p, 1.0) - (4.0 * 0.15 + 2.0 * 0.1) / 6.0).abs() < 1e-12);
    }
}
