//! From a method's gradient to new weights: clipping, the step's rate, the optimizer. One for
//! fine-tuning and for every method of post-training.

use super::optimizer::{Optimizer, clip};
use super::{Result, Schedule};
use crate::device;
use crate::vector;
use crate::vit::{Layer, Weights};
use candle_core::Tensor;

/// Makes the steps of one run.
#[derive(Debug)]
pub struct Stepper {
    optimizer: Optimizer,
    schedule: Schedule,
    clip: Option<f64>,
    made: usize,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Made {
    /// Learning rate.
    pub rate: f64,
    /// ‖g‖ over all tensors together, before it was clipped.
    pub norm: f64,
}

impl Stepper {
    /// A run at its first step. `clip` is the largest norm that a gradient may keep, see
    /// [`clip()`].
    pub fn new(optimizer: Optimizer, schedule: Schedule, clip: Option<f64>) -> Self {
        Self { optimizer, schedule, clip, made: 0 }
    }

    /// Moves the layer's tensors by one step down `gradient`, where that lies; all others are shared. A gradient
    /// whose norm is not finite moves nothing: the caller reads that from [`Made::norm`].
    ///
    /// # Errors
    /// A gradient that does not fit the layer's tensors.
    pub fn step(
        &mut self,
        weights: &mut Weights,
        layer: &Layer,
        gradient: Vec<Tensor>,
    ) -> Result<Made> {
        let (gradient, norm) = match self.clip {
            Some(most) => clip(gradient, most)?,
            None => {
                let norm = vector::norm(&gradient)?;
                (gradient, norm)
            }
        };
        let rate = self.schedule.rate(self.made);
        self.made = self.made.saturating_add(1);
        if norm.is_finite() {
            let now = layer
                .tensors
                .iter()
                .zip(&gradient)
                .map(|(&i, g)| device::weight_like(g, i, weights.tensor(i)))
                .collect::<std::result::Result<Vec<Tensor>, device::Error>>()?;
            for (&i, next) in layer.tensors.iter().zip(self.optimizer.step(&now, &gradient, rate)?)
            {
                weights.set(i, next);
            }
        }
        Ok(Made { rate, norm })
    }
}
