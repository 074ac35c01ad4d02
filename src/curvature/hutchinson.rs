//! The trace of A from random signs: M. F. Hutchinson, "A stochastic estimator of the trace of the
//! influence matrix for Laplacian smoothing splines", Commun. Stat. Simul. Comput. 1990.
//!
//! tr A = E(zᵀAz) for z of independent signs ±1, with variance 2 Σ_{i≠j} A_ij².

use super::error::require;
use super::statistics::{mean_and_error, student_95};
use super::vectors::{dimension, dot, norm, precision, products, signs};
use super::{LinearOperator, Result};
use crate::data::order::stream;
use serde::Serialize;

/// Probes before the standard error is believed: that of fewer is too uncertain itself.
pub(super) const FEWEST: usize = 8;

/// How exactly, and at what cost at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Standard error, relative to the trace, at which to stop; 0 takes all probes unless they
    /// agree to rounding.
    pub tolerance: f64,
    /// Probes at most, 2 or more. No decision falls before the eighth.
    pub max_probes: usize,
    /// Of the random numbers.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tolerance: 0.05, max_probes: 100, seed: 0 }
    }
}

/// A trace with its error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// The mean of zᵀAz over the probes z.
    pub trace: f64,
    /// Its standard error.
    pub stderr: f64,
    /// Half a 95% confidence interval: the standard error times Student's t of the probes.
    pub half_width_95: f64,
    /// How large rounding in A's products can make the error beside: their precision times the
    /// mean of ‖z‖ ‖Az‖.
    pub rounding: f64,
    /// Whether the standard error is within the tolerance times |trace|, or within `rounding`.
    pub converged: bool,
    /// Probes taken, one product each.
    pub probes: usize,
}

/// The trace of A.
///
/// Probes are given in blocks of `operator.block()` until the standard error is small enough, but
/// at least eight. Where they stop depends on the estimated error, which favours moments when it
/// comes out low: the error of a run that stopped early is understated a little. For an interval
/// at its nominal rate set the tolerance to 0 and `max_probes` to what you can afford. And where a
/// single eigenvalue makes up the trace, zᵀAz is skewed like χ², and few probes give intervals that
/// cover nearer to 90% than to 95%: Hutch++ takes such eigenvalues out.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a negative tolerance or fewer than two probes;
/// [`Error::ZeroDimension`](super::Error); those of the products.
pub fn trace(operator: &dyn LinearOperator, settings: &Settings) -> Result<Trace> {
    check(settings.tolerance, settings.max_probes)?;
    let n = dimension(operator)?;
    let mut rng = stream(settings.seed, "curvature: Hutchinson");
    let precision = precision(operator);
    let rounding = |found: &Probed| precision * found.size;
    let enough = |found: &Probed| {
        found.stderr <= (settings.tolerance * found.mean.abs()).max(rounding(found))
    };
    let found = probe(operator, settings.max_probes, || signs(n, &mut rng), enough)?;
    Ok(Trace {
        trace: found.mean,
        stderr: found.stderr,
        half_width_95: found.stderr * student_95(found.probes - 1),
        rounding: rounding(&found),
        converged: enough(&found),
        probes: found.probes,
    })
}

/// # Errors
/// [`Error::Setting`](super::Error).
pub(super) fn check(tolerance: f64, max_probes: usize) -> Result<()> {
    require(tolerance >= 0.0, "tolerance", "0 or more", tolerance)?;
    require(max_probes >= 2, "max_probes", "2 or more, for a standard error", max_probes)
}

/// Quadratic forms zᵀAz of some probes z.
#[derive(Default)]
pub(super) struct Probed {
    pub(super) mean: f64,
    pub(super) stderr: f64,
    /// Mean of ‖z‖ ‖Az‖, which bounds the forms.
    pub(super) size: f64,
    pub(super) probes: usize,
}

/// Takes probes, [`FEWEST`] a round, until they are enough, or `most`.
///
/// # Errors
/// Those of the products.
pub(super) fn probe(
    operator: &dyn LinearOperator,
    most: usize,
    mut draw: impl FnMut() -> Vec<f64>,
    enough: impl Fn(&Probed) -> bool,
) -> Result<Probed> {
    let (mut forms, mut sizes) = (Vec::new(), Vec::new());
    loop {
        // Rounds of one size: how many vectors fit at once decides nothing.
        let count = FEWEST.min(most - forms.len());
        let some: Vec<Vec<f64>> = (0..count).map(|_| draw()).collect();
        for (z, product) in some.iter().zip(products(operator, &some)?) {
            forms.push(dot(z, &product));
            sizes.push(norm(z) * norm(&product));
        }
        let (mean, stderr) = mean_and_error(&forms);
        let (size, probes) = (mean_and_error(&sizes).0, forms.len());
        let found = Probed { mean, stderr, size, probes };
        if probes >= most || (probes >= FEWEST && enough(&found)) {
            return Ok(found);
        }
    }
}
