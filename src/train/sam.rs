//! SAM, sharpness-aware minimisation (Foret, Kleiner, Mobahi, Neyshabur, ICLR 2021), and three
//! variants: the gradient of B is computed after an *ascent* step along the gradient of the same B.
//!
//! With g = ∂L^B(w)/∂w over the union of the chosen layers and one norm over all of it:
//!
//! | variant | ε | source |
//! |---|---|---|
//! | SAM | ρ g/‖g‖ | Foret et al., Eq. 2 with p = 2 |
//! | ASAM | ρ T_w² g/‖T_w g‖, T_w = \|w\| + η, number by number | Kwon, Kim, Park, Choi, ICML 2021 |
//! | norm-only | as SAM, over the normalisation layers' weights and biases alone | Mueller, Vlaar, Rolnick, Hein, NeurIPS 2023 |
//!
//! ASAM's T scales every tensor, as in the paper; the authors' code does not scale biases.
//!
//! The chosen layers step from w with g_s = ∂L^B(w + ε)/∂w. **LookSAM** (Liu, Mai, Chen, Hsieh,
//! You, CVPR 2022) takes an ascent step only at every k-th step. There it steps with g_s and stores
//! the component orthogonal to g, g_v = g_s − (gᵀg_s/‖g‖²) g. The steps between use g + α
//! (‖g‖/‖g_v‖) g_v, with one gradient each.
//!
//! ε belongs to the whole batch B: micro-batches are summed before the ascent step, so their size
//! does not change the step. ε does not depend on the length of g, so clipping, which acts on the
//! gradient of the step, does not change it. If g = 0, ε = 0.

use super::method::{Displacement, Method, Step};
use super::recipe::ResolvedMethod;
use super::source::Source;
use super::{Error, Result};
use crate::line_search::moved;
use crate::models::{Layer, Network};
use crate::objective::{Activations, Derivatives, Objective, Result as Evaluated};
use crate::vector;
use candle_core::Tensor;
use serde::Serialize;

/// How ε is computed, or how often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// ρ g/‖g‖.
    Plain,
    /// Scaled by the weights: ASAM.
    Adaptive {
        /// η, which allows zero weights to move.
        eta: f64,
    },
    /// Ascent only at every k-th step: LookSAM.
    Look {
        /// k; 1 is SAM.
        every: usize,
        /// α.
        alpha: f64,
    },
    /// Only normalisation layers are perturbed.
    Norms,
}

impl Variant {
    /// Fraction of the steps with an ascent step, which needs a second gradient.
    pub fn ascent_share(self) -> f64 {
        match self {
            Variant::Look { every, .. } => 1.0 / every.max(1) as f64,
            _ => 1.0,
        }
    }

    /// The layer's tensors that ε moves.
    ///
    /// # Errors
    /// [`Error::NoNorms`] if only norms are perturbed and the layer has none.
    pub fn perturbed(self, network: &Network, update: &Layer) -> Result<Layer> {
        if self != Variant::Norms {
            return Ok(update.clone());
        }
        let is_norm = |i: &usize| network.params()[*i].norm;
        let tensors: Vec<usize> = update.tensors.iter().copied().filter(is_norm).collect();
        if tensors.is_empty() {
            return Err(Error::NoNorms { layer: update.name.clone() });
        }
        // The norms may span fewer stages than the update; a wider range is always valid.
        Ok(Layer { name: format!("norms of {}", update.name), tensors, ..update.clone() })
    }
}

/// ∂L^B(w + ε)/∂w_u.
pub struct Sam {
    /// u.
    update: Layer,
    /// What ε moves: u, or its norms.
    ascent: Layer,
    rho: f64,
    variant: Variant,
    steps: usize,
    /// LookSAM's g_v.
    across: Vec<Tensor>,
}

impl Sam {
    /// SAM on `update`, before its first step.
    ///
    /// # Errors
    /// Those of [`Variant::perturbed`].
    pub fn new(network: &Network, update: Layer, variant: Variant, rho: f64) -> Result<Self> {
        let ascent = variant.perturbed(network, &update)?;
        Ok(Self { update, ascent, rho, variant, steps: 0, across: Vec::new() })
    }

    /// The model at w + ε and the displacement; `gradient` is g over the perturbed tensors.
    fn ascend(
        &self,
        model: &Objective,
        gradient: &[Tensor],
    ) -> Evaluated<(Objective, Displacement)> {
        let weights = model.weights_of(&self.ascent)?;
        let mut direction = gradient.to_vec();
        let mut norm = vector::norm(gradient)?;
        if let Variant::Adaptive { eta } = self.variant {
            direction = vector::scale_by_magnitude(gradient, &weights, eta)?;
            norm = vector::norm(&direction)?;
            direction = vector::scale_by_magnitude(&direction, &weights, eta)?;
        }
        let whole = vector::norm(&weights)?;
        let by = |length: f64| {
            let relative = (whole > 0.0).then(|| length / whole);
            Displacement::Ascent { length, relative }
        };
        if norm == 0.0 {
            return Ok((model.clone(), by(0.0)));
        }
        let step = self.rho / norm;
        let there = moved(model, &self.ascent, &direction, -step)?;
        Ok((there, by(step * vector::norm(&direction)?)))
    }

    /// A LookSAM step without an ascent step.
    fn reuse(&self, found: Derivatives) -> Evaluated<Step> {
        let Variant::Look { alpha, .. } = self.variant else { return Ok(plain(found)) };
        let (own, across) = (vector::norm(&found.gradient)?, vector::norm(&self.across)?);
        if across == 0.0 {
            return Ok(plain(found));
        }
        let gradient = vector::add_scaled(&found.gradient, alpha * own / across, &self.across)?;
        Ok(Step { gradient, ..plain(found) })
    }
}

fn plain(found: Derivatives) -> Step {
    Step { loss: found.loss, gradient: found.gradient, perturbation: None }
}

impl Method for Sam {
    fn name(&self) -> &'static str {
        ResolvedMethod::Sam(self.variant).name()
    }

    fn updated(&self) -> &Layer {
        &self.update
    }

    fn step(&mut self, model: &Objective, _: &Source, batch: &Activations) -> Evaluated<Step> {
        let turn = self.steps;
        self.steps = self.steps.wrapping_add(1);
        let here = model.gradient(batch, &self.ascent)?;
        if let Variant::Look { every, .. } = self.variant
            && !turn.is_multiple_of(every.max(1))
        {
            return self.reuse(here);
        }
        let (there, displacement) = self.ascend(model, &here.gradient)?;
        let found = there.gradient(batch, &self.update)?;
        if let Variant::Look { .. } = self.variant {
            let square = vector::dot(&here.gradient, &here.gradient)?;
            let along = vector::dot(&here.gradient, &found.gradient)?;
            let share = if square > 0.0 { along / square } else { 0.0 };
            self.across = vector::add_scaled(&found.gradient, -share, &here.gradient)?;
        }
        Ok(Step { perturbation: Some(displacement), ..plain(found) })
    }
}
