//! Eigenvalues, trace and density of a layer's Hessian or Gauss-Newton matrix.

use crate::curvature::{
    LayerOperator, LinearOperator, Result, hutch_plus_plus, lanczos,
    quadrature::{self, Quadrature},
};
use crate::evaluate::mean_stderr;
use crate::models::Layer;
use crate::objective::{Activations, Examples, Matrix, Objective};
use crate::random::{shuffle, stream};
use serde::{Deserialize, Serialize};

/// Number of image groups for the standard error of λ_max.
const GROUPS: usize = 16;
/// Tolerance on the relative residual of eigenvalues.
const LANCZOS: f64 = 0.01;
/// Grid points of the density.
const POINTS: usize = 201;
/// Tolerance on the integrated standard error of the density, whose integral is 1.
const DENSITY: f64 = 0.05;
/// Width of the density's smoothing, as a fraction of the spectrum's range.
const WIDTH: f64 = 0.01;

/// A quantity with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimated {
    /// The value.
    pub value: f64,
    /// Its standard error, if it has one.
    pub stderr: Option<f64>,
}

/// An eigenvalue with its accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eigenvalue {
    /// λ, nats per squared weight unit.
    pub value: f64,
    /// ‖A y − λ y‖ relative to the largest |λ|. A has an eigenvalue within that distance. `None`
    /// for A = 0.
    pub residual: Option<f64>,
    /// Whether the residual is within the tolerance, and the eigenvalue of the same rank differs from
    /// `value` by no more than that: no eigenvalue is missing.
    pub converged: bool,
}

/// The trace with its standard error over probes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceOf {
    /// tr A.
    pub value: f64,
    /// Standard error over the probes, on these images. 0 if the trace is exact.
    pub stderr: f64,
    /// Half of a 95% confidence interval: the standard error times Student's t for the number of
    /// probes. If the trace is exact, a bound of its rounding.
    pub half_width_95: f64,
    /// Number of probes of the part that is not computed exactly. 0 if the trace is exact.
    pub probes: usize,
    /// Whether the standard error is within 10% of the trace, or within rounding.
    pub converged: bool,
}

/// The smoothed spectral density.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DensityOf {
    /// Standard deviation of the smoothing Gaussian.
    pub sigma: f64,
    /// Grid points.
    pub grid: Vec<f64>,
    /// Density at the grid points; its integral is 1.
    pub density: Vec<f64>,
    /// Standard error of the density over probes.
    pub stderr: Vec<f64>,
    /// Integrated standard error, ∫ stderr(x) dx.
    pub error: f64,
    /// Number of random probes. 0 if the density is exact.
    pub probes: usize,
    /// Whether `error` is within 5%, or within rounding.
    pub converged: bool,
    /// Fraction of the eigenvalues below 0.
    pub below_zero: Estimated,
}

/// Spectral quantities of one layer, from products with one matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// Hessian or Gauss-Newton matrix of L^V with respect to the layer.
    pub matrix: Matrix,
    /// Largest eigenvalues, descending (block Lanczos).
    pub largest: Vec<Eigenvalue>,
    /// Smallest eigenvalues, ascending.
    pub smallest: Vec<Eigenvalue>,
    /// Standard error over images of yᵀA y for the first of `largest`, with its eigenvector y
    /// fixed.
    pub largest_stderr: Option<f64>,
    /// tr A: the sum of all eigenvalues if they are known, otherwise estimated with Hutch++.
    pub trace: Option<TraceOf>,
    /// tr A / λ_max, the intrinsic dimension of Tropp (2015, §7): the number of directions of
    /// maximum curvature that would add up to the trace. `None` if A has an eigenvalue below −1% of
    /// λ_max or none above 0. Its standard error combines that of the trace (over probes) with that
    /// of λ_max (over images).
    pub effective_dimension: Option<Estimated>,
    /// The density, if requested: of all eigenvalues if they are known, otherwise estimated with
    /// stochastic Lanczos quadrature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<DensityOf>,
    /// Total matrix-vector products.
    pub products: usize,
}

/// Which spectral quantities to compute.
#[derive(Clone, Debug, PartialEq)]
pub struct SpectrumOptions {
    /// The matrices.
    pub matrices: Vec<Matrix>,
    /// Number of largest eigenvalues.
    pub largest: usize,
    /// Whether to also compute the smallest eigenvalue, the trace and the effective dimension.
    pub whole: bool,
    /// Whether to compute the density.
    pub density: bool,
    /// Memory limit, MiB.
    pub room: f64,
    /// Random seed.
    pub seed: u64,
}

impl SpectrumOptions {
    fn lanczos(&self) -> lanczos::LanczosSettings {
        lanczos::LanczosSettings {
            largest: self.largest,
            smallest: usize::from(self.whole),
            width: 1,
            tolerance: LANCZOS,
            max_basis: 60,
            // Each requested eigenvalue can be a further copy, which takes another run.
            max_products: 60 + 20 * self.largest,
            vectors: true,
            seed: self.seed,
        }
    }

    fn trace(&self) -> hutch_plus_plus::HutchPlusPlusSettings {
        hutch_plus_plus::HutchPlusPlusSettings {
            sketch: 6,
            tolerance: 0.1,
            max_probes: 40,
            seed: self.seed,
        }
    }

    fn quadrature(&self) -> quadrature::QuadratureSettings {
        quadrature::QuadratureSettings {
            tolerance: DENSITY,
            width: WIDTH,
            max_probes: 24,
            steps: 24,
            together: 4,
            seed: self.seed,
        }
    }

