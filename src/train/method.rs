//! What makes a method: which layer it updates, and where it takes the gradient.

use super::perturbation::Perturbation;
use super::source::Source;
use crate::objective::{Activations, Objective, Result};
use crate::vit::Layer;
use candle_core::Tensor;

/// One mini-batch's gradient in the updated layer, and how it was taken.
#[derive(Clone, Debug)]
pub struct Step {
    /// Mean loss over B at the point where the gradient was taken, nats.
    pub loss: f64,
    /// One tensor for each of the updated layer's.
    pub gradient: Vec<Tensor>,
    /// The perturbation under which it was taken, if any.
    pub perturbation: Option<Displacement>,
}

/// How far from the current weights a gradient was taken, and which way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Displacement {
    /// Down the gradient of B′, past its minimum: PoF and PoL.
    Descent(Perturbation),
    /// Up the gradient of B: SAM.
    Ascent {
        /// ‖ε‖ over what is perturbed.
        length: f64,
        /// ‖ε‖/‖w‖ over the same; `None` where all of w is 0.
        relative: Option<f64>,
    },
}

impl Displacement {
    /// Its length.
    pub fn length(&self) -> f64 {
        match self {
            Displacement::Descent(perturbation) => perturbation.length,
            Displacement::Ascent { length, .. } => *length,
        }
    }

    /// Its length, as a share of the perturbed weights' norm; `None` where they are all 0.
    pub fn relative(&self) -> Option<f64> {
        match self {
            Displacement::Descent(perturbation) => perturbation.relative,
            Displacement::Ascent { relative, .. } => *relative,
        }
    }
}

/// A way of post-training. The loop draws B, asks the method for a gradient, and steps.
pub trait Method {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// The layer that is updated; all others stay as they are, to the byte.
    fn updated(&self) -> &Layer;

    /// The lowest stage that the method touches; all below is frozen.
    fn first_stage(&self) -> usize {
        self.updated().first_stage
    }

    /// The gradient for one step of the optimizer, from the mini-batch `batch` at the method's
    /// first stage.
    ///
    /// # Errors
    /// Those of evaluating the model.
    fn step(&mut self, model: &Objective, source: &Source, batch: &Activations) -> Result<Step>;
}
