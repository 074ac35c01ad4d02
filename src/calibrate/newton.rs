//! Newton's method for a smooth, strictly convex function, by products with its Hessian.

use crate::curvature::steihaug::{SteihaugSettings, step};
use crate::curvature::{Error as CurvatureError, LinearOperator};
use crate::error::Result;
use candle_core::Result as TensorResult;

/// A smooth, strictly convex function of n numbers.
pub(super) trait SmoothFunction {
    /// What a product with the Hessian at a point needs.
    type Point;

    /// Value and gradient (n), and the point for [`SmoothFunction::product`].
    fn evaluate(&self, parameters: &[f64]) -> TensorResult<(f64, Vec<f64>, Self::Point)>;

    /// The Hessian at the point times v (n).
    fn product(&self, at: &Self::Point, v: &[f64]) -> TensorResult<Vec<f64>>;
}

/// The Hessian at one point.
struct Hessian<'a, F: SmoothFunction> {
    of: &'a F,
    at: &'a F::Point,
    n: usize,
}

impl<F: SmoothFunction> LinearOperator for Hessian<'_, F> {
    fn dimension(&self) -> usize {
        self.n
    }

    fn apply(&self, vectors: &[Vec<f64>]) -> std::result::Result<Vec<Vec<f64>>, CurvatureError> {
        let product = |v: &Vec<f64>| self.of.product(self.at, v);
        let found: TensorResult<Vec<_>> = vectors.iter().map(product).collect();
        Ok(found.map_err(crate::objective::Error::from)?)
    }
}

/// Norm of the gradient at which a point counts as the minimum.
const FLAT: f64 = 1e-9;
/// Maximum number of Newton steps. Fits need about ten.
const STEPS: usize = 100;

/// The minimum, from 0 on, and whether it was reached.
///
/// Each step solves H p = −g by conjugate gradients, to the accuracy min(0.1, √‖g‖), which gives
/// superlinear convergence (Nocedal and Wright, "Numerical optimization", section 7.1). The step is
/// halved until the function falls enough (Armijo).
///
/// # Errors
/// Those of evaluating the function.
pub(super) fn minimise<F: SmoothFunction>(f: &F, n: usize) -> Result<(Vec<f64>, bool)> {
    let mut parameters = vec![0.0; n];
    let (mut value, mut gradient, mut point) = f.evaluate(&parameters)?;
    for _ in 0..STEPS {
        let size = norm(&gradient);
        if size <= FLAT {
            return Ok((parameters, true));
        }
        let settings = SteihaugSettings {
            // The function is convex, so no step needs a bound.
            radius: 1e12,
            tolerance: size.sqrt().min(0.1),
            max_iterations: 10 * n.min(1000),
        };
        let step = step(&Hessian { of: f, at: &point, n }, &gradient, &settings)?.step;
        let slope: f64 = gradient.iter().zip(&step).map(|(g, p)| g * p).sum();
        let mut share = 1.0;
        loop {
            let moved: Vec<f64> =
                parameters.iter().zip(&step).map(|(x, p)| x + share * p).collect();
            let next = f.evaluate(&moved)?;
            // Near the minimum the decrease is below rounding; the gradient then decides.
            let falls = next.0 <= value + 1e-4 * share * slope || norm(&next.1) < 0.5 * size;
            if falls {
                parameters = moved;
                (value, gradient, point) = next;
                break;
            }
            share *= 0.5;
            if share < 1e-10 {
                return Ok((parameters, false));
            }
        }
    }
    Ok((parameters, norm(&gradient) <= FLAT))
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}
