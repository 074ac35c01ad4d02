//! Turns a method's gradient into new weights: clipping, learning rate, optimizer. Used by
//! fine-tuning and all post-training methods.

use super::optimizer::{Optimizer, clip};
use super::{Result, Schedule};
use crate::device;
use crate::vector;
use crate::vit::{Layer, Weights};
use candle_core::Tensor;

/// Takes the steps of one run.
#[derive(Debug)]
pub struct Stepper {
    optimizer: Optimizer,
    schedule: Schedule,
    clip: Option<f64>,
    made: usize,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Made {
    /// Learning rate.
    pub rate: f64,
    /// ‖g‖ over all tensors together, before clipping.
    pub norm: f64,
}

impl Stepper {
    /// A run before its first step. `clip` is the maximum gradient norm, see [`clip()`].
    pub fn new(optimizer: Optimizer, schedule: Schedule, clip: Option<f64>) -> Self {
        Self { optimizer, schedule, clip, made: 0 }
    }

    /// Moves the layer's tensors by one step along −`gradient`, on the gradient's device. All other
    /// tensors are shared. If the gradient norm is not finite, nothing moves; the caller checks
    /// [`Made::norm`].
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
