//! Spectral density by stochastic Lanczos quadrature. S. Ubaru, J. Chen, Y. Saad, "Fast estimation
//! of tr(f(A)) via stochastic Lanczos quadrature", SIAM J. Matrix Anal. Appl. 2017; density of
//! Hessians: B. Ghorbani, S. Krishnan, Y. Xiao, "An investigation into neural net optimization via
//! Hessian eigenvalue density", ICML 2019.
//!
//! For a random unit vector v, let T (m, m) be the Lanczos matrix with eigenvalues θₖ, and ωₖ the
//! squared first entries of its eigenvectors. Then Σ ωₖ f(θₖ) ≈ vᵀf(A)v. This is Gauss quadrature,
//! exact for polynomials of degree up to 2m − 1. The mean of vᵀf(A)v over random v is (1/n) Σ
//! f(λᵢ).

use super::basis::stored_bytes;
use super::error::require;
use super::hutchinson::{MIN_PROBES, check};
use super::krylov::Krylov;
use super::statistics::SampleMean;
use super::vectors::{dimension, precision, products, signs};
use super::{LinearOperator, Result};
use crate::random::stream;
use serde::Serialize;
use std::f64::consts::PI;

/// Grid on which the density's standard error is integrated: points per σ, and maximum number of
/// points.
const GRID: (f64, usize) = (4.0, 4096);

/// Accuracy, depth and cost limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuadratureSettings {
    /// Stops at this [`error`](Quadrature::error) of the density. 0 uses all probes, unless they
    /// agree up to rounding.
    pub tolerance: f64,
    /// Smoothing of the density, as in [`density`](Quadrature::density).
    pub width: f64,
    /// Maximum number of random vectors, at least 2. The first check is after eight.
    pub max_probes: usize,
    /// m, the maximum number of products per probe.
    pub steps: usize,
    /// Probes that advance in parallel, each with its own basis. Up to the operator's block size
    /// they share work.
    pub together: usize,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for QuadratureSettings {
    fn default() -> Self {
        Self { tolerance: 0.05, width: 0.01, max_probes: 40, steps: 60, together: 1, seed: 0 }
    }
}

/// Gauss quadrature rule of one probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GaussRule {
    /// θₖ, ascending. Fewer than m if the probe's Krylov space is exhausted; the rule is then
    /// exact.
    pub nodes: Vec<f64>,
    /// ωₖ, with sum 1.
    pub weights: Vec<f64>,
}

/// Quadrature rules of all probes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quadrature {
    /// n.
    pub dimension: usize,
    /// One rule per probe; a single one if `exact`.
    pub rules: Vec<GaussRule>,
    /// Whether the nodes are all n eigenvalues. All errors are then 0.
    pub exact: bool,
    /// Eigenvalues up to this |λ| are zero up to rounding: A's precision × largest |θ| × number of
    /// steps.
    pub negligible: f64,
    /// Integrated standard error ∫ stderr(x) dx of the smoothed density, whose integral is 1. About
    /// 1.25 times the expected ∫ |density − truth| dx.
    pub error: f64,
    /// Whether `error` is within the tolerance, or within the effect of rounding the nodes.
    pub converged: bool,
    /// Number of products with A.
    pub products: usize,
}

/// The spectral density (1/n) Σ δ(x − λᵢ), smoothed by a Gaussian.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Density {
    /// Standard deviation of the Gaussian, in the unit of λ.
    pub sigma: f64,
    /// x values, evenly spaced from 3 σ below the smallest node to 3 σ above the largest.
    pub grid: Vec<f64>,
    /// Density at each x, per unit of λ. Its integral is 1.
    pub density: Vec<f64>,
    /// Standard error of each value over the probes.
    pub stderr: Vec<f64>,
}

/// Upper bound, in bytes, of the memory [`quadrature`] uses besides the operator, for dimension n
/// and products of this precision: the bases (f32 or f64, see `precision`) and work vectors.
pub fn bytes(settings: &QuadratureSettings, n: usize, precision: f64) -> u64 {
    let n = n as u64;
    let basis = (settings.steps as u64).saturating_add(1).min(n);
    let each = basis.saturating_mul(stored_bytes(precision)).saturating_add(3 * 8);
    each.saturating_mul(settings.together.min(settings.max_probes) as u64).saturating_mul(n)
}

