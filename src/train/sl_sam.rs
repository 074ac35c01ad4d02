//! SL-SAM, sparse-layer SAM (Cheng, Yang, Wang, Huang, Ma, Yu, Cao, Shen, arXiv 2602.09395, 2026): a bandit
//! on gradient norms draws the tensors that a step perturbs and updates.
//!
//! At each step, the [`Bandit`] draws a part A of the updated layers' tensors. With g = ∂L^B(w)/∂w_A, the
//! tensors of A step with ∂L^B(w + ρ g/‖g‖)/∂w_A. All others keep their weights and their momentum, and have
//! no weight decay in this step. The bandit then learns from the norms of g, tensor by tensor.
//!
//! The details follow the authors' code, which the paper names: tensors are the arms, all drawn
//! independently, and the constants of the bandit. The paper speaks of layers.

use super::bandit::Bandit;
use super::method::{Method, Step};
use super::sam::ascend;
use super::source::Source;
use crate::models::layers::{join, layers};
use crate::models::{Granularity, Layer, Network};
use crate::objective::{Activations, Objective, Result};
use crate::vector;

/// SAM on a part of the tensors that is drawn for each step.
pub struct SlSam {
    /// u.
    update: Layer,
    /// Its tensors.
    arms: Vec<Layer>,
    rho: f64,
    bandit: Bandit,
    uniform: Box<dyn FnMut() -> f64>,
}

impl SlSam {
    /// SL-SAM that updates a share s of the tensors of `update` on average, at least one. `uniform` gives random numbers in
    /// [0, 1), one for each tensor and draw.
    pub fn new(
        network: &Network,
        update: Layer,
        rho: f64,
        share: f64,
        uniform: impl FnMut() -> f64 + 'static,
    ) -> Self {
        let mut arms = layers(network, Granularity::Tensor);
        arms.retain(|arm| arm.tensors.iter().all(|i| update.tensors.contains(i)));
        // A step updates at least one tensor.
        let bandit = Bandit::new(arms.len(), share.max(1.0 / arms.len().max(1) as f64));
        Self { update, arms, rho, bandit, uniform: Box::new(uniform) }
    }

    /// How often each tensor of u is drawn.
    pub fn probabilities(&self) -> &[f64] {
        self.bandit.probabilities()
    }
}

impl Method for SlSam {
    fn name(&self) -> &'static str {
        "sl-sam"
    }

    fn updated(&self) -> &Layer {
        &self.update
    }

    fn updates_parts(&self) -> bool {
        true
    }

    fn step(&mut self, model: &Objective, _: &Source, batch: &Activations) -> Result<Step> {
        let drawn = self.bandit.draw(&mut self.uniform);
        let arms: Vec<Layer> = drawn.iter().map(|&i| self.arms[i].clone()).collect();
        let part = join(&arms);
        let here = model.gradient(batch, &part)?.gradient;
        let norms = here.iter().map(|g| Ok(vector::norm(std::slice::from_ref(g))?));
        let norms = norms.collect::<Result<Vec<f64>>>()?;
        let (there, displacement) = ascend(model, &part, &here, self.rho, vector::norm(&here)?)?;
        let found = there.gradient(batch, &part)?;
        self.bandit.learn(&drawn, &norms);
        Ok(Step {
            loss: found.loss,
            gradient: found.gradient,
            perturbation: Some(displacement),
            part: Some(drawn),
        })
    }
}
