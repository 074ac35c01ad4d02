//! Truncated Newton step in a trust region: T. Steihaug, "The conjugate gradient method and trust
//! regions in large scale optimization", SIAM J. Numer. Anal. 1983.
//!
//! Minimises m(p) = gᵀp + ½ pᵀAp over ‖p‖ ≤ Δ with conjugate gradients from p = 0. The length of
//! the iterates increases. The method stops when the residual is small, the boundary is crossed, or
//! a direction of non-positive curvature is found; in that case it follows the direction to the
//! boundary. The decrease is at least that of the Cauchy point, the best point along −g.

use super::error::require;
use super::vectors::{axpy, dimension, dot, finite, norm, precision, products, scale_less};
use super::{Error, LinearOperator, Result};
use serde::{Deserialize, Serialize};

/// Trust radius, accuracy and cost limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SteihaugSettings {
    /// Δ, the maximum step length, in units of the weights.
    pub radius: f64,
    /// Stops at this ‖g + Ap‖ / ‖g‖.
    pub tolerance: f64,
    /// Maximum number of products with A; one per iteration.
    pub max_iterations: usize,
}

/// Why the iteration stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The residual is within the tolerance: p is the Newton step.
    Converged,
    /// The next iterate would leave the trust region; p is on its boundary.
    Boundary,
    /// A direction d with dᵀAd ≤ 0, up to rounding, was found; p is on the boundary.
    NegativeCurvature,
    /// Reached the maximum number of iterations; p is inside the region.
    IterationLimit,
}

/// Result of [`step`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// p, n numbers.
    #[serde(skip)]
    pub step: Vec<f64>,
    /// ‖p‖.
    pub length: f64,
    /// −m(p), the decrease that the quadratic model predicts.
    pub decrease: f64,
    /// Number of products.
    pub iterations: usize,
    /// ‖g + Ap‖ / ‖g‖ from the conjugate gradient recurrence. 0 for g = 0.
    pub residual: f64,
    /// Why the iteration stopped.
    pub end: StopReason,
}

/// The truncated Newton step for gradient g and Hessian A. The zero step for g = 0.
///
/// # Errors
/// [`Error::Setting`] for a radius that is not finite and above 0, a tolerance outside [0, 1), or
/// no iterations; [`Error::Length`] and [`Error::NonFinite`] for the gradient;
/// [`Error::ZeroDimension`]; errors of the products.
pub fn step(
    operator: &dyn LinearOperator,
    gradient: &[f64],
    settings: &SteihaugSettings,
) -> Result<Step> {
    let (radius, tolerance) = (settings.radius, settings.tolerance);
    require(radius > 0.0 && radius.is_finite(), "radius", "finite and above 0", radius)?;
    require((0.0..1.0).contains(&tolerance), "tolerance", "0 or more, below 1", tolerance)?;
    let limit = settings.max_iterations;
    require(limit > 0, "max_iterations", "1 or more", limit)?;
    let n = dimension(operator)?;
    if gradient.len() != n {
        return Err(Error::Length { expected: n, found: gradient.len() });
    }
    finite("gradient", gradient)?;

    let size = norm(gradient);
    // r = g + Ap, and d the search direction.
    let (mut p, mut r) = (vec![0.0; n], gradient.to_vec());
    let mut d: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let (mut iterations, mut squared) = (0, dot(&r, &r));
    let end = loop {
        if squared.sqrt() <= tolerance * size {
            break StopReason::Converged;
        }
        if iterations == limit {
            break StopReason::IterationLimit;
        }
        let Some(product) = products(operator, std::slice::from_ref(&d))?.pop() else {
            return Err(Error::Count { expected: 1, found: 0 });
        };
        iterations += 1;
        let curvature = dot(&d, &product);
        let reach = to_boundary(&p, &d, radius);
        let flat = curvature <= precision(operator) * norm(&d) * norm(&product);
        let along = squared / curvature;
        let crosses = flat || along >= reach;
        let along = if crosses { reach } else { along };
        axpy(&mut p, along, &d);
        axpy(&mut r, along, &product);
        if crosses {
            break if flat { StopReason::NegativeCurvature } else { StopReason::Boundary };
        }
        let before = std::mem::replace(&mut squared, dot(&r, &r));
        let beta = squared / before;
        scale_less(&mut d, beta, &r);
    };
    // m(p) = ½ pᵀ(g + r), as Ap = r − g.
    let decrease = -0.5 * (dot(&p, gradient) + dot(&p, &r));
    let residual = if size == 0.0 { 0.0 } else { norm(&r) / size };
    Ok(Step { length: norm(&p), step: p, decrease, iterations, residual, end })
}

/// The τ ≥ 0 with ‖p + τd‖ = Δ.
fn to_boundary(p: &[f64], d: &[f64], radius: f64) -> f64 {
    let (pd, dd, length) = (dot(p, d), dot(d, d), norm(p));
    // (Δ − ‖p‖)(Δ + ‖p‖), because Δ² − ‖p‖² cancels when ‖p‖ is close to Δ.
    let room = ((radius - length) * (radius + length)).max(0.0);
    let root = (pd * pd + dd * room).sqrt();
    if pd > 0.0 { room / (pd + root) } else { (root - pd) / dd }
}
