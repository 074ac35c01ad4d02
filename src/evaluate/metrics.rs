//! Metrics that are means over images, with standard errors.

use super::Error;
use crate::predictions::Predictions;

/// A mean over images and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Estimate {
    /// Sample mean.
    pub mean: f64,
    /// Standard error of the mean, s / √n with s² = Σ(xᵢ − x̄)² / (n − 1); `None` for n < 2, where
    /// the sample says nothing about its spread.
    pub stderr: Option<f64>,
}

/// Mean and standard error of independent values; NaN if there are none.
pub fn mean_stderr(values: &[f64]) -> Estimate {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    let stderr = (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt());
    Estimate { mean, stderr }
}

/// Mean of aᵢ − bᵢ over the same images, with the standard error of that difference.
///
/// Variation that two models share (hard images are hard for both) cancels, so this is much more
/// precise than the difference of two means.
///
/// # Errors
/// Slices of unequal length.
pub fn paired(a: &[f64], b: &[f64]) -> Result<Estimate, Error> {
    if a.len() != b.len() {
        return Err(Error::Unpaired { a: a.len(), b: b.len() });
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    Ok(mean_stderr(&differences))
}

/// Ratio R of the mean of a to the mean of b over the same images. Its error is that of the mean of
/// (aᵢ − R bᵢ)/b̄, to first order (delta method). NaN if b̄ is 0.
pub fn ratio(a: &[f64], b: &[f64]) -> Estimate {
    let below = mean_stderr(b).mean;
    let mean = mean_stderr(a).mean / below;
    Estimate { mean, stderr: mean_stderr(&linearised(a, b, mean, below)).stderr }
}

/// (aᵢ − ratio · bᵢ)/below: with below = b̄, their mean varies as a ratio of means does, to first order.
pub fn linearised(a: &[f64], b: &[f64], ratio: f64, below: f64) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| (a - ratio * b) / below).collect()
}

/// Cross-entropy per image in nats, at one temperature T > 0: lᵢ = log Σⱼ exp(zᵢⱼ/T) − zᵢᵧ/T.
pub fn losses(predictions: &Predictions, temperature: f64) -> Vec<f64> {
    predictions.map(|_, row, label| loss(row, label, temperature.recip()))
}

/// Cross-entropy of one row at inverse temperature β; the maximum is subtracted before
/// exponentiation.
pub(super) fn loss(row: &[f64], label: usize, beta: f64) -> f64 {
    let max = maximum(row);
    let sum: f64 = row.iter().map(|z| (beta * (z - max)).exp()).sum();
    sum.ln() - beta * (row[label] - max)
}

/// Whether each image's label is among its k largest logits, as 1 or 0; their mean is top-k
/// accuracy.
///
/// A tie goes to the lower class: an image counts if fewer than k classes have a larger logit, or
/// an equal one and a lower index.
pub fn hits(predictions: &Predictions, k: usize) -> Vec<f64> {
    predictions.map(|_, row, label| if rank(row, label) < k { 1.0 } else { 0.0 })
}

/// Number of classes that rank before `label`.
pub(super) fn rank(row: &[f64], label: usize) -> usize {
    let own = row[label];
    row.iter().enumerate().filter(|&(j, &z)| z > own || (z == own && j < label)).count()
}

/// Brier score per image at one temperature: Σⱼ (pⱼ − [j = y])², between 0 and 2 (Brier, 1950).
pub fn brier(predictions: &Predictions, temperature: f64) -> Vec<f64> {
    let beta = temperature.recip();
    predictions.map(|_, row, label| {
        let max = maximum(row);
        let sum: f64 = row.iter().map(|z| (beta * (z - max)).exp()).sum();
        let term = |(j, z): (usize, &f64)| {
            let p = (beta * (z - max)).exp() / sum;
            (p - if j == label { 1.0 } else { 0.0 }).powi(2)
        };
        row.iter().enumerate().map(term).sum()
    })
}

pub(super) fn maximum(row: &[f64]) -> f64 {
    row.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_finite_for_logits_that_overflow_exp() {
        let p = Predictions::new(vec![1000.0, 0.0, -2000.0, -2000.0], 2, &[1, 0]).unwrap();
        let l = losses(&p, 1.0);
        assert_eq!(l[0], 1000.0);
        assert!((l[1] - 2f64.ln()).abs() < 1e-15);
        assert_eq!(losses(&p, 10.0)[0], 100.0);
    }

    #[test]
    fn ties_go_to_the_lower_class() {
        let row = vec![1.0, 3.0, 3.0, 0.0];
        let at = |label, k| hits(&Predictions::new(row.clone(), 4, &[label]).unwrap(), k)[0];
        assert_eq!((at(1, 1), at(2, 1), at(2, 2)), (1.0, 0.0, 1.0));
        assert_eq!((at(0, 2), at(0, 3), at(3, 5)), (0.0, 1.0, 1.0));
    }

    #[test]
    fn one_value_has_no_standard_error() {
        assert_eq!(mean_stderr(&[2.5]), Estimate { mean: 2.5, stderr: None });
        // 1, 3: s² = 2, standard error √(2/2).
        assert_eq!(mean_stderr(&[1.0, 3.0]), Estimate { mean: 2.0, stderr: Some(1.0) });
    }

    #[test]
    fn the_error_of_a_ratio_is_that_of_the_jackknife() {
        // Ratio estimates that leave out one image each give another error, equal to first order.
        let a: Vec<f64> = (0..400).map(|i| 1.0 + f64::from(i * 37 % 101) / 50.0).collect();
        let b: Vec<f64> = (0..400).map(|i| 2.0 + f64::from(i * 53 % 97) / 30.0).collect();
        let found = ratio(&a, &b);
        let (sum_a, sum_b) = (a.iter().sum::<f64>(), b.iter().sum::<f64>());
        assert!((found.mean - sum_a / sum_b).abs() < 1e-14);
        let without: Vec<f64> = a.iter().zip(&b).map(|(a, b)| (sum_a - a) / (sum_b - b)).collect();
        let spread = mean_stderr(&without).stderr.unwrap();
        let jackknife = spread * 399.0;
        assert!((found.stderr.unwrap() / jackknife - 1.0).abs() < 0.01, "{found:?} {jackknife}");
    }

    #[test]
    fn pairing_cancels_shared_variation() {
        let (a, b) = ([5.0, 105.0, -95.0], [4.0, 104.0, -96.0]);
        assert_eq!(paired(&a, &b), Ok(Estimate { mean: 1.0, stderr: Some(0.0) }));
        assert_eq!(paired(&a, &b[..2]), Err(Error::Unpaired { a: 3, b: 2 }));
    }
}
