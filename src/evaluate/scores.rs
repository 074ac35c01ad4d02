//! Per-image scores, the basis of every mean over images.

use super::metrics::{maximum, rank};
use crate::predictions::Predictions;

/// Scores of each image at its temperature, in the images' order.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Cross-entropy in nats, −log p_y.
    pub nll: Vec<f64>,
    /// 1 where the label has the largest logit, else 0; ties go to the lower class.
    pub top1: Vec<f64>,
    /// 1 where the label is among the five largest logits, else 0.
    pub top5: Vec<f64>,
    /// Σⱼ (pⱼ − [j = y])², between 0 and 2 (Brier, Monthly Weather Review 78, 1950: the original
    /// sum over all classes, not halved).
    pub brier: Vec<f64>,
    /// Largest probability, maxⱼ pⱼ: the confidence of Guo et al., ICML 2017.
    pub confidence: Vec<f64>,
    /// −Σⱼ pⱼ log pⱼ in nats, between 0 and log C (Shannon, 1948).
    pub entropy: Vec<f64>,
}

impl Scores {
    /// Scores at p = softmax(z / T), with T = `temperature(image)` > 0.
    pub fn at(predictions: &Predictions, temperature: impl Fn(usize) -> f64 + Sync) -> Self {
        let rows = predictions.map(|image, row, label| {
            let (max, beta) = (maximum(row), temperature(image).recip());
            let powers = || row.iter().map(|z| beta * (z - max));
            let sum: f64 = powers().map(f64::exp).sum();
            let (mut brier, mut mean) = (0.0, 0.0);
            for (class, power) in powers().enumerate() {
                let p = power.exp() / sum;
                brier += (p - if class == label { 1.0 } else { 0.0 }).powi(2);
                // p log p tends to 0 with p, but would evaluate to 0 · ∞.
                if p > 0.0 {
                    mean += p * power;
                }
            }
            let rank = rank(row, label);
            let nll = sum.ln() - beta * (row[label] - max);
            // log p = power − log sum, so the entropy is log sum − E(power); rounding may leave
            // the last bit of a zero negative.
            [nll, hit(rank, 1), hit(rank, 5), brier, sum.recip(), (sum.ln() - mean).max(0.0)]
        });
        let column = |i: usize| rows.iter().map(|row| row[i]).collect();
        Self {
            nll: column(0),
            top1: column(1),
            top5: column(2),
            brier: column(3),
            confidence: column(4),
            entropy: column(5),
        }
    }

    /// Scores of the images at these positions, in this order.
    pub(super) fn subset(&self, images: &[usize]) -> Self {
        let of = |values: &[f64]| images.iter().map(|&image| values[image]).collect();
        Self {
            nll: of(&self.nll),
            top1: of(&self.top1),
            top5: of(&self.top5),
            brier: of(&self.brier),
            confidence: of(&self.confidence),
            entropy: of(&self.entropy),
        }
    }
}

fn hit(rank: usize, k: usize) -> f64 {
    if rank < k { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::{brier, hits, losses};
    use super::*;

    #[test]
    fn uniform_and_certain_predictions() {
        let values = vec![2.0, 2.0, 800.0, 0.0, 800.0, 0.0];
        let p = Predictions::new(values, 2, &[1, 0, 1]).unwrap();
        let s = Scores::at(&p, |_| 1.0);
        let ln2 = 2f64.ln();
        assert_eq!(s.confidence, [0.5, 1.0, 1.0]);
        assert_eq!(s.entropy, [ln2, 0.0, 0.0]);
        assert_eq!(s.nll, [ln2, 0.0, 800.0]);
        assert_eq!(s.brier, [0.5, 0.0, 2.0]);
        assert_eq!((s.top1, s.top5), (vec![0.0, 1.0, 0.0], vec![1.0; 3]));
    }

    #[test]
    fn each_image_has_its_temperature() {
        let values = vec![1.0, -0.5, 0.25, 1.0, -0.5, 0.25];
        let p = Predictions::new(values, 3, &[2, 2]).unwrap();
        let s = Scores::at(&p, |image| [1.0, 4.0][image]);
        assert!((s.nll[0] - losses(&p, 1.0)[0]).abs() < 1e-15);
        assert!((s.nll[1] - losses(&p, 4.0)[1]).abs() < 1e-15);
        assert!((s.brier[1] - brier(&p, 4.0)[1]).abs() < 1e-15);
        assert_eq!((s.top1.clone(), s.top5.clone()), (hits(&p, 1), hits(&p, 5)));
        assert!(s.entropy[0] < s.entropy[1] && s.entropy[1] < 3f64.ln());
    }
}
