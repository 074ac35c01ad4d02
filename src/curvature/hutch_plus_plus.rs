//! The trace of A, its dominant part exactly: Hutch++, R. A. Meyer, C. Musco, C. Musco,
//! D. P. Woodruff, "Hutch++: Optimal stochastic trace estimation", SOSA 2021, algorithm 1.
//!
//! With Q (n, r) an orthonormal basis of A S for r random sign vectors S, and P = I − QQᵀ,
//! tr A = tr QᵀAQ + tr PAP. The first is computed, the second estimated by Hutchinson's probes,
//! whose variance is now that of the part of A outside Q alone.

use super::basis::{Basis, stored_bytes};
use super::hutchinson::{Probed, check, probe};
use super::krylov::ROUNDING;
use super::statistics::student_95;
use super::vectors::{dimension, dot, norm, precision, products, signs};
use super::{LinearOperator, Result};
use crate::data::order::stream;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// How exactly, and at what cost at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// r, vectors of the sketch: two products each. 0 makes it Hutchinson's estimator.
    pub sketch: usize,
    /// Standard error, relative to the trace, at which to stop; 0 takes all probes unless they
    /// agree to rounding.
    pub tolerance: f64,
    /// Probes of the rest at most, 2 or more. No decision falls before the eighth.
    pub max_probes: usize,
    /// Of the random numbers.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sketch: 16, tolerance: 0.05, max_probes: 100, seed: 0 }
    }
}

/// A trace with its error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// tr QᵀAQ plus the mean of zᵀPAPz over the probes z.
    pub trace: f64,
    /// tr QᵀAQ, the part that is computed.
    pub sketched: f64,
    /// Standard error of the mean; 0 if Q spans everything.
    pub stderr: f64,
    /// Half a 95% confidence interval: the standard error times Student's t of the probes.
    pub half_width_95: f64,
    /// How large rounding in A's products can make the error beside: their precision times
    /// Σ ‖Aq‖ plus the mean of ‖Pz‖ ‖APz‖.
    pub rounding: f64,
    /// Whether the standard error is within the tolerance times |trace|, or within `rounding`.
    pub converged: bool,
    /// Columns of Q: the sketch's rank, to rounding.
    pub rank: usize,
    /// Probes of the rest.
    pub probes: usize,
    /// Products with A in all.
    pub products: usize,
}

/// Memory in bytes that [`trace`] takes at most on n numbers with products of this precision,
/// in blocks of `block`, beside what the operator takes itself: Q, in f32 if the precision is
/// f32's, in f64 otherwise, and the vectors in work.
pub fn bytes(settings: &Settings, n: usize, precision: f64, block: usize) -> u64 {
    let n = n as u64;
    let basis = (settings.sketch as u64).min(n).saturating_mul(stored_bytes(precision));
    let work = (block.max(1) as u64).saturating_mul(2 * 8);
    basis.saturating_add(work).saturating_mul(n)
}

/// The trace of A.
///
/// Q is fixed first, so that the probes are independent given Q and the standard error holds as in
/// [`hutchinson::trace`](super::hutchinson::trace), with the same remark on stopping.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a negative tolerance or fewer than two probes;
/// [`Error::ZeroDimension`](super::Error); those of the products.
pub fn trace(operator: &dyn LinearOperator, settings: &Settings) -> Result<Trace> {
    check(settings.tolerance, settings.max_probes)?;
    let n = dimension(operator)?;
    let precision = precision(operator);
    let mut rng = stream(settings.seed, "curvature: Hutch++");
    let (basis, taken) = sketch(operator, n, settings, &mut rng)?;
    let rank = basis.len();
    let (mut sketched, mut size) = (0.0, 0.0);
    for start in (0..rank).step_by(operator.block().max(1)) {
        let some = basis.vectors(start, operator.block().max(1));
        for (q, product) in some.iter().zip(products(operator, &some)?) {
            // q is of unit length up to its storage's rounding.
            sketched += dot(q, &product) / dot(q, q);
            size += norm(&product);
        }
    }
    let rounding = |rest: &Probed| precision * (size + rest.size);
    let enough = |rest: &Probed| {
        rest.stderr <= (settings.tolerance * (sketched + rest.mean).abs()).max(rounding(rest))
    };
    let draw = || {
        let mut z = signs(n, &mut rng);
        basis.project_out(0, &mut z);
        basis.project_out(0, &mut z);
        z
    };
    let (rest, half_width_95) = if rank < n {
        let rest = probe(operator, settings.max_probes, draw, enough)?;
        let half_width_95 = rest.stderr * student_95(rest.probes - 1);
        (rest, half_width_95)
    } else {
        (Probed::default(), 0.0)
    };
    Ok(Trace {
        trace: sketched + rest.mean,
        sketched,
        stderr: rest.stderr,
        half_width_95,
        rounding: rounding(&rest),
        converged: enough(&rest),
        rank,
        probes: rest.probes,
        products: taken + rank + rest.probes,
    })
}

/// An orthonormal basis of A S, and the products taken.
fn sketch(
    operator: &dyn LinearOperator,
    n: usize,
    settings: &Settings,
    rng: &mut ChaCha8Rng,
) -> Result<(Basis, usize)> {
    let precision = precision(operator);
    let size = settings.sketch.min(n);
    let mut basis = Basis::new(precision);
    let (mut taken, mut longest) = (0, 0.0_f64);
    while taken < size {
        let count = operator.block().max(1).min(size - taken);
        let block: Vec<Vec<f64>> = (0..count).map(|_| signs(n, rng)).collect();
        taken += count;
        for mut product in products(operator, &block)? {
            longest = longest.max(norm(&product));
            basis.project_out(0, &mut product);
            // What is left of a product within Q is rounding, and no direction of A's.
            basis.append(product, ROUNDING * precision * longest);
        }
    }
    Ok((basis, taken))
}
