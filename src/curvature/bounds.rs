//! Probable bounds of the spectrum from a Lanczos run, and what they say about an eigenvalue.
//!
//! J. van Dorsselaer, M. Hochstenbach, H. van der Vorst, "Computing probabilistic bounds for extreme
//! eigenvalues of symmetric matrices with the Lanczos method", SIAM J. Matrix Anal. Appl. 2000.

use std::f64::consts::PI;

/// Probability that a bound of [`Start`] is wrong.
pub(super) const RISK: f64 = 1e-4;

/// Halvings of an interval. Its length is at most about 1e12 of what has to be resolved, and f64
/// has 53 bits.
const HALVINGS: usize = 110;

/// A Lanczos run from one random vector: its tridiagonal matrix, with the last β.
#[derive(Debug, Default)]
pub(super) struct LanczosRun {
    /// α₁ … αₖ.
    pub(super) alphas: Vec<f64>,
    /// β₁ … βₖ. The last one is the length of the part of the last product outside the space.
    pub(super) betas: Vec<f64>,
}

impl LanczosRun {
    /// Upper bound of the eigenvalues of an operator of dimension `n`, wrong with probability
    /// [`RISK`]. `ritz` is the largest Ritz value.
    ///
    /// Let x be a unit eigenvector of λ, and γ the size of its inner product with the start. The
    /// vector j + 1 of the run is pⱼ(A) times the start, with the orthonormal polynomials pⱼ of the
    /// recurrence βⱼ pⱼ(t) = (t − αⱼ) pⱼ₋₁(t) − βⱼ₋₁ pⱼ₋₂(t). So the inner products of x with the
    /// vectors of the run are γ pⱼ(λ), and γ² Σ pⱼ(λ)² ≤ 1. Above `ritz` the sum grows with λ. For
    /// a random start, γ < δ has at most the probability δ √(2n/π).
    pub(super) fn upper(&self, n: usize, ritz: f64) -> f64 {
        let most = 2.0 * n as f64 / PI / (RISK * RISK);
        let step = self.betas.iter().copied().fold(0.0, f64::max);
        // p₁ alone excludes everything above this.
        let (mut low, mut high) = (ritz, ritz + step * most.sqrt());
        for _ in 0..HALVINGS {
            let middle = low + (high - low) / 2.0;
            if self.exceeds(middle, most) { high = middle } else { low = middle }
        }
        high
    }

    /// [`upper`](Self::upper) at the other end of the spectrum.
    pub(super) fn lower(&self, n: usize, ritz: f64) -> f64 {
        let alphas = self.alphas.iter().map(|a| -a).collect();
        -Self { alphas, betas: self.betas.clone() }.upper(n, -ritz)
    }

    /// Whether Σ pⱼ(t)² exceeds `most`.
    fn exceeds(&self, t: f64, most: f64) -> bool {
        let (mut before, mut p, mut beta_before, mut sum) = (0.0, 1.0, 0.0, 1.0);
        for (alpha, &beta) in self.alphas.iter().zip(&self.betas) {
            if beta == 0.0 {
                // The space is invariant: above its largest Ritz value, there is no eigenvalue.
                return true;
            }
            (before, p) = (p, ((t - alpha) * p - beta_before * before) / beta);
            beta_before = beta;
            sum += p * p;
            if sum > most {
                return true;
            }
        }
        false
    }
}

/// Upper bound of the eigenvalues of [[Θ, Rᵀ], [R, B]] if no eigenvalue of B exceeds `outside`.
/// `inside` has the entries of the diagonal matrix Θ, each with the length of its column of R.
///
/// With ρⱼ these lengths, xᵀRᵀz ≤ Σ ρⱼ |xⱼ| ‖z‖. So the largest eigenvalue is at most that of the
/// matrix with Θ and `outside` on its diagonal and ρ in its last row and column: the largest root t
/// of t − outside = Σ ρⱼ² / (t − θⱼ).
pub(super) fn coupled(inside: &[(f64, f64)], outside: f64) -> f64 {
    let coupling = inside.iter().map(|(_, rho)| rho * rho).sum::<f64>().sqrt();
    let mut low = inside.iter().map(|(theta, _)| *theta).fold(outside, f64::max);
    if coupling == 0.0 {
        return low;
    }
    let mut high = low + coupling;
    for _ in 0..HALVINGS {
        let t = low + (high - low) / 2.0;
        let sum: f64 = inside.iter().map(|(theta, rho)| rho * (rho / (t - theta))).sum();
        if t - outside >= sum { high = t } else { low = t }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Lanczos polynomials of the discrete Chebyshev case α = 0, β = 1/2 are those of the
    /// second kind: pⱼ(cosh u) = sinh((j + 1) u) / sinh u.
    #[test]
    fn bound_of_chebyshev_polynomials() {
        let k = 30;
        let run = LanczosRun { alphas: vec![0.0; k], betas: vec![0.5; k] };
        let ritz = (PI / (k as f64 + 1.0)).cos();
        for n in [50, 1_000_000] {
            let t = run.upper(n, ritz);
            let u = t.acosh();
            let sum: f64 = (0..=k).map(|j| (((j + 1) as f64 * u).sinh() / u.sinh()).powi(2)).sum();
            let most = 2.0 * n as f64 / PI * 1e8;
            assert!((sum / most - 1.0).abs() < 1e-6, "{n}: {t}");
            assert!((run.lower(n, -ritz) + t).abs() < 1e-12);
        }
        let invariant = LanczosRun { alphas: vec![3.0, 1.0], betas: vec![1.0, 0.0] };
        let ritz = 2.0 + 2f64.sqrt();
        assert!((invariant.upper(9, ritz) - ritz).abs() < 1e-12);
        let zero = LanczosRun { alphas: vec![0.0], betas: vec![0.0] };
        assert_eq!((zero.upper(9, 0.0), zero.lower(9, 0.0)), (0.0, 0.0));
    }

    /// The eigenvalues of [[θ, ρ], [ρ, μ]] are (θ + μ)/2 ± √(((θ − μ)/2)² + ρ²).
    #[test]
    fn bound_of_two_by_two() {
        for (theta, rho, mu) in
            [(1.0, 0.1, 0.5), (1.0, 0.1, 1.0), (-1.0, 0.3, 0.2), (2.0, 0.0, 1.0)]
        {
            let root: f64 = (0.25_f64 * (theta - mu) * (theta - mu) + rho * rho).sqrt();
            let expected = 0.5 * (theta + mu) + root;
            assert!((coupled(&[(theta, rho)], mu) - expected).abs() < 1e-14);
            assert!((coupled(&[(-3.0, 0.0), (theta, rho)], mu) - expected).abs() < 1e-14);
        }
        assert_eq!(coupled(&[], 0.7), 0.7);
    }
}
