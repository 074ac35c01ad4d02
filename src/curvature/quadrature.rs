//! The spectrum as a whole: stochastic Lanczos quadrature. S. Ubaru, J. Chen, Y. Saad, "Fast
//! estimation of tr(f(A)) via stochastic Lanczos quadrature", SIAM J. Matrix Anal. Appl. 2017; as a
//! density of Hessians, B. Ghorbani, S. Krishnan, Y. Xiao, "An investigation into neural net
//! optimization via Hessian eigenvalue density", ICML 2019.
//!
//! For a random unit vector v the Lanczos matrix T (m, m) has eigenvalues θₖ, and weights ωₖ, the
//! squared first entries of its eigenvectors, with Σ ωₖ f(θₖ) ≈ vᵀf(A)v: Gauss's rule, exact for
//! polynomials of degree up to 2m − 1. Over random v the mean of vᵀf(A)v is (1/n) Σ f(λᵢ).

use super::basis::stored_bytes;
use super::error::require;
use super::hutchinson::{FEWEST, check};
use super::krylov::Krylov;
use super::statistics::Estimate;
use super::vectors::{dimension, precision, products, signs};
use super::{LinearOperator, Result};
use crate::data::order::stream;
use serde::Serialize;
use std::f64::consts::PI;

/// Places a σ at which the density's standard error is summed up, and places in all at most.
const PLACES: (f64, usize) = (4.0, 4096);

/// How exactly, how deep, and at what cost at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// [`error`](Quadrature::error) of the density at which to stop; 0 takes all probes unless
    /// they agree to rounding.
    pub tolerance: f64,
    /// Smoothing of that density, as in [`density`](Quadrature::density).
    pub width: f64,
    /// Random vectors at most, 2 or more. No decision falls before the eighth.
    pub max_probes: usize,
    /// m, products a probe at most.
    pub steps: usize,
    /// Probes that advance side by side, each with a basis of its own: up to the operator's block
    /// they share its work.
    pub together: usize,
    /// Of the random numbers.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tolerance: 0.05, width: 0.01, max_probes: 40, steps: 60, together: 1, seed: 0 }
    }
}

/// Gauss's rule of one probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// θₖ, ascending; fewer than m if the probe's Krylov space ended before, the rule then being
    /// exact.
    pub nodes: Vec<f64>,
    /// ωₖ; their sum is 1.
    pub weights: Vec<f64>,
}

/// Rules of all probes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quadrature {
    /// n.
    pub dimension: usize,
    /// One a probe.
    pub rules: Vec<Rule>,
    /// |λ| up to which an eigenvalue is 0 to rounding: A's precision times the largest |θ| times
    /// the number of steps.
    pub negligible: f64,
    /// Standard error of the smoothed density as a whole, ∫ stderr(x) dx, of which the density's
    /// own integral is 1: about 1.25 times the expected ∫ |density − truth| dx.
    pub error: f64,
    /// Whether `error` is within the tolerance, or within what rounding of the nodes can make it.
    pub converged: bool,
    /// Products with A.
    pub products: usize,
}

/// The spectral density (1/n) Σ δ(x − λᵢ), smoothed by a Gaussian.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Density {
    /// Standard deviation of the Gaussian, in the unit of λ.
    pub sigma: f64,
    /// Where, evenly from three σ below the smallest node to three above the largest.
    pub grid: Vec<f64>,
    /// The density there, per unit of λ; its integral is 1.
    pub density: Vec<f64>,
    /// Its standard error over the probes.
    pub stderr: Vec<f64>,
}

/// Memory in bytes that [`quadrature`] takes at most on n numbers with products of this
/// precision, beside what the operator takes itself: the bases, in f32 if the precision is f32's,
/// in f64 otherwise, and the vectors in work.
pub fn bytes(settings: &Settings, n: usize, precision: f64) -> u64 {
    let n = n as u64;
    let basis = (settings.steps as u64).saturating_add(1).min(n);
    let each = basis.saturating_mul(stored_bytes(precision)).saturating_add(3 * 8);
    each.saturating_mul(settings.together.min(settings.max_probes) as u64).saturating_mul(n)
}

/// Nodes and weights for A, probe by probe, by Lanczos with full reorthogonalisation.
///
/// Probes come in rounds of eight until the density's standard error is small enough. As with
/// [`hutchinson::trace`](super::hutchinson::trace), a run that stopped early understates its errors
/// a little.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a negative tolerance, a width that is not finite and above
/// 0, fewer than two probes, no steps, or none together;
/// [`Error::ZeroDimension`](super::Error); those of the products.
pub fn quadrature(operator: &dyn LinearOperator, settings: &Settings) -> Result<Quadrature> {
    let Settings { tolerance, width, max_probes, steps, together, seed } = *settings;
    check(tolerance, max_probes)?;
    check_width(width)?;
    require(steps >= 1, "steps", "1 or more", steps)?;
    require(together >= 1, "together", "1 or more", together)?;
    let n = dimension(operator)?;
    let precision = precision(operator);
    let mut rng = stream(seed, "curvature: Lanczos quadrature");
    let mut found = Quadrature {
        dimension: n,
        rules: Vec::new(),
        negligible: 0.0,
        error: f64::INFINITY,
        converged: false,
        products: 0,
    };
    while found.rules.len() < max_probes && !found.converged {
        // Rounds of one size: how many probes advance together decides nothing.
        let round = (found.rules.len() + FEWEST).min(max_probes);
        while found.rules.len() < round {
            let count = together.min(round - found.rules.len());
            let starts = (0..count).map(|_| signs(n, &mut rng)).collect();
            found.products += advance(operator, precision, starts, steps.min(n), &mut found.rules)?;
        }
        let sizes = found.rules.iter().flat_map(|r| &r.nodes).map(|x| x.abs());
        found.negligible = precision * sizes.fold(0.0, f64::max) * steps.min(n) as f64;
        let rounding = if found.scale() == 0.0 { 0.0 } else { found.negligible / found.scale() };
        found.error = found.density_error(width)?;
        found.converged = found.error <= tolerance.max(rounding / width);
    }
    Ok(found)
}

