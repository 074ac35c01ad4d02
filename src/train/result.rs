//! What a run of post-training came to.

use super::Keep;
use super::guard::Stopped;
use crate::data::DataInfo;
use crate::diagnose::findings::LayerResult;
use crate::evaluate::{Comparison, Estimate, Summary};
use serde::{Deserialize, Serialize};

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// `pol`, `pof`, `sam`, `asam`, `looksam`, `sam-norm` or `sgd`.
    pub name: String,
    /// p, if anything is perturbed; for SAM what its climb moves.
    pub perturb: Option<String>,
    /// u.
    pub update: String,
    /// Γ of PoL and PoF.
    pub gamma_max: Option<f64>,
    /// Examples in B′ of PoL and PoF.
    pub perturbation_batch: Option<usize>,
    /// `search` or `newton`, of PoL and PoF.
    pub step: Option<String>,
    /// What SAM does.
    pub sam: Option<SamInfo>,
    /// Where p and u come from.
    pub chosen_by: String,
}

/// Settings of SAM and its variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamInfo {
    /// ρ.
    pub rho: f64,
    /// η of ASAM.
    pub eta: Option<f64>,
    /// Steps of LookSAM from one climb to the next.
    pub every: Option<usize>,
    /// α of LookSAM.
    pub alpha: Option<f64>,
}

/// Which weights were kept, and how they were judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// How they were kept.
    pub keep: Keep,
    /// The epoch they come from, from 1; 0 means the input's weights. Under `best` this is a
    /// selection on V.
    pub selected_epoch: usize,
    /// Images of V on which each epoch's loss was taken, if there are any.
    pub watched_images: Option<usize>,
    /// The input's loss on them: what an epoch's `validation_loss` is to be held against.
    pub loss_at_start: Option<f64>,
    /// Where training was stopped, if it was.
    pub stopped: Option<Stopped>,
    /// Images of V on which the result was held against the input: all, or nothing without V.
    pub guarded_by_images: Option<usize>,
    /// Whether its mean loss there is above the input's.
    pub worse_than_input: Option<bool>,
    /// Whether `--force` was given.
    pub forced: bool,
    /// Why nothing was written, if nothing was; absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// The file that came out. All figures after training are measured on it, read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The weights file.
    pub path: String,
    /// Where `planish undo` finds what was replaced, if the checkpoint was tuned in place.
    pub undo: Option<String>,
    /// Weights whose trained value differs from the loaded one.
    pub weights_moved: usize,
    /// Of these, weights that are stored as before: the file's type cannot tell the two apart.
    pub moves_lost_to_rounding: usize,
}

/// Figures of one split.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// The split and where it comes from.
    pub data: DataInfo,
    /// At w*.
    pub before: Summary,
    /// After post-training.
    pub after: Summary,
    /// Paired difference of NLL, before − after: positive is better.
    pub nll_gain: Estimate,
    /// The same after a temperature on either side.
    pub calibrated_nll_gain: Estimate,
    /// All figures with their intervals, A being before and B after.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// Images that one of the two gets right; absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flips: Option<Flips>,
}

/// Images that tuning fixed and broke: how many, and of each kind those of the surest mistakes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flips {
    /// Wrong before, right after.
    pub fixed: usize,
    /// Right before, wrong after.
    pub broken: usize,
    /// At most [`Flips::SHOWN`] that were fixed, by the confidence of the mistake before.
    pub most_fixed: Vec<Flip>,
    /// At most [`Flips::SHOWN`] that were broken, by the confidence of the mistake after.
    pub most_broken: Vec<Flip>,
}

impl Flips {
    /// Images of a kind that are told one by one.
    pub const SHOWN: usize = 24;
}

/// One image whose answer changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// Its place in the split, from 0.
    pub image: usize,
    /// Its class.
    pub label: u32,
    /// The wrong answer, given before or after.
    pub mistaken_for: u32,
    /// The confidence of that answer.
    pub confidence: f64,
}

/// A layer's measurements at w* and after.
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
    /// As `--augment` reads it.
    pub augment: String,
    /// Views of each image.
    pub views: usize,
    /// Seed of the views.
    pub seed: u64,
}
