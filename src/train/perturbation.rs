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
use crate::objective::{Activations, Derivatives, Error, Objective, Result};
use crate::random::{stream, unit};
use crate::vector;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Points per search if each costs a forward pass of the suffix.
const NETWORK_BUDGET: usize = 20;
/// Points per search if the logits are linear in η: two products serve all points.
const LINEAR_BUDGET: usize = 60;
/// Maximum ‖θ̃ − θ*‖ relative to ‖θ*‖, with [`NoMinimum::Cap`].
const CAP: f64 = 0.5;
/// The published search: points per search, and the η that it does not reach.
const GRID_POINTS: usize = 16;
const GRID_END: f64 = 10_000.0;
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
    /// as in PoF's code: double η from 1 until the loss exceeds its initial value, then take the
    /// best of 16 evenly spaced values up to that η
    Grid,
}

impl StepRule {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            StepRule::Search => "search",
            StepRule::Newton => "newton",
            StepRule::Grid => "grid",
        }
    }
}

/// What happens in a step in which the loss of B′ has no minimum within reach.
///
/// The reach is η‖g‖ ≤ ‖w_p‖, or η‖g‖ ≤ 2L/‖g‖ if w_p = 0. A search has no minimum if the loss still falls
/// there, a Newton step if gᵀHg ≤ 0 or if it ends beyond. The reach of [`StepRule::Grid`] is η < 10,000, as
/// in PoF's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum NoMinimum {
    /// do not perturb in this step
    #[default]
    Reject,
    /// perturb by half the layer's norm, and limit all perturbations to that length
    Cap,
}

impl NoMinimum {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            NoMinimum::Reject => "reject",
            NoMinimum::Cap => "cap",
        }
    }
}

/// One perturbation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perturbation {
    /// η*; 0 if the perturbation was rejected.
    pub eta: f64,
    /// γ.
    pub gamma: f64,
    /// ‖Δw_p‖.
    pub length: f64,
    /// ‖Δw_p‖/‖w_p‖; `None` for a layer that was all zeros before training.
    pub relative: Option<f64>,
    /// The rule for steps without a minimum.
    pub no_minimum: NoMinimum,
    /// Whether the rule applied: no minimum was found or, with [`NoMinimum::Cap`], the perturbation
    /// was too long.
    pub limited: bool,
}

impl Perturbation {
    /// Whether it was rejected; `None` under another rule.
    pub fn rejected(&self) -> Option<bool> {
        (self.no_minimum == NoMinimum::Reject).then_some(self.limited)
    }

    /// Whether it was capped; `None` under another rule.
    pub fn capped(&self) -> Option<bool> {
        (self.no_minimum == NoMinimum::Cap).then_some(self.limited)
    }
}

/// The random streams and settings of perturbations.
pub struct Perturber {
    /// p.
    pub layer: Layer,
    /// Γ.
    pub gamma_max: f64,
    /// How η* is found.
    pub rule: StepRule,
    /// What happens without a minimum.
    pub no_minimum: NoMinimum,
    feed: Feed,
    gammas: ChaCha8Rng,
    /// Start of the next search: η* changes little between batches.
    last_eta: Option<f64>,
    /// Whether the layer was all zeros at the first perturbation.
    zeros: Option<bool>,
}

impl Perturber {
    /// Draws B′ of `batch` examples out of `examples`, from its own random stream. Steps without a
    /// minimum are rejected.
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
        let no_minimum = NoMinimum::default();
        Ok(Self { layer, gamma_max, rule, no_minimum, feed, gammas, last_eta: None, zeros: None })
    }

    /// The same with B′ drawn with replacement.
    #[must_use]
    pub fn with_replacement(self) -> Self {
        Self { feed: self.feed.with_replacement(), ..self }
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
        let Self { layer, rule, no_minimum, last_eta, .. } = self;
        let line = Descent { layer, rule: *rule, no_minimum: *no_minimum, gamma, norm };
        let descend = || line.descend(model, examples, last_eta);
        match source.is_read() {
            true => self.feed.overlap(model, read, descend),
            false => descend(),
        }
    }
}

/// A step down the gradient of B′.
struct Descent<'a> {
    layer: &'a Layer,
    rule: StepRule,
    no_minimum: NoMinimum,
    gamma: f64,
    /// ‖w_p‖; `None` for a layer of zeros.
    norm: Option<f64>,
}

