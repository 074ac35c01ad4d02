//! Result types of post-training.

use crate::checkpoint::SavedCheckpoint;
use crate::data::DataInfo;
use crate::diagnose::findings::LayerResult;
use crate::evaluate::{Comparison, Estimate, Summary};
use crate::train::guard::Stopped;
use crate::train::{Keep, LoraOptions};
use serde::{Deserialize, Serialize};

/// The method that was used. Options have the names of [`MethodArgs`](crate::train::MethodArgs);
/// aliases are names in reports of earlier versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// A [`MethodName`](crate::train::MethodName).
    pub name: String,
    /// p, if anything is perturbed; for SAM, the layers of the ascent step.
    pub perturb: Option<String>,
    /// u.
    pub update: String,
    /// Γ of PoL and PoF.
    #[serde(alias = "gamma_max")]
    pub gamma: Option<f64>,
    /// Examples in B′ of PoL and PoF.
    #[serde(alias = "perturbation_batch")]
    pub perturb_batch: Option<usize>,
    /// `search`, `newton` or `grid`, of PoL and PoF.
    pub step: Option<String>,
    /// `reject` or `cap`, of PoL and PoF; absent in reports of earlier versions, which capped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_minimum: Option<String>,
    /// Whether B′ of PoL and PoF is drawn with replacement; absent in reports of earlier versions, in which
    /// it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perturb_replacement: Option<bool>,
    /// Settings of SAM.
    pub sam: Option<SamInfo>,
    /// Options of the adapters, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraOptions>,
    /// Where p and u come from.
    pub chosen_by: String,
}

/// Settings of SAM and its variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamInfo {
    /// ρ.
    pub rho: f64,
    /// σ of Friendly-SAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub friendly_sigma: Option<f64>,
    /// λ of Friendly-SAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub friendly_lambda: Option<f64>,
    /// Mean share of tensors that SL-SAM draws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_share: Option<f64>,
    /// η of ASAM.
    #[serde(alias = "eta")]
    pub asam_eta: Option<f64>,
    /// Steps of LookSAM per ascent step.
    #[serde(alias = "every")]
    pub look_every: Option<usize>,
    /// α of LookSAM.
    #[serde(alias = "alpha")]
    pub look_alpha: Option<f64>,
}

/// Which weights were selected, and how they were judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// How they were selected.
    pub keep: Keep,
    /// The epoch they come from, from 1; 0 means the input's weights. With `best`, the epoch is
    /// selected on V.
    pub selected_epoch: usize,
    /// Number of images of V behind each epoch's loss, if there are any.
    pub watched_images: Option<usize>,
    /// The input's loss on these images, to compare with an epoch's `validation_loss`.
    pub loss_at_start: Option<f64>,
    /// Where training was stopped, if it was.
    pub stopped: Option<Stopped>,
    /// Number of images of V on which the result was compared with the input: all of V, or `None`
    /// without V.
    pub guarded_by_images: Option<usize>,
    /// Whether the result's mean loss there is above the input's.
    pub worse_than_input: Option<bool>,
    /// Whether `write_worse` was set.
    pub forced: bool,
    /// Why nothing was written, if so; absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// The output file. All metrics after training are measured on the file, read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The weights file.
    pub path: String,
    /// Where `planish undo` finds the replaced weights, if the checkpoint was tuned in place.
    pub undo: Option<String>,
    /// Number of weights whose trained value differs from the loaded one.
    pub weights_moved: usize,
    /// How many of these are stored unchanged, because the file's type cannot represent the
    /// difference.
    pub moves_lost_to_rounding: usize,
}

impl From<SavedCheckpoint> for Output {
    fn from(saved: SavedCheckpoint) -> Self {
        Self {
            path: saved.path.display().to_string(),
            undo: saved.undo.map(|undo| undo.display().to_string()),
            weights_moved: saved.rounding.moved,
            moves_lost_to_rounding: saved.rounding.unchanged,
        }
    }
}

/// Metrics of one split.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// The split and where it comes from.
    pub data: DataInfo,
    /// At w*.
    pub before: Summary,
    /// After post-training.
    pub after: Summary,
    /// Paired difference of NLL, before − after; positive is better.
    pub nll_gain: Estimate,
    /// The same with temperature scaling on both sides.
    pub calibrated_nll_gain: Estimate,
    /// `nll_gain` as a share of what a temperature gains on the input model. `None` if that is less than
    /// [`EQUIVALENT_NATS`](crate::evaluate::EQUIVALENT_NATS), and in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub won_back: Option<Estimate>,
    /// All metrics with confidence intervals; A is before, B is after.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// Images that exactly one of the two models gets right; absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flips: Option<Flips>,
}

impl BeforeAfter {
    /// The gains in NLL and in calibrated NLL for display: 0 if rounding of logits explains them.
    pub fn shown_gains(&self) -> [Estimate; 2] {
        [
            self.nll_gain.beyond_rounding(self.before.nll),
            self.calibrated_nll_gain.beyond_rounding(self.before.calibrated_nll),
        ]
    }
}

/// Images that tuning fixed and broke: their numbers, and those with the most confident mistakes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flips {
    /// Wrong before, right after.
    pub fixed: usize,
    /// Right before, wrong after.
    pub broken: usize,
    /// At most [`Flips::SHOWN`] fixed images, sorted by the confidence of the mistake before.
    pub most_fixed: Vec<Flip>,
    /// At most [`Flips::SHOWN`] broken images, sorted by the confidence of the mistake after.
    pub most_broken: Vec<Flip>,
}

impl Flips {
    /// Maximum number of images listed of each kind.
    pub const SHOWN: usize = 24;
}

/// One image whose correctness changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// Index in the split, from 0.
    pub image: usize,
    /// Its class.
    pub label: u32,
    /// The wrong class, predicted before or after.
    pub mistaken_for: u32,
    /// The confidence of that prediction.
    pub confidence: f64,
}

/// A layer's measurements at w* and after post-training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerBeforeAfter {
    /// At w*.
    pub before: LayerResult,
    /// After post-training.
    pub after: LayerResult,
}

/// How training images were augmented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// In the syntax of the option `augment`.
    pub augment: String,
    /// Views of each image.
    pub views: usize,
    /// Seed of the views.
    pub seed: u64,
}
