//! What a search for a recipe tried.

use crate::evaluate::Estimate;
use crate::format::{estimate, optional};
use serde::{Deserialize, Serialize};

/// A recipe that a search tried, with its figures on V; these are missing where it came to nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// As in [`MethodInfo`](super::result::MethodInfo).
    pub method: String,
    /// p, if anything is perturbed.
    pub perturb: Option<String>,
    /// u.
    pub update: String,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The weight decay.
    pub weight_decay: f64,
    /// Epochs at most: those of the epoch with the least loss on V were kept.
    pub epochs: usize,
    /// Mean NLL on V.
    pub nll: Option<f64>,
    /// The same after a temperature, cross-fitted on halves of V.
    pub calibrated_nll: Option<f64>,
    /// Paired difference of NLL, before − after.
    pub nll_gain: Option<Estimate>,
    /// The same after a temperature on either side.
    pub calibrated_nll_gain: Option<Estimate>,
    /// Seconds that it took, the layers that it freezes among them if it was the first.
    pub seconds: f64,
}

impl Tried {
    /// What a table calls it.
    pub fn name(&self) -> String {
        match &self.perturb {
            Some(p) => format!("{} {p} → {}", self.method, self.update),
            None => format!("{} → {}", self.method, self.update),
        }
    }

    /// Whether it is plain SGD on `other`'s layer, with its settings.
    pub fn is_control_of(&self, other: &Tried) -> bool {
        let settings = |t: &Tried| {
            (t.update.clone(), t.learning_rate.to_bits(), t.weight_decay.to_bits(), t.epochs)
        };
        self.method == "sgd" && other.method != "sgd" && settings(self) == settings(other)
    }
}

/// Headers of [`Search::leading`].
pub const HEADERS: [&str; 8] =
    ["recipe", "rate", "decay", "epochs", "NLL on V", "gain", "calibrated gain", "of its control"];

/// What a search tried before the recipe of the report was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// The time it was given.
    pub minutes: f64,
    /// The time it took.
    pub seconds: f64,
    /// How many recipes it would have tried in any time.
    pub recipes: usize,
    /// Place of the chosen one in `tried`.
    pub chosen: Option<usize>,
    /// Every recipe, in order.
    pub tried: Vec<Tried>,
}

impl Search {
    /// A row for each of the `n` recipes with the largest calibrated gain, that of its control beside
    /// it where this was tried, too.
    pub fn leading(&self, n: usize) -> Vec<[String; 8]> {
        let gain = |t: &Tried| t.calibrated_nll_gain.map_or(f64::NEG_INFINITY, |g| g.mean);
        let mut order: Vec<&Tried> = self.tried.iter().collect();
        order.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        let shown = |value: Option<Estimate>| value.map_or("–".into(), estimate);
        let row = |tried: &Tried| {
            let control = self.tried.iter().find(|other| other.is_control_of(tried));
            [
                tried.name(),
                tried.learning_rate.to_string(),
                tried.weight_decay.to_string(),
                tried.epochs.to_string(),
                optional(tried.nll),
                shown(tried.nll_gain),
                shown(tried.calibrated_nll_gain),
                shown(control.and_then(|c| c.calibrated_nll_gain)),
            ]
        };
        order.into_iter().take(n).map(row).collect()
    }

    /// Which recipe was taken, and whether its gain is one.
    pub fn taken(&self) -> Option<String> {
        let taken = self.tried.get(self.chosen?)?;
        let gain = taken.calibrated_nll_gain?;
        let beyond = match gain.mean > 1.96 * gain.stderr.unwrap_or(0.0) {
            true => "its gain on V beyond a temperature",
            false => "beyond a temperature, V cannot tell its gain from 0",
        };
        Some(format!(
            "a search on V took {}, rate {}, decay {}, {} epochs; {beyond}: {}",
            taken.name(),
            taken.learning_rate,
            taken.weight_decay,
            taken.epochs,
            estimate(gain)
        ))
    }

    /// How to read the first `shown` rows.
    pub fn sentence(&self, shown: usize) -> String {
        let shown = match self.tried.len() {
            n if n > shown => format!(", the best {shown} by the calibrated gain shown"),
            _ => String::new(),
        };
        format!(
            "{} of {} recipes tried{shown}; gains are before − after on V, paired, where the best of many \
             looks better than it is",
            self.tried.len(),
            self.recipes
        )
    }
}
