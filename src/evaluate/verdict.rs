//! Verdicts on a difference: established, absent up to a margin, or open.

use super::{student_quantile, student_tail};
use serde::{Deserialize, Serialize};

/// Whether a difference is statistically established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is better.
    Better,
    /// B is worse.
    Worse,
    /// No difference beyond [`EQUIVALENT_NATS`]; of other figures, none at all.
    Equivalent,
    /// None of these is established.
    Open,
}

/// Two losses that differ by less than this are equal for practical purposes, nats.
pub const EQUIVALENT_NATS: f64 = 0.005;

/// Minimum number of images for an interval to count as evidence. Bootstrap intervals of few images
/// are too narrow, by √((n − 1)/n).
pub const FEW: usize = 30;

/// Minimum number of training seeds for a verdict. The interval of two seeds has a Student's t of 12.7.
pub const FEWEST_SEEDS: usize = 3;

/// The 95% interval of a mean with an error of `df` degrees of freedom, by Student's t.
pub fn interval(mean: f64, stderr: f64, df: f64) -> [f64; 2] {
    let half = student_quantile(0.975, df) * stderr;
    [mean - half, mean + half]
}

/// The smallest true effect that an experiment with this error finds with 80% power in a two-sided test at
/// 5%: (t₀.₉₇₅ + t₀.₈) × the error (Bloom, Evaluation Review 19, 1995).
pub fn smallest_visible(stderr: f64, df: f64) -> f64 {
    (student_quantile(0.975, df) + student_quantile(0.8, df)) * stderr
}

/// p of two one-sided t tests of the hypothesis that a mean is outside ±`margin`: the larger of their p
/// (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987).
pub fn equivalence(mean: f64, stderr: f64, df: f64, margin: f64) -> f64 {
    let room = margin - mean.abs();
    if stderr > 0.0 {
        return student_tail(room / stderr, df);
    }
    if room > 0.0 { 0.0 } else { 1.0 }
}

/// The verdict of a 95% interval and of p of [`equivalence`], if that was tested.
///
/// An interval without 0 establishes a difference, however small. Otherwise p < 0.05 establishes that there
/// is none beyond the margin. Differences up to `rounding` count as none, however consistent they are.
pub fn verdict([low, high]: [f64; 2], equivalence_p: Option<f64>, rounding: f64) -> Verdict {
    if low.abs().max(high.abs()) <= rounding {
        Verdict::Equivalent
    } else if low > 0.0 {
        Verdict::Better
    } else if high < 0.0 {
        Verdict::Worse
    } else if equivalence_p.is_some_and(|p| p < 0.05) {
        Verdict::Equivalent
    } else {
        Verdict::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tests/reference/make_effects.py` wrote, by SciPy and statsmodels.
    #[derive(serde::Deserialize)]
    struct Reference {
        equivalence: Vec<Row>,
    }

    #[derive(serde::Deserialize)]
    struct Row {
        mean: f64,
        stderr: f64,
        df: f64,
        margin: f64,
        p: f64,
        interval: [f64; 2],
        smallest_visible: f64,
    }

    #[test]
    fn tests_equal_statsmodels_and_scipy() {
        let text = include_str!("../../tests/reference/effects.json");
        let reference: Reference = serde_json::from_str(text).unwrap();
        assert!(reference.equivalence.len() >= 4);
        let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-11 * b.abs(), "{a} {b}");
        for row in reference.equivalence {
            close(equivalence(row.mean, row.stderr, row.df, row.margin), row.p);
            let found = interval(row.mean, row.stderr, row.df);
            close(found[0], row.interval[0]);
            close(found[1], row.interval[1]);
            close(smallest_visible(row.stderr, row.df), row.smallest_visible);
        }
    }

    #[test]
    fn a_verdict_needs_an_interval_without_zero_or_a_passed_test_of_equivalence() {
        // With 4 degrees of freedom t₀.₉₇₅ = 2.776 and t₀.₉₅ = 2.132.
        let cases = [
            (0.028, 0.01, Verdict::Better),
            (-0.028, 0.01, Verdict::Worse),
            (0.027, 0.01, Verdict::Open),
            (0.0, 0.0024, Verdict::Open),
            (0.0, 0.0023, Verdict::Equivalent),
            (0.002, 0.0014, Verdict::Equivalent),
            // Established, although it is smaller than the margin.
            (0.002, 0.0005, Verdict::Better),
            (1e-7, 0.0, Verdict::Equivalent),
            (0.1, 0.0, Verdict::Better),
        ];
        for (mean, stderr, expected) in cases {
            let p = equivalence(mean, stderr, 4.0, EQUIVALENT_NATS);
            let found = verdict(interval(mean, stderr, 4.0), Some(p), 1e-6);
            assert_eq!(found, expected, "{mean} ± {stderr}");
        }
        assert_eq!(verdict([-0.001, 0.001], None, 1e-6), Verdict::Open);
        assert_eq!(verdict([1e-7, 1e-7], None, 1e-8), Verdict::Better);
    }
}
