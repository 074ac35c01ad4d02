//! The interface of a method: which layer it updates, and where it computes the gradient.

use super::perturbation::Perturbation;
use super::source::Source;
use crate::models::Layer;
use crate::objective::{Activations, Objective, Result};
use candle_core::Tensor;

/// One mini-batch's gradient with respect to the updated layer, and how it was computed.
#[derive(Clone, Debug)]
pub struct Step {
    /// Mean loss over B at the point where the gradient was computed, nats.
    pub loss: f64,
    /// One tensor for each tensor of the updated layer, or of its part.
    pub gradient: Vec<Tensor>,
    /// The perturbation at which it was computed, if any.
    pub perturbation: Option<Displacement>,
    /// Positions of the updated layer's tensors that this step updates; `None` for all. The others keep
    /// their weights and the optimizer's state.
    pub part: Option<Vec<usize>>,
}

/// The displacement from the current weights at which a gradient was computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Displacement {
    /// Along the negative gradient of B′, past its minimum: PoF and PoL.
    Descent(Perturbation),
    /// Along the gradient of B: SAM.
    Ascent {
        /// ‖ε‖ over the perturbed tensors.
        length: f64,
        /// ‖ε‖/‖w‖ over the same tensors; `None` if all of w is 0.
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

    /// Its length relative to the norm of the perturbed weights; `None` if these are all 0.
    pub fn relative(&self) -> Option<f64> {
        match self {
            Displacement::Descent(perturbation) => perturbation.relative,
            Displacement::Ascent { relative, .. } => *relative,
        }
    }
}

/// A post-training method. The loop draws B, asks the method for a gradient, and steps.
pub trait Method {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// The layer that is updated. All other layers stay bit-identical.
    fn updated(&self) -> &Layer;

    /// Whether steps may update a part of the layer, [`Step::part`].
    fn updates_parts(&self) -> bool {
        false
    }

    /// The lowest stage that the method touches. All stages below are frozen.
    fn first_stage(&self) -> usize {
        self.updated().first_stage
    }

    /// The gradient for one optimizer step, from the mini-batch `batch` at the method's first
    /// stage.
    ///
    /// # Errors
    /// Those of evaluating the model.
    fn step(&mut self, model: &Objective, source: &Source, batch: &Activations) -> Result<Step>;
}
