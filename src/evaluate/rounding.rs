//! Differences that rounding of logits alone explains.

use super::Estimate;

/// Relative rounding error of a figure computed from f32 logits: eight units in the last place. Models
/// that differ by a temperature alone have calibrated losses that are equal up to this.
pub const ROUNDING: f64 = 8.0 * f32::EPSILON as f64;

/// Largest difference of two mean losses near `loss` that rounding of f32 logits may cause.
pub fn rounding(loss: f64) -> f64 {
    ROUNDING * loss.abs()
}

impl Estimate {
    /// This difference of losses near `loss`, or 0 if rounding of f32 logits explains it: if neither it nor
    /// its standard error is above [`rounding`].
    #[must_use]
    pub fn beyond_rounding(self, loss: f64) -> Estimate {
        let least = rounding(loss);
        match self.mean.abs() <= least && self.stderr.is_none_or(|stderr| stderr <= least) {
            true => Estimate { mean: 0.0, stderr: self.stderr.map(|_| 0.0) },
            false => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{losses, paired};
    use crate::predictions::Predictions;
    use crate::random::{stream, unit};

    #[test]
    fn rounded_logits_give_no_gain() {
        let mut rng = stream(3, "logits");
        let labels: Vec<u32> = (0..500).map(|i| i % 10).collect();
        for scale in [1.0, 30.0] {
            let logits: Vec<f64> = (0..5000).map(|_| scale * unit(&mut rng)).collect();
            let rounded: Vec<f64> = logits.iter().map(|&z| f64::from(z as f32)).collect();
            let loss = |logits| losses(&Predictions::new(logits, 10, &labels).unwrap(), 1.0);
            let (a, b) = (loss(logits), loss(rounded));
            let mean = a.iter().sum::<f64>() / 500.0;
            let gain = paired(&a, &b).unwrap();
            assert!(gain.mean != 0.0);
            assert_eq!(gain.beyond_rounding(mean), Estimate { mean: 0.0, stderr: Some(0.0) });
        }
    }

    #[test]
    fn small_means_with_larger_errors_stay() {
        let of = |mean, stderr| Estimate { mean, stderr };
        assert_eq!(of(1e-9, Some(0.01)).beyond_rounding(1.0), of(1e-9, Some(0.01)));
        assert_eq!(of(1e-5, Some(1e-9)).beyond_rounding(1.0), of(1e-5, Some(1e-9)));
        assert_eq!(of(-1e-9, None).beyond_rounding(1.0), of(0.0, None));
        // The bound is relative.
        assert_eq!(of(1e-7, None).beyond_rounding(0.01), of(1e-7, None));
    }
}
