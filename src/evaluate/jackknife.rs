//! Standard errors of figures that are not means.

/// Delete-one jackknife: √((n − 1)/n · Σ(θ₍₋ᵢ₎ − θ̄)²), where θ₍₋ᵢ₎ is the figure without image i
/// (Tukey, 1958; Efron, "The jackknife, the bootstrap and other resampling plans", 1982, chapter
/// 3). `None` for fewer than two images.
///
/// It needs neither a seed nor resamples, and for the smooth figures here agrees with the
/// bootstrap. It is not valid for quantiles; those are bootstrapped.
pub(super) fn stderr(without: &[f64]) -> Option<f64> {
    let n = without.len() as f64;
    let mean = without.iter().sum::<f64>() / n;
    let squares: f64 = without.iter().map(|x| (x - mean).powi(2)).sum();
    (without.len() > 1).then(|| ((n - 1.0) / n * squares).sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::mean_stderr;
    use super::*;

    #[test]
    fn for_a_mean_it_equals_the_usual_standard_error() {
        let x = [1.0, 4.0, 2.5, -3.0, 0.125];
        let total: f64 = x.iter().sum();
        let without: Vec<f64> = x.iter().map(|x| (total - x) / 4.0).collect();
        let expected = mean_stderr(&x).stderr.unwrap();
        assert!((stderr(&without).unwrap() / expected - 1.0).abs() < 1e-14);
        assert_eq!(stderr(&[f64::NAN]), None);
    }
}
