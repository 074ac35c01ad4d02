//! One fold's measurement of one layer: direction and α* from its own images, the gap on the other
//! fold's images. A fold is a half of V.

use super::newton::{Estimator, newton};
use crate::curvature::{Result, steihaug};
use crate::diagnose::findings::LossLine;
use crate::evaluate::{fit, losses};
use crate::line_search::{Line, Minimum, Path, first_minimum, longest};
use crate::models::Layer;
use crate::objective::{Activations, Objective};
use crate::predictions::Predictions;
use crate::vector;
use candle_core::Tensor;

/// Points per search if each costs a forward pass of the suffix.
const NETWORK_BUDGET: usize = 5;
/// Typical α* as a fraction of the quadratic prediction; it lies between 0.2 and 0.9.
const USUAL: f64 = 0.6;
/// Points per search if the logits are linear in α: two products serve all points.
const LINEAR_BUDGET: usize = 60;

/// The images of both folds at a layer's input, with the model's logits.
pub struct Fold<'a> {
    /// Images that determine the direction and α*.
    pub own: &'a Activations,
    /// Images that the gap is measured on.
    pub other: &'a Activations,
    /// Logits of `own` at w*, before the temperature.
    pub own_base: &'a Predictions,
    /// Logits of `other` at w*, before the temperature.
    pub other_base: &'a Predictions,
    /// The temperature folded into the head: fitted on `own`, or 1.
    pub temperature: f64,
}

/// A layer's gradient g over a fold's own images, and what is known of the line along it.
pub struct Direction {
    /// g.
    pub gradient: Vec<Tensor>,
    /// gᵀHg. Only measured in the first halving: it costs more than the search.
    pub curvature: Option<f64>,
    /// ‖Δw‖ along the directions of the first halving, for the others.
    pub length: Option<f64>,
}

/// Measurements along one direction.
#[derive(Clone, Debug)]
pub struct Measured {
    /// ‖g‖.
    pub gradient_norm: f64,
    /// gᵀHg.
    pub curvature: Option<f64>,
    /// The Newton-CG step, if Newton is the estimator.
    pub newton: Option<steihaug::Step>,
    /// The search result on the fold's images.
    pub minimum: Minimum,
    /// The loss at all points the search evaluated; `None` if the layer was not moved, or φ″(0) is
    /// unknown.
    pub line: Option<LossLine>,
    /// ‖Δw‖: α* times the length of the direction.
    pub displacement: f64,
    /// Mean of lᵢ(0) − lᵢ(α*) over the own images.
    pub own_gap: Gap<f64>,
    /// lᵢ(0) − lᵢ(α*) of the other images.
    pub other_gap: Gap<Vec<f64>>,
}

/// Loss differences, of the loss that is searched and with temperatures fitted on both sides.
#[derive(Clone, Debug)]
pub struct Gap<T> {
    /// With the temperature of [`Fold::temperature`] on both sides.
    pub searched: T,
    /// With temperatures fitted on the fold that gave the direction, one at w* and one at α*.
    pub refitted: T,
}

/// Measures a layer along a direction, or along the Newton step from it. The fold's temperature is
/// already in the objective's head.
pub fn measure(
    objective: &Objective,
    layer: &Layer,
    fold: &Fold,
    Direction { gradient, curvature, length }: Direction,
    estimator: Estimator,
) -> Result<Measured> {
    let kernel = crate::objective::Error::from;
    let square = vector::dot(&gradient, &gradient).map_err(kernel)?;
    let gradient_norm = square.sqrt();
    let weight_norm = vector::norm(&objective.weights_of(layer)?).map_err(kernel)?;
    // With a zero gradient, the layer does not move.
    if square == 0.0 {
        let none = vec![0.0; fold.other_base.images()];
        let value = mean(&losses(fold.own_base, fold.temperature));
        return Ok(Measured {
            gradient_norm,
            curvature,
            newton: None,
            minimum: Minimum { alpha: 0.0, value, evaluations: 0, capped: false },
            line: None,
            displacement: 0.0,
            own_gap: Gap { searched: 0.0, refitted: 0.0 },
            other_gap: Gap { searched: none.clone(), refitted: none },
        });
    }
    let base = losses(fold.own_base, fold.temperature);
    let longest = longest(weight_norm, gradient_norm, mean(&base));
    let budget = if objective.network.is_linear_in(layer) { LINEAR_BUDGET } else { NETWORK_BUDGET };
    let (direction, start, cap, step) = match estimator {
        Estimator::Line => {
            let start = match (length, curvature) {
                (Some(length), _) => length / gradient_norm,
                (None, Some(curvature)) if curvature > 0.0 => USUAL * square / curvature,
                _ => 0.01 * longest / gradient_norm,
            };
            (gradient.clone(), start, longest / gradient_norm, None)
        }
        Estimator::Newton { radius, iterations } => {
            let within = (radius * longest, iterations);
            let found = newton(objective, fold.own, layer, &gradient, within)?;
            (found.direction, 1.0, 1.0, Some(found.step))
        }
    };
    let length = step.as_ref().map_or(gradient_norm, |step| step.length);
    let path = Path::new(objective, fold.own, layer, &direction)?;
    // These are derivatives along −g; a Newton step has its own.
    let derivatives = step.is_none().then_some((-square, curvature));
    let line = Line { at_zero: mean(&base), derivatives, start, cap, budget };
    // Keep the logits of the best point so far, so that the minimum is not evaluated twice.
    let mut best: Option<(f64, Predictions)> = None;
    let mut points: Vec<[f64; 2]> = Vec::new();
    let minimum = first_minimum(line, |alpha| -> crate::objective::Result<f64> {
        let predictions = match path.predict(alpha) {
            Ok(predictions) => predictions,
            // A step that overflows counts as a high loss; it does not abort the search.
            Err(crate::objective::Error::Predictions(_)) => return Ok(f64::INFINITY),
            Err(error) => return Err(error),
        };
        let value = mean(&losses(&predictions, 1.0));
        if value.is_finite() {
            points.push([alpha, value]);
        }
        if best.as_ref().is_none_or(|(least, _)| value < *least) {
            best = Some((value, predictions));
        }
        Ok(value)
    })?;
    let own_moved = match best {
        Some((value, predictions)) if minimum.alpha > 0.0 && value == minimum.value => predictions,
        _ => path.predict(minimum.alpha)?,
    };
    let other_moved =
        Path::new(objective, fold.other, layer, &direction)?.predict(minimum.alpha)?;
    let (before, after) = (fit(fold.own_base).temperature, fit(&own_moved).temperature);
    let gap = |base: &Predictions, moved: &Predictions| Gap {
        searched: differences(&losses(base, fold.temperature), &losses(moved, 1.0)),
        refitted: differences(&losses(base, before), &losses(moved, after)),
    };
    let own_gap = gap(fold.own_base, &own_moved);
    let slope = -vector::dot(&gradient, &direction).map_err(kernel)?;
    let along = match &step {
        // The model's decrease along p is −φ′(0) − ½ φ″(0).
        Some(step) => Some(-2.0 * (step.decrease + slope)),
        None => curvature,
    };
    points.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let at_zero = line.at_zero;
    let line = along.map(|curvature| LossLine { at_zero, slope, curvature, points });
    Ok(Measured {
        gradient_norm,
        curvature,
        displacement: minimum.alpha * length,
        line,
        newton: step,
        own_gap: Gap { searched: mean(&own_gap.searched), refitted: mean(&own_gap.refitted) },
        other_gap: gap(fold.other_base, &other_moved),
        minimum,
    })
}

/// Arithmetic mean.
pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn differences(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}
