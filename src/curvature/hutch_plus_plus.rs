//! Hutch++ estimate of the trace of A: R. A. Meyer, C. Musco, C. Musco, D. P. Woodruff, "Hutch++:
//! Optimal stochastic trace estimation", SOSA 2021, algorithm 1.
//!
//! Let Q (n, r) be an orthonormal basis of A S for r random sign vectors S, and P = I − QQᵀ. Then
//! tr A = tr QᵀAQ + tr PAP. The first term is computed exactly. The second is estimated with
//! Hutchinson probes; its variance only comes from the part of A outside Q. If n is at most the
//! number of products before the first check, the diagonal is computed instead.

use super::basis::{Basis, stored_bytes};
use super::hutchinson::{MIN_PROBES, ProbeMean, check, diagonal_sum, probe};
use super::krylov::ROUNDING;
use super::statistics::student_95;
use super::vectors::{dimension, dot, norm, precision, products, signs};
use super::{LinearOperator, Result};
use crate::random::stream;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Accuracy and cost limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HutchPlusPlusSettings {
    /// r, the number of sketch vectors; each costs two products. 0 gives Hutchinson's estimator.
    pub sketch: usize,
    /// Stops at this standard error, relative to the trace. 0 uses all probes, unless they agree up
    /// to rounding.
    pub tolerance: f64,
    /// Maximum number of probes, at least 2. The first check is after eight.
    pub max_probes: usize,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for HutchPlusPlusSettings {
    fn default() -> Self {
        Self { sketch: 16, tolerance: 0.05, max_probes: 100, seed: 0 }
    }
}

/// Estimated trace with its error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HutchPlusPlusTrace {
    /// tr QᵀAQ plus the mean of zᵀPAPz over the probes z.
    pub trace: f64,
    /// tr QᵀAQ, the exact part.
    pub sketched: f64,
    /// Standard error of the mean; 0 if the trace is exact.
    pub stderr: f64,
    /// Half a 95% confidence interval: the standard error times Student's t of the probes.
    pub half_width_95: f64,
    /// Bound on the additional error from rounding in A's products: their precision times (Σ ‖Aq‖ +
    /// mean of ‖Pz‖ ‖APz‖).
    pub rounding: f64,
    /// Whether the standard error is within the tolerance times |trace|, or within `rounding`.
    pub converged: bool,
    /// Columns of Q: numerical rank of the sketch. n if the trace is exact.
    pub rank: usize,
    /// Probes of tr PAP. 0 if the trace is exact.
    pub probes: usize,
    /// Total number of products with A.
    pub products: usize,
}

/// Upper bound, in bytes, of the memory [`trace`] uses besides the operator, for dimension n,
/// products of this precision and blocks of `block` vectors: Q (f32 or f64, see `precision`) and
/// work vectors.
pub fn bytes(settings: &HutchPlusPlusSettings, n: usize, precision: f64, block: usize) -> u64 {
    let n = n as u64;
    let basis = (settings.sketch as u64).min(n).saturating_mul(stored_bytes(precision));
    let work = (block.max(1) as u64).saturating_mul(2 * 8);
    basis.saturating_add(work).saturating_mul(n)
}

/// Estimates the trace of A.
///
/// Q is fixed before the probes are drawn, so the probes are independent given Q, and the standard
/// error holds as in [`hutchinson::trace`](super::hutchinson::trace), including its bias from early
/// stopping.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a negative tolerance or fewer than two probes;
/// [`Error::ZeroDimension`](super::Error); errors of the products.
pub fn trace(
    operator: &dyn LinearOperator,
    settings: &HutchPlusPlusSettings,
) -> Result<HutchPlusPlusTrace> {
    check(settings.tolerance, settings.max_probes)?;
    let n = dimension(operator)?;
    let precision = precision(operator);
    if n <= settings.sketch.saturating_mul(2).saturating_add(MIN_PROBES.min(settings.max_probes)) {
        let (trace, size) = diagonal_sum(operator, n)?;
        return Ok(HutchPlusPlusTrace {
            trace,
            sketched: trace,
            stderr: 0.0,
            half_width_95: 0.0,
            rounding: precision * size,
            converged: true,
            rank: n,
            probes: 0,
            products: n,
        });
    }
    let mut rng = stream(settings.seed, "curvature: Hutch++");
    let (basis, taken) = sketch(operator, n, settings, &mut rng)?;
    let rank = basis.len();
    let (mut sketched, mut size) = (0.0, 0.0);
    for start in (0..rank).step_by(operator.block().max(1)) {
        let some = basis.vectors(start, operator.block().max(1));
        for (q, product) in some.iter().zip(products(operator, &some)?) {
            // q has unit length only up to the rounding of its storage.
            sketched += dot(q, &product) / dot(q, q);
            size += norm(&product);
        }
    }
    let rounding = |rest: &ProbeMean| precision * (size + rest.size);
    let enough = |rest: &ProbeMean| {
        rest.stderr <= (settings.tolerance * (sketched + rest.mean).abs()).max(rounding(rest))
    };
    let draw = || {
        let mut z = signs(n, &mut rng);
        basis.project_out(0, &mut z);
        basis.project_out(0, &mut z);
        z
    };
    let rest = probe(operator, settings.max_probes, draw, enough)?;
    Ok(HutchPlusPlusTrace {
        trace: sketched + rest.mean,
        sketched,
        stderr: rest.stderr,
        half_width_95: rest.stderr * student_95(rest.probes - 1),
        rounding: rounding(&rest),
        converged: enough(&rest),
        rank,
        probes: rest.probes,
        products: taken + rank + rest.probes,
    })
}

/// Returns an orthonormal basis of A S and the number of products used.
fn sketch(
    operator: &dyn LinearOperator,
    n: usize,
    settings: &HutchPlusPlusSettings,
    rng: &mut ChaCha8Rng,
) -> Result<(Basis, usize)> {
    let precision = precision(operator);
    let size = settings.sketch;
    let mut basis = Basis::new(precision);
    let (mut taken, mut longest) = (0, 0.0_f64);
    while taken < size {
        let count = operator.block().max(1).min(size - taken);
        let block: Vec<Vec<f64>> = (0..count).map(|_| signs(n, rng)).collect();
        taken += count;
        for mut product in products(operator, &block)? {
            longest = longest.max(norm(&product));
            basis.project_out(0, &mut product);
            // What remains of a product within the span of Q is rounding, not a direction of A.
            basis.append(product, ROUNDING * precision * longest);
        }
    }
    Ok((basis, taken))
}
