//! Hutchinson's estimate of the trace of A: M. F. Hutchinson, "A stochastic estimator of the trace
//! of the influence matrix for Laplacian smoothing splines", Commun. Stat. Simul. Comput. 1990.
//!
//! tr A = E(zᵀAz) for z with independent random signs ±1. The variance is 2 Σ_{i≠j} A_ij². If n is
//! at most the number of probes before the first check, the diagonal is computed instead.

use super::error::require;
use super::statistics::{mean_and_error, student_95};
use super::vectors::{dimension, dot, norm, precision, products, signs};
use super::{LinearOperator, Result};
use crate::random::stream;
use serde::Serialize;

/// Probes before the first check. With fewer, the standard error itself is too uncertain.
pub(super) const MIN_PROBES: usize = 8;

/// Accuracy and cost limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HutchinsonSettings {
    /// Stops at this standard error, relative to the trace. 0 uses all probes, unless they agree up
    /// to rounding.
    pub tolerance: f64,
    /// Maximum number of probes, at least 2. The first check is after eight.
    pub max_probes: usize,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for HutchinsonSettings {
    fn default() -> Self {
        Self { tolerance: 0.05, max_probes: 100, seed: 0 }
    }
}

/// Estimated trace with its error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HutchinsonTrace {
    /// The mean of zᵀAz over the probes z.
    pub trace: f64,
    /// Its standard error.
    pub stderr: f64,
    /// Half a 95% confidence interval: the standard error times Student's t of the probes.
    pub half_width_95: f64,
    /// Bound on the additional error from rounding in A's products: their precision times the mean
    /// of ‖z‖ ‖Az‖.
    pub rounding: f64,
    /// Whether the standard error is within the tolerance times |trace|, or within `rounding`.
    pub converged: bool,
    /// Number of probes, one product each. n unit vectors if the trace is exact.
    pub probes: usize,
}

/// Estimates the trace of A.
///
/// Draws probes in rounds of eight until the standard error is small enough. Products are computed
/// in blocks of `operator.block()` vectors.
///
/// The stopping rule favours moments at which the estimated error happens to be low, so a run that
/// stops early understates its error slightly. For intervals with nominal coverage, set the
/// tolerance to 0 and `max_probes` to the affordable number. If a single eigenvalue dominates the
/// trace, zᵀAz is skewed like χ², and intervals from few probes cover closer to 90% than to 95%;
/// Hutch++ removes such eigenvalues.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a negative tolerance or fewer than two probes;
/// [`Error::ZeroDimension`](super::Error); errors of the products.
pub fn trace(
    operator: &dyn LinearOperator,
    settings: &HutchinsonSettings,
) -> Result<HutchinsonTrace> {
    check(settings.tolerance, settings.max_probes)?;
    let n = dimension(operator)?;
    let precision = precision(operator);
    if n <= MIN_PROBES.min(settings.max_probes) {
        let (trace, size) = diagonal_sum(operator, n)?;
        let rounding = precision * size;
        return Ok(HutchinsonTrace {
            trace,
            stderr: 0.0,
            half_width_95: 0.0,
            rounding,
            converged: true,
            probes: n,
        });
    }
    let mut rng = stream(settings.seed, "curvature: Hutchinson");
    let rounding = |found: &ProbeMean| precision * found.size;
    let enough = |found: &ProbeMean| {
        found.stderr <= (settings.tolerance * found.mean.abs()).max(rounding(found))
    };
    let found = probe(operator, settings.max_probes, || signs(n, &mut rng), enough)?;
    Ok(HutchinsonTrace {
        trace: found.mean,
        stderr: found.stderr,
        half_width_95: found.stderr * student_95(found.probes - 1),
        rounding: rounding(&found),
        converged: enough(&found),
        probes: found.probes,
    })
}

/// Σ eᵢᵀAeᵢ over the n unit vectors, and Σ ‖Aeᵢ‖, an upper bound of its size.
///
/// # Errors
/// Those of the products.
pub(super) fn diagonal_sum(operator: &dyn LinearOperator, n: usize) -> Result<(f64, f64)> {
    let (mut sum, mut size) = (0.0, 0.0);
    let all: Vec<usize> = (0..n).collect();
    for some in all.chunks(operator.block().max(1)) {
        let unit = |i: &usize| (0..n).map(|j| if *i == j { 1.0 } else { 0.0 }).collect();
        let units: Vec<Vec<f64>> = some.iter().map(unit).collect();
        for (&i, column) in some.iter().zip(products(operator, &units)?) {
            sum += column.get(i).copied().unwrap_or_default();
            size += norm(&column);
        }
    }
    Ok((sum, size))
}

/// Checks the settings.
///
/// # Errors
/// [`Error::Setting`](super::Error).
pub(super) fn check(tolerance: f64, max_probes: usize) -> Result<()> {
    require(tolerance >= 0.0, "tolerance", "0 or more", tolerance)?;
    require(max_probes >= 2, "max_probes", "2 or more, for a standard error", max_probes)
}

/// Mean of the quadratic forms zᵀAz over probes z, with its error.
#[derive(Default)]
pub(super) struct ProbeMean {
    pub(super) mean: f64,
    pub(super) stderr: f64,
    /// Mean of ‖z‖ ‖Az‖, an upper bound of the forms.
    pub(super) size: f64,
    pub(super) probes: usize,
}

/// Draws probes in rounds of [`MIN_PROBES`] until `enough` holds or there are `most`.
///
/// # Errors
/// Those of the products.
pub(super) fn probe(
    operator: &dyn LinearOperator,
    most: usize,
    mut draw: impl FnMut() -> Vec<f64>,
    enough: impl Fn(&ProbeMean) -> bool,
) -> Result<ProbeMean> {
    let (mut forms, mut sizes) = (Vec::new(), Vec::new());
    loop {
        // Rounds have a fixed size, so the result does not depend on the operator's block size.
        let count = MIN_PROBES.min(most - forms.len());
        let some: Vec<Vec<f64>> = (0..count).map(|_| draw()).collect();
        for (z, product) in some.iter().zip(products(operator, &some)?) {
            forms.push(dot(z, &product));
            sizes.push(norm(z) * norm(&product));
        }
        let (mean, stderr) = mean_and_error(&forms);
        let (size, probes) = (mean_and_error(&sizes).0, forms.len());
        let found = ProbeMean { mean, stderr, size, probes };
        if probes >= most || (probes >= MIN_PROBES && enough(&found)) {
            return Ok(found);
        }
    }
}
