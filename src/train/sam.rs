//! SAM, sharpness-aware minimisation (Foret, Kleiner, Mobahi, Neyshabur, ICLR 2021), and four
//! variants: the gradient of B is computed after an *ascent* step along the gradient of the same B.
//!
//! With g = ∂L^B(w)/∂w over the union of the chosen layers and one norm over all of it:
//!
//! | variant | ε | source |
//! |---|---|---|
//! | SAM | ρ g/‖g‖ | Foret et al., Eq. 2 with p = 2 |
//! | ASAM | ρ T_w² g/‖T_w g‖, T_w = \|w\| + η, number by number | Kwon, Kim, Park, Choi, ICML 2021 |
//! | Friendly-SAM | ρ d/‖d‖, d = g − σ m, m ← λ m + (1 − λ) g | Li, Zhou, He, Cheng, Huang, CVPR 2024 |
//! | norm-only | as SAM, over the normalisation layers' weights and biases alone | Mueller, Vlaar, Rolnick, Hein, NeurIPS 2023 |
//!
//! ASAM's T scales every tensor, as in the paper; the authors' code does not scale biases.
//!
//! Friendly-SAM's m is the moving average of the batches' gradients, with the current one. Its first value is
//! the first gradient, as in the authors' code, and the first step ascends along g. The code subtracts
//! σ times the average without the current gradient; for σ = 1 the direction is the same.
//!
//! The chosen layers step from w with g_s = ∂L^B(w + ε)/∂w. **LookSAM** (Liu, Mai, Chen, Hsieh,
//! You, CVPR 2022) takes an ascent step only at every k-th step. There it steps with g_s and stores
//! the component orthogonal to g, g_v = g_s − (gᵀg_s/‖g‖²) g. The steps between use g + α
//! (‖g‖/‖g_v‖) g_v, with one gradient each.
//!
//! ε belongs to the whole batch B: micro-batches are summed before the ascent step, so their size
//! does not change the step. ε does not depend on the length of g, so clipping, which acts on the
//! gradient of the step, does not change it. If the direction is 0, ε = 0.

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
    /// Along g without its moving average: Friendly-SAM.
    Friendly {
        /// σ, the share of the average that is removed; 0 is SAM.
        sigma: f64,
        /// λ of the average.
        lambda: f64,
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
    /// Friendly-SAM's m.
    average: Vec<Tensor>,
}

impl Sam {
    /// SAM on `update`, before its first step.
    ///
    /// # Errors
    /// Those of [`Variant::perturbed`].
    pub fn new(network: &Network, update: Layer, variant: Variant, rho: f64) -> Result<Self> {
        let ascent = variant.perturbed(network, &update)?;
        let (across, average) = (Vec::new(), Vec::new());
        Ok(Self { update, ascent, rho, variant, steps: 0, across, average })
    }

    /// The model at w + ε and the displacement; `gradient` is g over the perturbed tensors.
    fn ascend(
        &mut self,
        model: &Objective,
        gradient: &[Tensor],
    ) -> Evaluated<(Objective, Displacement)> {
        match self.variant {
            Variant::Adaptive { eta } => {
                let weights = model.weights_of(&self.ascent)?;
                let scaled = vector::scale_by_magnitude(gradient, &weights, eta)?;
                let norm = vector::norm(&scaled)?;
                let direction = vector::scale_by_magnitude(&scaled, &weights, eta)?;
                ascend(model, &self.ascent, &direction, self.rho, norm)
            }
            Variant::Friendly { sigma, lambda } => {
                let direction = self.without_average(gradient, sigma, lambda)?;
                ascend(model, &self.ascent, &direction, self.rho, vector::norm(&direction)?)
            }
            Variant::Plain | Variant::Look { .. } | Variant::Norms => {
                ascend(model, &self.ascent, gradient, self.rho, vector::norm(gradient)?)
            }
        }
    }

    /// Friendly-SAM's d, with the average brought up to date.
    fn without_average(
        &mut self,
        gradient: &[Tensor],
        sigma: f64,
        lambda: f64,
    ) -> Evaluated<Vec<Tensor>> {
        if self.average.is_empty() {
            self.average = gradient.to_vec();
            return Ok(gradient.to_vec());
        }
        let kept = vector::scaled(&self.average, lambda)?;
        self.average = vector::add_scaled(&kept, 1.0 - lambda, gradient)?;
        Ok(vector::add_scaled(gradient, -sigma, &self.average)?)
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

/// The model with `layer` at w + (ρ/norm) `direction`, and the displacement.
pub(super) fn ascend(
    model: &Objective,
    layer: &Layer,
    direction: &[Tensor],
    rho: f64,
    norm: f64,
) -> Evaluated<(Objective, Displacement)> {
    let whole = vector::norm(&model.weights_of(layer)?)?;
    let by = |length: f64| {
        let relative = (whole > 0.0).then(|| length / whole);
        Displacement::Ascent { length, relative }
    };
    if norm == 0.0 {
        return Ok((model.clone(), by(0.0)));
    }
    let step = rho / norm;
    let there = moved(model, layer, direction, -step)?;
    Ok((there, by(step * vector::norm(direction)?)))
}

fn plain(found: Derivatives) -> Step {
    Step { loss: found.loss, gradient: found.gradient, perturbation: None, part: None }
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
