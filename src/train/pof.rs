//! PoF, post-training of the feature extractor (Sato, Yamada, Tanaka, Inoue, Kawakami, ICML 2022):
//! the head is perturbed, all other layers are updated, and the head itself does not change.

use super::method::{Displacement, Method, Step};
use super::perturbation::Perturber;
use super::source::Source;
use crate::models::Layer;
use crate::objective::{Activations, Objective, Result};

/// ∂L^B(φ, θ̃)/∂φ at θ̃ = θ* − γ η* g, where θ is the head and φ all other layers.
pub struct Pof {
    /// φ: all layers except the head.
    pub features: Layer,
    /// Perturbs θ, the head.
    pub perturber: Perturber,
}

impl Method for Pof {
    fn name(&self) -> &'static str {
        "pof"
    }

    fn updated(&self) -> &Layer {
        &self.features
    }

    fn step(&mut self, model: &Objective, source: &Source, batch: &Activations) -> Result<Step> {
        let (perturbed, perturbation) = self.perturber.perturb(model, source)?;
        let found = perturbed.gradient(batch, &self.features)?;
        let perturbation = Some(Displacement::Descent(perturbation));
        Ok(Step { loss: found.loss, gradient: found.gradient, perturbation, part: None })
    }
}