/// Nodes and weights for A, one rule per probe, by Lanczos with full reorthogonalisation.
///
/// Draws probes in rounds of eight until the density's standard error is small enough. As with
/// [`hutchinson::trace`](super::hutchinson::trace), a run that stops early understates its errors
/// slightly.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a negative tolerance, a width that is not finite and above
/// 0, fewer than two probes, no steps, or `together` = 0; [`Error::ZeroDimension`](super::Error);
/// errors of the products.
pub fn quadrature(
    operator: &dyn LinearOperator,
    settings: &QuadratureSettings,
) -> Result<Quadrature> {
    let QuadratureSettings { tolerance, width, max_probes, steps, together, seed } = *settings;
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
        exact: false,
        negligible: 0.0,
        error: f64::INFINITY,
        converged: false,
        products: 0,
    };
    while found.rules.len() < max_probes && !found.converged {
        // Rounds have a fixed size, so the result does not depend on how many probes advance
        // together.
        let round = (found.rules.len() + MIN_PROBES).min(max_probes);
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

/// Computes the rules of the probes that start from these vectors. Returns the number of products.
fn advance(
    operator: &dyn LinearOperator,
    precision: f64,
    starts: Vec<Vec<f64>>,
    steps: usize,
    rules: &mut Vec<GaussRule>,
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

fn rule(space: &Krylov) -> Result<GaussRule> {
    let pairs = space.projected.eigen()?;
    let weights = pairs.iter().map(|(_, s)| s.first().map_or(0.0, |s| s * s)).collect();
    Ok(GaussRule { nodes: pairs.iter().map(|p| p.0).collect(), weights })
}

impl Quadrature {
    /// The rule of all n eigenvalues, known up to a relative error of `precision`.
    pub fn of_eigenvalues(values: &[f64], precision: f64) -> Self {
        let size = values.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
        let n = values.len();
        Self {
            dimension: n,
            rules: vec![GaussRule { nodes: values.to_vec(), weights: vec![1.0 / n as f64; n] }],
            exact: true,
            negligible: precision * size * n as f64,
            error: 0.0,
            converged: true,
            products: 0,
        }
    }

    /// Σ f(λᵢ) over all n eigenvalues, with its standard error over probes.
    ///
    /// The error covers only the random choice of probes. If no polynomial of degree 2m − 1
    /// approximates f well, as for a step function, the rule has an additional error, which
    /// decreases with more steps.
    pub fn function(&self, f: impl Fn(f64) -> f64) -> SampleMean {
        let n = self.dimension as f64;
        self.mean(|x| n * f(x))
    }

    /// Fraction of eigenvalues below −[`negligible`](Self::negligible).
    pub fn mass_below_zero(&self) -> SampleMean {
        self.mean(|x| if x < -self.negligible { 1.0 } else { 0.0 })
    }

    fn mean(&self, f: impl Fn(f64) -> f64) -> SampleMean {
        let one =
            |rule: &GaussRule| rule.nodes.iter().zip(&rule.weights).map(|(&x, w)| w * f(x)).sum();
        let draws: Vec<f64> = self.rules.iter().map(one).collect();
        match draws.as_slice() {
            [value] if self.exact => SampleMean { value: *value, stderr: 0.0, half_width_95: 0.0 },
            _ => SampleMean::of(&draws),
        }
    }

    /// Smallest and largest node.
    pub fn range(&self) -> (f64, f64) {
        let nodes = || self.rules.iter().flat_map(|r| &r.nodes).copied();
        (nodes().fold(f64::INFINITY, f64::min), nodes().fold(f64::NEG_INFINITY, f64::max))
    }

    /// Largest minus smallest node. If they agree up to rounding, the largest |θ|.
    fn scale(&self) -> f64 {
        let (low, high) = self.range();
        let spread = high - low;
        if spread > self.negligible { spread } else { low.abs().max(high.abs()) }
    }

    /// ∫ stderr(x) dx of the density smoothed with `width`. 0 for the zero matrix.
    fn density_error(&self, width: f64) -> Result<f64> {
        let (a_sigma, most) = GRID;
        let places = (a_sigma * (1.0 / width + 6.0)).min(most as f64) as usize;
        let density = self.density(places, width)?;
        let spacing = match density.grid.as_slice() {
            [first, second, ..] => second - first,
            _ => 0.0,
        };
        Ok(density.stderr.iter().sum::<f64>() * spacing)
    }

    /// The density at `points` values of x, smoothed with a Gaussian. Its σ is `width` × (largest −
    /// smallest node); if the nodes agree up to rounding, `width` × largest |θ|. For the zero
    /// matrix there is no scale, and the grid is empty.
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
