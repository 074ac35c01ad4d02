//! PoL, post-training by layers (Terauchi, Sato, Kawakami, "Model diagnosis for improving
//! generalisation"): the layer with the highest κ is perturbed, the layer with the highest ΔL is
//! updated.

use super::method::{Displacement, Method, Step};
use super::perturbation::Perturber;
use super::source::Source;
use crate::models::Layer;
use crate::objective::{Activations, Objective, Result};

/// ∂L^B/∂w_u, with w_p at w_p − γ η* g.
///
/// If p and u share tensors, the gradient is computed at the perturbed point and applied to the
/// current unperturbed weights, from which the next perturbation starts.
pub struct Pol {
    /// u.
    pub update: Layer,
    /// Perturbs p.
    pub perturber: Perturber,
}

impl Method for Pol {
    fn name(&self) -> &'static str {
        "pol"
    }

    fn updated(&self) -> &Layer {
        &self.update
    }

    fn first_stage(&self) -> usize {
        self.update.first_stage.min(self.perturber.layer.first_stage)
    }

    fn step(&mut self, model: &Objective, source: &Source, batch: &Activations) -> Result<Step> {
        let (perturbed, perturbation) = self.perturber.perturb(model, source)?;
        let found = perturbed.gradient(batch, &self.update)?;
        let perturbation = Some(Displacement::Descent(perturbation));
        Ok(Step { loss: found.loss, gradient: found.gradient, perturbation, part: None })
    }
}
