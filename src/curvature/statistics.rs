//! Means of independent samples and their confidence intervals.

use serde::Serialize;

/// Mean of independent samples with its error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SampleMean {
    /// The mean.
    pub value: f64,
    /// Its standard error.
    pub stderr: f64,
    /// Half a 95% confidence interval: the standard error times Student's t of the draws.
    pub half_width_95: f64,
}

impl SampleMean {
    /// Mean and error of the samples.
    pub(super) fn of(draws: &[f64]) -> Self {
        let (value, stderr) = mean_and_error(draws);
        let t = student_95(draws.len().saturating_sub(1));
        // Both are infinite for fewer than two samples. A zero error stays zero.
        let half_width_95 = if stderr == 0.0 { 0.0 } else { stderr * t };
        Self { value, stderr, half_width_95 }
    }
}

/// Two-sided 95% quantile of Student's t distribution with `freedom` degrees of freedom. Infinite
/// for 0.
///
/// A table up to 6. Above, the expansion in 1/ν around the normal quantile (Abramowitz and Stegun,
/// 26.7.5), accurate to 0.001.
pub fn student_95(freedom: usize) -> f64 {
    const TABLE: [f64; 7] = [f64::INFINITY, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447];
    if let Some(&t) = TABLE.get(freedom) {
        return t;
    }
    const Z: f64 = 1.959_963_984_540_054;
    let (z2, nu) = (Z * Z, freedom as f64);
    let g1 = Z * (z2 + 1.0) / 4.0;
    let g2 = Z * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0;
    let g3 = Z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0;
    let g4 = Z * ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) / 92160.0;
    Z + (g1 + (g2 + (g3 + g4 / nu) / nu) / nu) / nu
}

/// Mean and its standard error s/√m, where s is the sample standard deviation. The error is
/// infinite for fewer than two samples; the mean of no samples is 0.
pub(super) fn mean_and_error(draws: &[f64]) -> (f64, f64) {
    let m = draws.len() as f64;
    if draws.is_empty() {
        return (0.0, f64::INFINITY);
    }
    let mean = draws.iter().sum::<f64>() / m;
    if draws.len() < 2 {
        return (mean, f64::INFINITY);
    }
    let squares: f64 = draws.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, (squares / (m - 1.0) / m).sqrt())
}