impl Descent<'_> {
    /// The model with the layer moved. The loss of B′ has no label smoothing, so that gradient,
    /// curvature and search belong to one function. `last_eta` is the start of the search and is set
    /// to its result.
    fn descend(
        &self,
        model: &Objective,
        mut examples: Activations,
        last_eta: &mut Option<f64>,
    ) -> Result<(Objective, Perturbation)> {
        let &Self { layer, no_minimum, gamma, norm, .. } = self;
        if examples.stage < layer.first_stage {
            // Layers between the cached activations and p may be the ones that are trained.
            examples = model.activations_on_device(&examples, layer.first_stage)?;
        }
        let plain = &Objective { smoothing: 0.0, ..model.clone() };
        let found = plain.gradient(&examples, layer)?;
        let rejects = no_minimum == NoMinimum::Reject;
        let unmoved = || {
            let relative = norm.map(|_| 0.0);
            Perturbation { eta: 0.0, gamma, length: 0.0, relative, no_minimum, limited: rejects }
        };
        let slope = vector::norm(&found.gradient)?;
        if slope == 0.0 {
            return Ok((model.clone(), unmoved()));
        }
        let widest = longest(norm.unwrap_or(0.0), slope, found.loss) / slope;
        // Maximum of γ η, and the η that a search reaches.
        let (cap, reach) = match (no_minimum, norm) {
            (NoMinimum::Reject, _) => (f64::INFINITY, widest),
            (NoMinimum::Cap, Some(_)) => (CAP * widest, CAP * widest / gamma.max(1e-6)),
            (NoMinimum::Cap, None) => (gamma * widest, widest),
        };
        let start = last_eta.unwrap_or(START * widest);
        let eta = self.minimum(plain, &examples, &found, start, reach)?;
        if eta.is_finite() && eta > 0.0 {
            *last_eta = Some(eta);
        }
        if rejects && !(eta.is_finite() && eta > 0.0) {
            return Ok((model.clone(), unmoved()));
        }
        // Without a minimum, the loss still falls where the cap stops the layer.
        let length = (gamma * eta).min(cap);
        let limited = gamma * eta > cap || eta.is_infinite();
        let perturbed = moved(model, layer, &found.gradient, length)?;
        let eta = if eta.is_finite() { eta } else { reach };
        let length = length * slope;
        let relative = norm.map(|norm| length / norm);
        Ok((perturbed, Perturbation { eta, gamma, length, relative, no_minimum, limited }))
    }

    /// η*; infinite if there is no minimum within reach, 0 if no evaluated point is lower than the
    /// start.
    fn minimum(
        &self,
        plain: &Objective,
        examples: &Activations,
        found: &Derivatives,
        start: f64,
        reach: f64,
    ) -> Result<f64> {
        let layer = self.layer;
        if self.rule == StepRule::Newton {
            let product = plain.hvp(examples, layer, &found.gradient)?.hvp;
            let curvature = vector::dot(&found.gradient, &product)?;
            let square = vector::dot(&found.gradient, &found.gradient)?;
            let eta = if curvature > 0.0 { square / curvature } else { f64::INFINITY };
            // A cap applies to γ η*, so it needs η* beyond the reach, too.
            let beyond = self.no_minimum == NoMinimum::Reject && eta > reach;
            return Ok(if beyond { f64::INFINITY } else { eta });
        }
        // In bf16, small steps would be rounded away.
        let exact = plain.exact();
        let path = Path::new(&exact, examples, layer, &found.gradient)?;
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
        let at_zero = match plain.precision {
            Precision::F32 => found.loss,
            Precision::Bf16 => loss(0.0)?,
        };
        if self.rule == StepRule::Grid {
            return grid_minimum(at_zero, loss);
        }
        let budget = match path.is_cheap() {
            true => LINEAR_BUDGET,
            false => NETWORK_BUDGET,
        };
        let line = Line { at_zero, derivatives: None, start, cap: reach, budget };
        let minimum = first_minimum(line, loss)?;
        Ok(if minimum.capped { f64::INFINITY } else { minimum.alpha })
    }
}

/// The η of [`StepRule::Grid`]; infinite if the loss is not above its start before η reaches 10,000.
fn grid_minimum(at_zero: f64, loss: impl Fn(f64) -> Result<f64>) -> Result<f64> {
    let mut end = 1.0;
    while loss(end)? <= at_zero {
        end *= 2.0;
        if end >= GRID_END {
            return Ok(f64::INFINITY);
        }
    }
    let mut best = (0.0, f64::INFINITY);
    for k in 1..=GRID_POINTS {
        let eta = end * k as f64 / GRID_POINTS as f64;
        let value = loss(eta)?;
        if value < best.1 {
            best = (eta, value);
        }
    }
    Ok(best.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_search_takes_the_best_of_sixteen_even_steps() {
        let search = |f: &dyn Fn(f64) -> f64| grid_minimum(f(0.0), |eta| Ok(f(eta))).unwrap();
        // (η − c)² is above its start from 2c: the doubling ends at 4, the grid is 0.25, 0.5 ….
        assert_eq!(search(&|eta| (eta - 1.3).powi(2)), 1.25);
        assert_eq!(search(&|eta| (eta - 1.4).powi(2)), 1.5);
        // Above its start at 1 at once: sixteenths, the first of which is taken even if it is no better.
        assert_eq!(search(&|eta| (eta - 0.3).powi(2)), 0.3125);
        assert_eq!(search(&|eta| eta), 1.0 / 16.0);
        // 8192 is the last step that is tried.
        assert_eq!(search(&|eta| (eta - 4000.0).powi(2)), 4096.0);
        assert_eq!(search(&|eta| (eta - 4200.0).powi(2)), f64::INFINITY);
        assert_eq!(search(&|eta| -eta), f64::INFINITY);
        assert_eq!(search(&|_| 0.0), f64::INFINITY);
    }
}
