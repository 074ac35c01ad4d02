//! Steps 1–3 of PoF (Sato et al., ICML 2022): a layer is moved down the gradient of a batch of its
//! own, past that batch's minimum.
//!
//! With g = ∂L^{B′}/∂w_p and η* = argmin over η > 0 of L^{B′}(w_p − η g), the layer goes to
//! w_p − γ η* g with γ ~ U(0, Γ). γ = 2 is the far side of a quadratic valley. This is *descent*:
//! SAM climbs.

use super::feed::Feed;
use super::source::Source;
use crate::data::order::{Batches, stream, unit};
use crate::evaluate::losses;
use crate::line_search::{Line, Path, first_minimum, is_linear, longest, moved};
use crate::objective::{Activations, Error, Objective, Result};
use crate::vector;
use crate::vit::Layer;
use planish_kernels::Precision;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Points of the line tried where each costs a forward pass of the suffix.
const NETWORK_BUDGET: usize = 20;
/// Points tried where two products serve them all.
const LINEAR_BUDGET: usize = 60;
/// Largest ‖θ̃ − θ*‖ as a share of ‖θ*‖.
const CAP: f64 = 0.5;
/// Where the first search starts, as a share of the longest step to a minimum.
const START: f64 = 0.01;

/// How η* is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum StepRule {
    /// first minimum along the line
    Search,
    /// gᵀg / gᵀHg, by one Hessian-vector product on B′
    Newton,
}

impl StepRule {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            StepRule::Search => "search",
            StepRule::Newton => "newton",
        }
    }
}

/// One perturbation, as it came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perturbation {
    /// η*.
    pub eta: f64,
    /// γ.
    pub gamma: f64,
    /// ‖Δw_p‖.
    pub length: f64,
    /// ‖Δw_p‖/‖w_p‖; `None` for a layer that was all zeros before training.
    pub relative: Option<f64>,
    /// Whether the cap shortened it, or there was no minimum to be found.
    pub capped: bool,
}

/// The streams and settings that perturbations are drawn from.
pub struct Perturber {
    /// p.
    pub layer: Layer,
    /// Γ.
    pub gamma_max: f64,
    /// How η* is found.
    pub rule: StepRule,
    feed: Feed,
    gammas: ChaCha8Rng,
    /// Where the next search starts: η* changes little from one batch to the next.
    last_eta: Option<f64>,
    /// Whether the layer was all zeros at the first perturbation.
    zeros: Option<bool>,
}

impl Perturber {
    /// Draws B′ of `batch` examples out of `examples`, from a stream of its own.
    ///
    /// # Errors
    /// A batch of 0, or larger than the training set.
    pub fn new(
        layer: Layer,
        gamma_max: f64,
        rule: StepRule,
        examples: usize,
        batch: usize,
        seed: u64,
    ) -> Result<Self> {
        let batches = Batches::new(examples, batch, seed, "B'")?;
        let (feed, gammas) = (Feed::new(batches), stream(seed, "gamma"));
        Ok(Self { layer, gamma_max, rule, feed, gammas, last_eta: None, zeros: None })
    }

    /// The model with p perturbed.
    ///
    /// # Errors
    /// Those of evaluating the model.
    pub fn perturb(
        &mut self,
        model: &Objective,
        source: &Source,
    ) -> Result<(Objective, Perturbation)> {
        let read = |order: &mut Batches| source.next(order);
        let examples = self.feed.next(model, read)?;
        let gamma = self.gamma_max * unit(&mut self.gammas);
        let weight_norm = vector::norm(&model.weights_of(&self.layer)?)?;
        // A layer that starts from zeros may be trained itself. What it has gained by then is no
        // measure of how far it may go, so the first perturbation decides for all.
        let zeros = *self.zeros.get_or_insert(weight_norm == 0.0);
        let norm = (!zeros).then_some(weight_norm);
        let Self { layer, rule, last_eta, .. } = self;
        let descend = || descend(model, examples, (layer, *rule, gamma, norm), last_eta);
        match source.is_read() {
            true => self.feed.meanwhile(model, read, descend),
            false => descend(),
        }
    }
}

/// The model with `layer` moved down the gradient of B′, by at most half of its `norm`; a layer of
/// zeros has none, and its η* is at most 2 L/‖g‖² (see [`longest`]). `last_eta` is where the search
/// starts, and becomes where it ended.
fn descend(
    model: &Objective,
    mut examples: Activations,
    (layer, rule, gamma, norm): (&Layer, StepRule, f64, Option<f64>),
    last_eta: &mut Option<f64>,
) -> Result<(Objective, Perturbation)> {
    if examples.stage < layer.first_stage {
        // Layers between the cache and p may be the ones that are being trained.
        examples = model.activations_on_device(&examples, layer.first_stage)?;
    }
    let found = model.gradient(&examples, layer)?;
    let square = vector::dot(&found.gradient, &found.gradient)?;
    if square == 0.0 {
        let relative = norm.map(|_| 0.0);
        let none = Perturbation { eta: 0.0, gamma, length: 0.0, relative, capped: false };
        return Ok((model.clone(), none));
    }
    let slope = square.sqrt();
    let widest = longest(norm.unwrap_or(0.0), slope, found.loss) / slope;
    // Most that γ η may be, and the η beyond which it is that.
    let (cap, reach) = match norm {
        Some(_) => (CAP * widest, CAP * widest / gamma.max(1e-6)),
        None => (gamma * widest, widest),
    };
    let eta = match rule {
        StepRule::Newton => {
            let product = model.hvp(&examples, layer, &found.gradient)?.hvp;
            let curvature = vector::dot(&found.gradient, &product)?;
            if curvature > 0.0 { square / curvature } else { f64::INFINITY }
        }
        StepRule::Search => {
            // In bf16 the smallest steps would be rounded away with the weights they move.
            let exact = model.exact();
            let path = Path::new(&exact, &examples, layer, &found.gradient)?;
            let loss = |eta| -> Result<f64> {
                match path.predict(eta) {
                    Ok(predictions) => {
                        let losses = losses(&predictions, 1.0);
                        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
                    }
                    // A step that overflows is a high loss, not an end of the work.
                    Err(Error::Predictions(_)) => Ok(f64::INFINITY),
                    Err(error) => Err(error),
                }
            };
            let line = Line {
                at_zero: match model.precision {
                    Precision::F32 => found.loss,
                    Precision::Bf16 => loss(0.0)?,
                },
                derivatives: None,
                start: last_eta.unwrap_or(START * widest),
                cap: reach,
                budget: if is_linear(model, layer) { LINEAR_BUDGET } else { NETWORK_BUDGET },
            };
            let minimum = first_minimum(line, loss)?;
            if minimum.capped { f64::INFINITY } else { minimum.alpha }
        }
    };
    if eta.is_finite() && eta > 0.0 {
        *last_eta = Some(eta);
    }
    // Where no minimum was found, the line still falls where the cap holds it.
    let length = (gamma * eta).min(cap);
    let capped = gamma * eta > cap || eta.is_infinite();
    let perturbed = moved(model, layer, &found.gradient, length)?;
    let eta = if eta.is_finite() { eta } else { reach };
    let length = length * slope;
    let relative = norm.map(|norm| length / norm);
    Ok((perturbed, Perturbation { eta, gamma, length, relative, capped }))
}
