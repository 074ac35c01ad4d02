//! McNemar's test: whether two models' accuracies differ on the same images.

use serde::{Deserialize, Serialize};

/// McNemar's test in its exact form.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Images that only A classifies rightly.
    pub only_a: usize,
    /// Images that only B classifies rightly.
    pub only_b: usize,
    /// Two-sided p: 2 P(X ≤ min), X binomial of `only_a` + `only_b` draws at 1/2, at most 1.
    pub p: f64,
}

/// Tests whether `only_a` and `only_b` are equally likely (McNemar, Psychometrika 12, 1947). The
/// test is exact for any count.
pub fn mcnemar(only_a: usize, only_b: usize) -> McNemar {
    let (n, least) = (only_a + only_b, only_a.min(only_b));
    // The largest term of the tail, then each lower one by its ratio to the one before.
    let ln = |k: usize| libm::lgamma(k as f64 + 1.0);
    let top = ln(n) - ln(least) - ln(n - least) - n as f64 * std::f64::consts::LN_2;
    let (mut term, mut sum) = (1.0, 1.0);
    for k in (1..=least).rev() {
        term *= k as f64 / (n - k + 1) as f64;
        sum += term;
        if term < 1e-18 * sum {
            break;
        }
    }
    McNemar { only_a, only_b, p: (2.0 * top.exp() * sum).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_counts_match_a_hand_calculation() {
        assert_eq!(mcnemar(0, 0).p, 1.0);
        assert_eq!(mcnemar(3, 3).p, 1.0);
        let close = |p: f64, expected: f64| assert!((p / expected - 1.0).abs() < 1e-12, "{p}");
        close(mcnemar(1, 0).p, 1.0);
        close(mcnemar(0, 5).p, 2.0 / 32.0);
        // (1 + 10 + 45) · 2 / 1024.
        close(mcnemar(8, 2).p, 112.0 / 1024.0);
        assert_eq!(mcnemar(8, 2).p, mcnemar(2, 8).p);
    }

    #[test]
    fn large_counts_match_the_normal_approximation() {
        // z = (|b − c| − 1)/√(b + c) = 1.9599640 gives p = 0.05.
        let n = 1_000_000usize;
        let least = (n as f64 / 2.0 - 0.5 - 0.5 * 1.959_964 * (n as f64).sqrt()).round() as usize;
        let p = mcnemar(least, n - least).p;
        assert!((p - 0.05).abs() < 2e-4, "{p}");
        assert!(mcnemar(0, 100_000).p < 1e-300);
    }
}
