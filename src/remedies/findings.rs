//! Results of a search along remedies.

use super::Remedy;
use crate::evaluate::Estimate;
use serde::{Deserialize, Serialize};

/// What a move changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveForm {
    /// One layer.
    Layer,
    /// The first layers, up to one.
    Prefix,
    /// The last layers, from one on.
    Suffix,
    /// All layers, by one α: WiSE-FT.
    All,
    /// All layers, by α at the first layer and linearly less up to the last, which stays: LiNeS.
    Lines,
}

/// Figures of a model on V. Losses are in nats per image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnV {
    /// NLL.
    pub nll: f64,
    /// NLL at the temperature fitted on V.
    pub calibrated_nll: f64,
    /// That temperature.
    pub temperature: f64,
    /// Accuracy.
    pub top1: f64,
}

/// The model at one α, on V.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MovePoint {
    /// α, the share of the way to the target.
    pub alpha: f64,
    /// Its figures.
    #[serde(flatten)]
    pub figures: OnV,
}

/// Gains of a move over the model as it is. Positive is better. Standard errors are of paired
/// differences per image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveGains {
    /// Of NLL, nats.
    pub nll: Estimate,
    /// Of NLL with a temperature on both sides, nats.
    pub calibrated_nll: Estimate,
    /// Of accuracy.
    pub top1: Estimate,
}

/// One move: one layer, or several together, along one remedy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveFound {
    /// The layers, in words.
    pub name: String,
    /// The remedy.
    pub remedy: Remedy,
    /// What it changes.
    pub form: MoveForm,
    /// The layers.
    pub layers: Vec<String>,
    /// The α with the lowest calibrated NLL on V; 0 if none of those evaluated is better.
    pub alpha: f64,
    /// The models that were evaluated, by α. Those with logits that are not finite are left out.
    pub curve: Vec<MovePoint>,
    /// Gains at α, on the images that chose it.
    pub in_sample: MoveGains,
    /// Gains if α and temperatures are chosen on one half of V and measured on the other, averaged
    /// over both halves and several ways to halve V.
    pub cross_fit: MoveGains,
    /// p of the one-sided test that the cross-fitted calibrated gain is above 0.
    pub p: Option<f64>,
    /// The same, corrected for the number of moves (Holm).
    pub p_holm: Option<f64>,
    /// Whether the corrected p is at most 0.025 and the gain at least 0.001 nats, on at least 30 images.
    pub eligible: bool,
}

/// All moves that were measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemedyFindings {
    /// Images of V.
    pub images: usize,
    /// The model as it is.
    pub start: OnV,
    /// The moves: joint ones first, then layer by layer.
    pub moves: Vec<MoveFound>,
    /// Number of moves that p values are corrected for.
    pub looks: usize,
    /// Images of V on which the move with the highest cross-fitted gain would be eligible, if gain and
    /// spread stayed the same. Present if none is eligible and one has a gain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_needed: Option<usize>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl MoveFound {
    /// The cross-fitted gain after temperature scaling, for display: 0 if rounding of logits explains it.
    /// `loss` is the calibrated NLL on V.
    pub fn shown_gain(&self, loss: f64) -> Estimate {
        self.cross_fit.calibrated_nll.beyond_rounding(loss)
    }

    /// The layers and the remedy: `embed (toward)`.
    pub fn label(&self) -> String {
        format!("{} ({})", self.name, self.remedy.name())
    }
}

impl RemedyFindings {
    /// The eligible move with the highest cross-fitted calibrated gain.
    pub fn best(&self) -> Option<&MoveFound> {
        self.ranked().into_iter().find(|found| found.eligible)
    }

    /// The moves by cross-fitted calibrated gain, the highest first.
    pub fn ranked(&self) -> Vec<&MoveFound> {
        let mut out: Vec<&MoveFound> = self.moves.iter().collect();
        let gain = |found: &MoveFound| found.cross_fit.calibrated_nll.mean;
        out.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        out
    }

    /// One sentence on the outcome.
    pub fn sentence(&self) -> String {
        let loss = self.start.calibrated_nll;
        let estimate = |found: &MoveFound| crate::format::estimate(found.shown_gain(loss));
        match (self.best(), self.ranked().first()) {
            (Some(best), _) => format!(
                "The best move is {} by α = {}: its gain after temperature scaling, cross-fitted on V, is {} nats.",
                best.label(),
                best.alpha,
                estimate(best)
            ),
            (None, Some(first)) => format!(
                "No move is eligible on {}; the highest gain after temperature scaling, cross-fitted on V, is {} \
                 nats, by {}{}.",
                crate::format::images(self.images),
                estimate(first),
                first.label(),
                self.images_needed.map_or(String::new(), |n| format!(
                    "; about {} would show a gain of that size",
                    crate::format::images(n)
                ))
            ),
            (None, None) => "There is no move to measure.".into(),
        }
    }
}
