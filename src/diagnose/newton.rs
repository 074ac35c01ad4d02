//! How a layer's displacement is found.

use crate::curvature::{LayerOperator, Result, flatten, steihaug};
use crate::models::Layer;
use crate::objective::{Activations, Matrix, Objective};
use candle_core::{DType, Device, Tensor};

/// How Δw is found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Estimator {
    /// Along the gradient, to the first minimum.
    #[default]
    Line,
    /// Truncated Newton-CG in a trust region: to the minimum of the quadratic model from
    /// Hessian-vector products, or to the first minimum of the loss on the way there.
    Newton {
        /// Trust-region radius Δ, a limit on ‖Δw‖, as a fraction of ‖w_ℓ‖. For a layer of zeros, as
        /// a fraction of [`longest`](crate::line_search::longest).
        radius: f64,
        /// Maximum number of Hessian-vector products.
        iterations: usize,
    },
}

/// Relative residual ‖g + Hp‖/‖g‖ at which conjugate gradients stop: far below the noise of g
/// between folds.
const TOLERANCE: f64 = 0.05;

/// A Newton-CG step, as the layer's tensors.
pub(super) struct Newton {
    /// −p: the layer moves to w − α(−p).
    pub direction: Vec<Tensor>,
    /// Figures from the conjugate-gradient iterations.
    pub step: steihaug::Step,
}

/// The step from the gradient over `own` images, no longer than `radius`.
pub(super) fn newton(
    objective: &Objective,
    own: &Activations,
    layer: &Layer,
    gradient: &[Tensor],
    (radius, iterations): (f64, usize),
) -> Result<Newton> {
    let weights = objective.weights_of(layer)?;
    let settings =
        steihaug::SteihaugSettings { radius, tolerance: TOLERANCE, max_iterations: iterations };
    let operator = LayerOperator::new(objective, own, layer, Matrix::Hessian);
    let step = steihaug::step(&operator, &flatten(gradient)?, &settings)?;
    let mut start = 0;
    let shape = |w: &Tensor| -> candle_core::Result<Tensor> {
        let range = start..start + w.elem_count();
        start = range.end;
        let back: Vec<f64> = step.step[range].iter().map(|x| -x).collect();
        let back = Tensor::from_vec(back, w.shape(), &Device::Cpu)?;
        if w.dtype() == DType::F64 { Ok(back) } else { back.to_dtype(w.dtype()) }
    };
    let direction: candle_core::Result<Vec<Tensor>> = weights.iter().map(shape).collect();
    let direction = direction.and_then(|direction| objective.all_to_device(&direction));
    Ok(Newton { direction: direction.map_err(crate::objective::Error::from)?, step })
}
