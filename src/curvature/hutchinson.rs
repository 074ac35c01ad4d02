//! The trace of A from random signs: M. F. Hutchinson, "A stochastic estimator of the trace of the
//! influence matrix for Laplacian smoothing splines", Commun. Stat. Simul. Comput. 1990.
//!
//! tr A = E[zᵀAz] for z of independent signs ±1, with variance 2 Σ_{i≠j} A_ij².

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
/// at its nominal rate set the tolerance to 0 and `max_probes` to what you can afford.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a negative tolerance or fewer than two probes;
/// [`Error::ZeroDimension`](super::Error); those of the products.
pub fn trace(operator: &dyn LinearOperator, settings: &Settings) -> Result<Trace> {
    check(settings.tolerance, settings.max_probes)?;
    let n = dimension(operator)?;
    let mut rng = stream(settings.seed, "curvature: Hutchinson");
    let mut forms = Forms::default();
    loop {
        let count = forms.next_block(operator.block(), settings.max_probes);
        let probes: Vec<Vec<f64>> = (0..count).map(|_| signs(n, &mut rng)).collect();
        forms.take(operator, &probes)?;
        let (mean, stderr) = mean_and_error(&forms.values);
        let rounding = precision(operator) * mean_and_error(&forms.sizes).0;
        let converged = stderr <= (settings.tolerance * mean.abs()).max(rounding);
        let probes = forms.values.len();
        if probes >= settings.max_probes || (probes >= FEWEST && converged) {
            let half_width_95 = stderr * student_95(probes - 1);
            return Ok(Trace { trace: mean, stderr, half_width_95, rounding, converged, probes });
        }
    }
}

/// # Errors
/// [`Error::Setting`](super::Error).
pub(super) fn check(tolerance: f64, max_probes: usize) -> Result<()> {
    require(tolerance >= 0.0, "tolerance", "0 or more", tolerance)?;
    require(max_probes >= 2, "max_probes", "2 or more, for a standard error", max_probes)
}

/// Quadratic forms zᵀAz of the probes so far.
#[derive(Default)]
pub(super) struct Forms {
    pub(super) values: Vec<f64>,
    /// ‖z‖ ‖Az‖, which bounds each.
    pub(super) sizes: Vec<f64>,
}

impl Forms {
    /// Probes to take next.
    pub(super) fn next_block(&self, block: usize, most: usize) -> usize {
        block.max(1).min(most - self.values.len())
    }

    pub(super) fn take(&mut self, operator: &dyn LinearOperator, z: &[Vec<f64>]) -> Result<()> {
        for (z, product) in z.iter().zip(products(operator, z)?) {
            self.values.push(dot(z, &product));
            self.sizes.push(norm(z) * norm(&product));
        }
        Ok(())
    }
}
