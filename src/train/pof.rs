//! PoF, post-training of the feature extractor (Sato, Yamada, Tanaka, Inoue, Kawakami, ICML 2022):
//! the head is perturbed, all other layers are updated, the head stays as it was.

use super::method::{Displacement, Method, Step};
use super::perturbation::Perturber;
use super::source::Source;
use crate::objective::{Activations, Objective, Result};
use crate::vit::Layer;

/// ∂L^B(φ, θ̃)/∂φ with θ = head at θ̃ = θ* − γ η* g, φ all other layers.
pub struct Pof {
    /// φ: every layer but the head.
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
        Ok(Step { loss: found.loss, gradient: found.gradient, perturbation })
    }
}
