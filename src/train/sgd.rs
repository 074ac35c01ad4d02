//! Plain SGD on the same layer, steps and batches: the control that isolates the effect of the
//! perturbation.

use super::method::{Method, Step};
use super::source::Source;
use crate::models::Layer;
use crate::objective::{Activations, Objective, Result};

/// ∂L^B(w)/∂w_u at the current weights.
pub struct Sgd {
    /// u.
    pub update: Layer,
}

impl Method for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn updated(&self) -> &Layer {
        &self.update
    }

    fn step(&mut self, model: &Objective, _: &Source, batch: &Activations) -> Result<Step> {
        let found = model.gradient(batch, &self.update)?;
        Ok(Step { loss: found.loss, gradient: found.gradient, perturbation: None, part: None })
    }
}
