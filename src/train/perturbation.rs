//! Steps 1–3 of PoF (Sato et al., ICML 2022): a layer moves down the gradient of its own batch B′,
//! past that batch's minimum.
//!
//! With g = ∂L^{B′}/∂w_p and η* = argmin over η > 0 of L^{B′}(w_p − η g), the layer moves to w_p −
//! γ η* g with γ ~ U(0, Γ). γ = 2 is the far side of a quadratic valley. This is a *descent* step;
//! SAM takes an ascent step.

use super::feed::Feed;
use super::source::Source;
use crate::data::order::Batches;
use crate::engine::Precision;
use crate::evaluate::losses;
use crate::line_search::{Line, Path, first_minimum, longest, moved};
use crate::models::Layer;
use crate::objective::{Activations, Error, Objective, Result};
use crate::random::{stream, unit};
use crate::vector;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Points per search if each costs a forward pass of the suffix.
const NETWORK_BUDGET: usize = 20;
/// Points per search if the logits are linear in η: two products serve all points.
const LINEAR_BUDGET: usize = 60;
/// Maximum ‖θ̃ − θ*‖ relative to ‖θ*‖.
const CAP: f64 = 0.5;
/// Start of the first search, as a fraction of the longest step to a minimum.
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

/// One perturbation.
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
    /// Whether the cap shortened it, or no minimum was found.
    pub capped: bool,
}

/// The random streams and settings of perturbations.
pub struct Perturber {
    /// p.
    pub layer: Layer,
    /// Γ.
    pub gamma_max: f64,
    /// How η* is found.
    pub rule: StepRule,
    feed: Feed,
    gammas: ChaCha8Rng,
    /// Start of the next search: η* changes little between batches.
    last_eta: Option<f64>,
    /// Whether the layer was all zeros at the first perturbation.
    zeros: Option<bool>,
}

impl Perturber {
    /// Draws B′ of `batch` examples out of `examples`, from its own random stream.
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
        // The norm of a layer that starts from zeros is not a useful limit. Choose the limit at
        // the first perturbation and keep it, because the layer itself may be trained.
        let zeros = *self.zeros.get_or_insert(weight_norm == 0.0);
        let norm = (!zeros).then_some(weight_norm);
        let Self { layer, rule, last_eta, .. } = self;
        let descend = || descend(model, examples, (layer, *rule, gamma, norm), last_eta);
        match source.is_read() {
            true => self.feed.overlap(model, read, descend),
            false => descend(),
        }
    }
}

/// The model with `layer` moved down the gradient of B′, by at most half of its `norm`. The loss of B′
/// has no label smoothing, so that gradient, curvature and search belong to one function. A layer of
/// zeros has no such limit; its η* is at most 2 L/‖g‖² (see [`longest`]). `last_eta` is the start
/// of the search and is set to its result.
fn descend(
    model: &Objective,
    mut examples: Activations,
    (layer, rule, gamma, norm): (&Layer, StepRule, f64, Option<f64>),
    last_eta: &mut Option<f64>,
) -> Result<(Objective, Perturbation)> {
    if examples.stage < layer.first_stage {
        // Layers between the cached activations and p may be the ones that are trained.
        examples = model.activations_on_device(&examples, layer.first_stage)?;
    }
    let plain = &Objective { smoothing: 0.0, ..model.clone() };
    let found = plain.gradient(&examples, layer)?;
    let square = vector::dot(&found.gradient, &found.gradient)?;
    if square == 0.0 {
        let relative = norm.map(|_| 0.0);
        let none = Perturbation { eta: 0.0, gamma, length: 0.0, relative, capped: false };
        return Ok((model.clone(), none));
    }
    let slope = square.sqrt();
    let widest = longest(norm.unwrap_or(0.0), slope, found.loss) / slope;
    // Maximum of γ η, and the η at which it is reached.
    let (cap, reach) = match norm {
        Some(_) => (CAP * widest, CAP * widest / gamma.max(1e-6)),
        None => (gamma * widest, widest),
    };
    let eta = match rule {
        StepRule::Newton => {
            let product = plain.hvp(&examples, layer, &found.gradient)?.hvp;
            let curvature = vector::dot(&found.gradient, &product)?;
            if curvature > 0.0 { square / curvature } else { f64::INFINITY }
        }
        StepRule::Search => {
            // In bf16, small steps would be rounded away.
            let exact = plain.exact();
            let path = Path::new(&exact, &examples, layer, &found.gradient)?;
            let loss = |eta| -> Result<f64> {
                match path.predict(eta) {
                    Ok(predictions) => {
                        let losses = losses(&predictions, 1.0);
                        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
                    }
                    // A step that overflows counts as a high loss; it does not abort the search.
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
                budget: if model.network.is_linear_in(layer) {
                    LINEAR_BUDGET
                } else {
                    NETWORK_BUDGET
                },
            };
            let minimum = first_minimum(line, loss)?;
            if minimum.capped { f64::INFINITY } else { minimum.alpha }
        }
    };
    if eta.is_finite() && eta > 0.0 {
        *last_eta = Some(eta);
    }
    // Without a minimum, the loss still falls where the cap stops the layer.
    let length = (gamma * eta).min(cap);
    let capped = gamma * eta > cap || eta.is_infinite();
    let perturbed = moved(model, layer, &found.gradient, length)?;
    let eta = if eta.is_finite() { eta } else { reach };
    let length = length * slope;
    let relative = norm.map(|norm| length / norm);
    Ok((perturbed, Perturbation { eta, gamma, length, relative, capped }))
}
