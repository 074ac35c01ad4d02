//! The model along a line in one layer's weights: w_ℓ − α g.

use crate::models::Layer;
use crate::objective::{Activations, Examples, Objective, Result};
use crate::predictions::Predictions;
use crate::vector;
use candle_core::{DType, Tensor};

/// Logits of some examples along a line.
pub enum Path<'a> {
    /// The logits are linear in α, so two products serve every point.
    Linear {
        /// Logits at α = 0.
        logits: Vec<f64>,
        /// Their derivative in α.
        slopes: Vec<f64>,
        /// Labels of the examples.
        labels: &'a [u32],
        /// Number of classes.
        classes: usize,
    },
    /// Part of the network is evaluated again at every point.
    Network {
        /// The model at α = 0.
        objective: &'a Objective,
        /// Inputs of the layer.
        examples: &'a Activations,
        /// The layer.
        layer: &'a Layer,
        /// g; the line is w_ℓ − α g.
        direction: &'a [Tensor],
    },
}

impl<'a> Path<'a> {
    /// The line from the objective's weights along −`direction`.
    pub fn new(
        objective: &'a Objective,
        examples: &'a Activations,
        layer: &'a Layer,
        direction: &'a [Tensor],
    ) -> Result<Self> {
        if !objective.network.is_linear_in(layer) {
            return Ok(Path::Network { objective, examples, layer, direction });
        }
        let (logits, slopes) = objective.predict_along(examples, layer, direction)?;
        let numbers = |x: Tensor| x.to_dtype(DType::F64)?.flatten_all()?.to_vec1();
        Ok(Path::Linear {
            logits: numbers(logits)?,
            slopes: numbers(slopes)?.into_iter().map(|s: f64| -s).collect(),
            labels: examples.labels(),
            classes: objective.network.classes(),
        })
    }

    /// Logits at α.
    pub fn predict(&self, alpha: f64) -> Result<Predictions> {
        match self {
            Path::Linear { logits, slopes, labels, classes } => {
                let moved = logits.iter().zip(slopes).map(|(z, s)| z + alpha * s).collect();
                Ok(Predictions::new(moved, *classes, labels)?)
            }
            Path::Network { objective, examples, layer, direction } => {
                moved(objective, layer, direction, alpha)?.predict(*examples)
            }
        }
    }

    /// Whether evaluating a point is nearly free.
    pub fn is_cheap(&self) -> bool {
        matches!(self, Path::Linear { .. })
    }
}

/// The objective with the layer at w_ℓ − α g.
pub fn moved(
    objective: &Objective,
    layer: &Layer,
    direction: &[Tensor],
    alpha: f64,
) -> Result<Objective> {
    let (weights, direction) = (objective.weights_of(layer)?, objective.all_to_device(direction)?);
    let tensors = vector::add_scaled(&weights, -alpha, &direction)?;
    let changes: Vec<(usize, Tensor)> = layer.tensors.iter().copied().zip(tensors).collect();
    Ok(objective.at(objective.weights.with(&changes)))
}
