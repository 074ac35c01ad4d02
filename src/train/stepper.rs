//! Turns a method's gradient into new weights: clipping, learning rate, optimizer. Used by
//! fine-tuning and all post-training methods.

use super::groups::Groups;
use super::optimizer::clip;
use super::{Result, Schedule};
use crate::models::Layer;
use crate::objective::Objective;
use crate::vector;
use candle_core::Tensor;

/// Takes the steps of one run.
#[derive(Debug)]
pub struct Stepper {
    groups: Groups,
    schedule: Schedule,
    clip: Option<f64>,
    per_epoch: usize,
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
    /// A run before its first step, with `per_epoch` steps an epoch. `clip` is the maximum gradient
    /// norm, see [`clip()`].
    pub fn new(groups: Groups, schedule: Schedule, clip: Option<f64>, per_epoch: usize) -> Self {
        Self { groups, schedule, clip, per_epoch, made: 0 }
    }

    /// Moves the layer's tensors by one step along −`gradient`, on the model's device. All other
    /// tensors are shared. If the gradient norm is not finite, nothing moves; the caller checks
    /// [`Made::norm`].
    ///
    /// # Errors
    /// A gradient that does not fit the layer's tensors.
    pub fn step(
        &mut self,
        model: &mut Objective,
        layer: &Layer,
        gradient: Vec<Tensor>,
    ) -> Result<Made> {
        self.step_part(model, layer, None, gradient)
    }

    /// The same for the tensors at `part` of the layer's list. `None` stands for all.
    ///
    /// # Errors
    /// A gradient that does not fit these tensors.
    pub fn step_part(
        &mut self,
        model: &mut Objective,
        layer: &Layer,
        part: Option<&[usize]>,
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
        let first = self.made.is_multiple_of(self.per_epoch.max(1));
        self.made = self.made.saturating_add(1);
        if norm.is_finite() {
            let now = model.weights_of(layer)?;
            let next = match part {
                Some(part) => self.groups.step_part(part, &now, &gradient, rate)?,
                None => {
                    if first {
                        self.groups.measure(&now, &gradient)?;
                    }
                    self.groups.step(&now, &gradient, rate)?
                }
            };
            for (&i, next) in layer.tensors.iter().zip(next) {
                model.weights.set(i, next);
            }
        }
        Ok(Made { rate, norm })
    }
}
