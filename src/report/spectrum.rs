//! Curvature of a layer, as `diagnose --spectrum` reports it.

use crate::objective::Matrix;
use serde::{Deserialize, Serialize};

/// A quantity with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimated {
    /// The value.
    pub value: f64,
    /// Its standard error, if it has one.
    pub stderr: Option<f64>,
}

/// An eigenvalue and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eigenvalue {
    /// λ, nats per squared weight unit.
    pub value: f64,
    /// ‖A y − λ y‖ relative to the largest |λ|: A has an eigenvalue that near. `None` for A = 0.
    pub residual: Option<f64>,
    /// Whether the residual is within the tolerance.
    pub converged: bool,
}

/// The trace and its error over probes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceOf {
    /// tr A.
    pub value: f64,
    /// Standard error over the probes, on these images.
    pub stderr: f64,
    /// Half a 95% confidence interval: the standard error times Student's t of the probes.
    pub half_width_95: f64,
    /// Probes of the part that is not computed exactly.
    pub probes: usize,
    /// Whether the standard error is within 10% of the trace, or within rounding.
    pub converged: bool,
}

/// The smoothed spectral density.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DensityOf {
    /// Standard deviation of the smoothing Gaussian.
    pub sigma: f64,
    /// Places.
    pub grid: Vec<f64>,
    /// Density there; its integral is 1.
    pub density: Vec<f64>,
    /// Its standard error over probes.
    pub stderr: Vec<f64>,
    /// That of the density as a whole, ∫ stderr(x) dx.
    pub error: f64,
    /// Random vectors taken.
    pub probes: usize,
    /// Whether `error` is within 5%, or within rounding.
    pub converged: bool,
    /// Share of the eigenvalues below 0.
    pub below_zero: Estimated,
}

/// What products with one matrix show of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// Hessian or Gauss-Newton matrix of L^V in the layer.
    pub matrix: Matrix,
    /// Largest eigenvalues, descending (block Lanczos).
    pub largest: Vec<Eigenvalue>,
    /// Smallest eigenvalues, ascending.
    pub smallest: Vec<Eigenvalue>,
    /// Standard error over images of yᵀA y for the first of `largest`, its eigenvector y held.
    pub largest_stderr: Option<f64>,
    /// tr A (Hutch++).
    pub trace: Option<TraceOf>,
    /// tr A / λ_max, the intrinsic dimension of Tropp (2015, §7): how many directions as sharp as
    /// the sharpest would make up the trace. `None` where it means nothing, since A has an
    /// eigenvalue below −1% of λ_max, or none above 0. Its standard error joins the trace's over
    /// probes and λ_max's over images.
    pub effective_dimension: Option<Estimated>,
    /// Stochastic Lanczos quadrature, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<DensityOf>,
    /// Products with vectors in all.
    pub products: usize,
}
