//! Several tests at once.

use super::Estimate;

/// Level of one-sided tests, corrected for their number: what the upper end of a two-sided 95% interval
/// leaves.
pub const LEVEL: f64 = 0.025;

/// p of the one-sided test that a mean is above 0, by its standard error: 1 − Φ(mean/stderr). `None`
/// without a standard error above 0.
pub fn p_above_zero(mean: f64, stderr: Option<f64>) -> Option<f64> {
    let stderr = stderr.filter(|stderr| *stderr > 0.0)?;
    Some(0.5 * libm::erfc(mean / stderr / std::f64::consts::SQRT_2))
}

/// Adjusted p values: rejecting those up to a level keeps the chance of any false rejection, among
/// `looks` hypotheses, below that level (Holm, Scandinavian Journal of Statistics 6, 1979). `looks` is
/// at least the number of p values; more if other hypotheses were tested before on the same images.
pub fn holm(p: &[f64], looks: usize) -> Vec<f64> {
    let looks = looks.max(p.len());
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut out, mut largest) = (vec![1.0; p.len()], 0.0f64);
    for (rank, i) in order.into_iter().enumerate() {
        largest = largest.max((looks - rank) as f64 * p[i]).min(1.0);
        out[i] = largest;
    }
    out
}

/// One-sided p values of several estimates being above 0, corrected by [`holm`]. `None` for those without
/// a standard error above 0; they count as hypotheses.
pub fn holm_above_zero(estimates: &[Estimate], looks: usize) -> Vec<Option<f64>> {
    let p: Vec<Option<f64>> = estimates.iter().map(|e| p_above_zero(e.mean, e.stderr)).collect();
    let corrected = holm(&p.iter().map(|p| p.unwrap_or(1.0)).collect::<Vec<_>>(), looks);
    p.into_iter().zip(corrected).map(|(p, corrected)| p.map(|_| corrected)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tests/reference/make_holm.py` wrote, by SciPy and statsmodels.
    #[derive(serde::Deserialize)]
    struct Reference {
        z: Vec<f64>,
        p: Vec<f64>,
        p_holm: Vec<f64>,
        p_holm_of_more: Vec<f64>,
    }

    #[test]
    fn p_values_equal_scipy_and_statsmodels() {
        let text = include_str!("../../tests/reference/holm.json");
        let reference: Reference = serde_json::from_str(text).unwrap();
        let p: Vec<f64> =
            reference.z.iter().map(|z| p_above_zero(*z, Some(1.0)).unwrap()).collect();
        let close = |found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() <= 1e-12 * b, "{found:?} {expected:?}");
            }
        };
        close(&p, &reference.p);
        close(&holm(&p, 0), &reference.p_holm);
        close(&holm(&p, p.len() + 3), &reference.p_holm_of_more);
        let estimates: Vec<Estimate> =
            reference.z.iter().map(|z| Estimate { mean: *z, stderr: Some(1.0) }).collect();
        let corrected = holm_above_zero(&estimates, p.len() + 3);
        close(
            &corrected.into_iter().map(Option::unwrap).collect::<Vec<_>>(),
            &reference.p_holm_of_more,
        );
        assert_eq!((p_above_zero(1.0, None), p_above_zero(1.0, Some(0.0))), (None, None));
    }
}