fn check_width(width: f64) -> Result<()> {
    require(width > 0.0 && width.is_finite(), "width", "finite and above 0", width)
}

/// Rules of the probes from these vectors, side by side; tells the products it took.
fn advance(
    operator: &dyn LinearOperator,
    precision: f64,
    starts: Vec<Vec<f64>>,
    steps: usize,
    rules: &mut Vec<Rule>,
) -> Result<usize> {
    let mut taken = 0;
    let mut spaces = Vec::new();
    for start in starts {
        let mut space = Krylov::new(precision);
        let first = space.basis.append(start, 0.0);
        space.start(first.into_iter().map(|(v, _)| v).collect());
        spaces.push(space);
    }
    for _ in 0..steps {
        let vectors: Vec<Vec<f64>> =
            spaces.iter().flat_map(|s| s.block().iter().cloned()).collect();
        taken += vectors.len();
        let mut products = products(operator, &vectors)?.into_iter();
        for space in &mut spaces {
            let own = space.block().len();
            if own > 0 {
                space.absorb(products.by_ref().take(own).collect());
            }
        }
    }
    for space in &spaces {
        rules.push(rule(space)?);
    }
    Ok(taken)
}

fn rule(space: &Krylov) -> Result<Rule> {
    let pairs = space.projected.eigen()?;
    let weights = pairs.iter().map(|(_, s)| s.first().map_or(0.0, |s| s * s)).collect();
    Ok(Rule { nodes: pairs.iter().map(|p| p.0).collect(), weights })
}

impl Quadrature {
    /// Σ f(λᵢ) over all n eigenvalues, with the standard error over probes.
    ///
    /// The error is that of the probes alone: for an f that no polynomial of degree 2m − 1 comes
    /// near, such as a step, the rule has an error of its own, which more steps lessen.
    pub fn function(&self, f: impl Fn(f64) -> f64) -> Estimate {
        let n = self.dimension as f64;
        self.mean(|x| n * f(x))
    }

    /// Share of the eigenvalues below 0, by more than what is [`negligible`](Self::negligible).
    pub fn mass_below_zero(&self) -> Estimate {
        self.mean(|x| if x < -self.negligible { 1.0 } else { 0.0 })
    }

    fn mean(&self, f: impl Fn(f64) -> f64) -> Estimate {
        let one = |rule: &Rule| rule.nodes.iter().zip(&rule.weights).map(|(&x, w)| w * f(x)).sum();
        let draws: Vec<f64> = self.rules.iter().map(one).collect();
        Estimate::of(&draws)
    }

    /// Smallest and largest node.
    pub fn range(&self) -> (f64, f64) {
        let nodes = || self.rules.iter().flat_map(|r| &r.nodes).copied();
        (nodes().fold(f64::INFINITY, f64::min), nodes().fold(f64::NEG_INFINITY, f64::max))
    }

    /// The range of the nodes, or the largest |θ| where they all agree to rounding.
    fn scale(&self) -> f64 {
        let (low, high) = self.range();
        let spread = high - low;
        if spread > self.negligible { spread } else { low.abs().max(high.abs()) }
    }

    /// ∫ stderr(x) dx of the density smoothed by `width`; 0 for the zero matrix.
    fn density_error(&self, width: f64) -> Result<f64> {
        let (a_sigma, most) = PLACES;
        let places = (a_sigma * (1.0 / width + 6.0)).min(most as f64) as usize;
        let density = self.density(places, width)?;
        let spacing = match density.grid.as_slice() {
            [first, second, ..] => second - first,
            _ => 0.0,
        };
        Ok(density.stderr.iter().sum::<f64>() * spacing)
    }

    /// The density at `points` places, smoothed by a Gaussian whose σ is `width` times the range
    /// of the nodes; where they all agree to rounding, `width` times the largest |θ|. The zero
    /// matrix has no scale to smooth by: its grid is empty.
    ///
    /// # Errors
    /// [`Error::Setting`](super::Error) for a width that is not finite and above 0, or fewer than
    /// two points.
    pub fn density(&self, points: usize, width: f64) -> Result<Density> {
        check_width(width)?;
        require(points >= 2, "points", "2 or more", points)?;
        let (low, high) = self.range();
        let scale = self.scale();
        let sigma = width * scale;
        let mut density = Density { sigma, grid: vec![], density: vec![], stderr: vec![] };
        if scale == 0.0 {
            return Ok(density);
        }
        let (from, to) = (low - 3.0 * sigma, high + 3.0 * sigma);
        for i in 0..points {
            let x = from + (to - from) * (i as f64 / (points - 1) as f64);
            let here = self.mean(|node| {
                let z = (x - node) / sigma;
                libm::exp(-0.5 * z * z) / (sigma * (2.0 * PI).sqrt())
            });
            density.grid.push(x);
            density.density.push(here.value);
            density.stderr.push(here.stderr);
        }
        Ok(density)
    }
}