    /// Maximum number of products with a layer's matrices.
    pub fn products(&self) -> usize {
        let (lanczos, trace, density) = (self.lanczos(), self.trace(), self.quadrature());
        let ends = lanczos.max_products + self.largest + 2;
        let trace = if self.whole { 2 * trace.sketch + trace.max_probes } else { 0 };
        let density = if self.density { density.max_probes * density.steps } else { 0 };
        self.matrices.len() * (ends + trace + density)
    }

    /// Memory that the estimators hold for a layer of n f32 parameters, MiB.
    pub fn held_mib(&self, n: usize) -> f64 {
        let precision = f64::from(f32::EPSILON);
        let bytes = [
            lanczos::bytes(&self.lanczos(), n, precision, 8),
            if self.whole { hutch_plus_plus::bytes(&self.trace(), n, precision, 8) } else { 0 },
            if self.density { quadrature::bytes(&self.quadrature(), n, precision) } else { 0 },
        ];
        bytes.into_iter().max().unwrap_or(0) as f64 / (1 << 20) as f64
    }
}

/// The spectrum of one matrix of a layer, over examples given as the layer's input.
///
/// # Errors
/// Those of the products.
pub fn spectrum(
    objective: &Objective,
    at: &Activations,
    layer: &Layer,
    matrix: Matrix,
    settings: &SpectrumOptions,
) -> Result<Spectrum> {
    let held = settings.held_mib(LayerOperator::new(objective, at, layer, matrix).dimension());
    let operator =
        LayerOperator::new(objective, at, layer, matrix).within((settings.room - held).max(0.0));
    let mut pairs = lanczos::eigenpairs(&operator, &settings.lanczos())?;
    let largest_stderr = match pairs.largest.first().and_then(|p| p.vector.as_deref()) {
        Some(y) => over_images(objective, at, layer, matrix, y, settings.seed)?,
        None => None,
    };
    // Free the vectors: the trace needs the memory.
    pairs.largest.iter_mut().chain(&mut pairs.smallest).for_each(|p| p.vector = None);
    let mut products = pairs.products + usize::from(largest_stderr.is_some());
    let trace = match (settings.whole, &pairs.all) {
        (true, Some(all)) => {
            let size = all.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
            Some(TraceOf {
                value: all.iter().sum(),
                stderr: 0.0,
                half_width_95: operator.precision() * size * all.len() as f64,
                probes: 0,
                converged: true,
            })
        }
        (true, None) => {
            let found = hutch_plus_plus::trace(&operator, &settings.trace())?;
            products += found.products;
            Some(TraceOf {
                value: found.trace,
                stderr: found.stderr,
                half_width_95: found.half_width_95,
                probes: found.probes,
                converged: found.converged,
            })
        }
        (false, _) => None,
    };
    let density = match settings.density {
        true => {
            let found = match &pairs.all {
                Some(all) => Quadrature::of_eigenvalues(all, operator.precision()),
                None => quadrature::quadrature(&operator, &settings.quadrature())?,
            };
            products += found.products;
            let smooth = found.density(POINTS, WIDTH)?;
            let below = found.mass_below_zero();
            Some(DensityOf {
                sigma: smooth.sigma,
                grid: smooth.grid,
                density: smooth.density,
                stderr: smooth.stderr,
                error: found.error,
                probes: if found.exact { 0 } else { found.rules.len() },
                converged: found.converged,
                below_zero: Estimated { value: below.value, stderr: Some(below.stderr) },
            })
        }
        false => None,
    };
    let top = pairs.largest.first().map_or(0.0, |p| p.value);
    let bottom = pairs.smallest.first().map_or(f64::NEG_INFINITY, |p| p.value);
    let semidefinite = top > 0.0 && bottom >= -LANCZOS * top;
    let one = |p: &lanczos::Eigenpair| Eigenvalue {
        value: p.value,
        residual: Some(p.residual).filter(|r| r.is_finite()),
        converged: p.converged,
    };
    Ok(Spectrum {
        matrix,
        largest: pairs.largest.iter().map(one).collect(),
        smallest: pairs.smallest.iter().map(one).collect(),
        largest_stderr,
        effective_dimension: trace.as_ref().filter(|_| semidefinite).map(|t| Estimated {
            value: t.value / top,
            stderr: Some(
                (t.stderr / top).hypot(t.value / top * largest_stderr.unwrap_or(0.0) / top),
            ),
        }),
        trace,
        density,
        products,
    })
}

/// Standard error of yᵀA y over groups of images drawn at random. All groups together cost one
/// product.
fn over_images(
    objective: &Objective,
    at: &Activations,
    layer: &Layer,
    matrix: Matrix,
    y: &[f64],
    seed: u64,
) -> Result<Option<f64>> {
    let groups = GROUPS.min(at.len());
    let mut order: Vec<usize> = (0..at.len()).collect();
    shuffle(&mut order, &mut stream(seed, "groups of images"));
    let mut values = Vec::with_capacity(groups);
    for g in 0..groups {
        let own: Vec<usize> = order.iter().copied().skip(g).step_by(groups).collect();
        let part = at.select(&own)?;
        let operator = LayerOperator::new(objective, &part, layer, matrix);
        let products = operator.apply(std::slice::from_ref(&y.to_vec()))?;
        values.extend(products.iter().map(|p| p.iter().zip(y).map(|(p, y)| p * y).sum::<f64>()));
    }
    Ok(mean_stderr(&values).stderr)
}
