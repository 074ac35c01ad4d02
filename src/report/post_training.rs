//! The result of `post-train`: schema `planish/post-train/1`.

use super::diagnosis::LayerResult;
use super::dry_run::Expected;
use super::search::Search;
use super::{CheckpointInfo, DataInfo, PredictionsInfo};
use crate::cache::Mode;
use crate::data::DamagedFile;
use crate::evaluate::{Comparison, Estimate, Summary};
use crate::run::Run;
use crate::train::Keep;
use crate::train::guard::Stopped;
use crate::train::post::{Epoch, Settings};
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/post-train/1";

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

/// Where the frozen layers' activations were kept. The place changes no result; the type does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// In memory, in files, or nowhere.
    pub mode: Mode,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// Views of each image.
    pub views: usize,
    /// Views whose files were there, sound, and used: a hit if all were.
    pub found: usize,
    /// Bytes of all views.
    pub bytes: u64,
    /// Seconds that computing, writing, reading and checking them took, once.
    pub seconds: f64,
    /// Folder of the files.
    pub folder: Option<String>,
    /// Digests that the files are named by, one a view.
    pub keys: Vec<String>,
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

/// Time of the run and of its parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimedRun {
    /// Command, seed, seconds, memory, host, date.
    #[serde(flatten)]
    pub run: Run,
    /// Median over epochs, steps alone.
    pub seconds_per_epoch: f64,
    /// Peak memory of the process when training ended.
    pub training_peak_mib: Option<u64>,
    /// Seconds that the prefix's activations took, once; 0 where they were not cached.
    pub cache_seconds: f64,
    /// Where they were kept.
    pub cache: CacheInfo,
    /// What was expected before it started; nothing under `--quiet`.
    pub forecast: Option<Expected>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// How the report came about.
    pub run: TimedRun,
    /// The model that went in.
    pub checkpoint: CheckpointInfo,
    /// The file that came out; nothing where the guard refused to write one.
    pub output: Option<Output>,
    /// What was done.
    pub method: MethodInfo,
    /// Shared settings.
    pub settings: Settings,
    /// The training images.
    pub training: DataInfo,
    /// Images in a micro-batch of a step; no result depends on it but by rounding.
    pub micro_batch: usize,
    /// Whether blocks were computed again on the way back, to keep within a bound on memory.
    #[serde(default)]
    pub recompute: bool,
    /// What products took their operands in while it was trained: `f32` or `bf16`. Figures are of
    /// f32.
    pub precision: String,
    /// Whether the frozen prefix's activations were kept.
    pub cached: bool,
    /// The search that chose the method and its settings, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// How training images were augmented, if they were.
    pub augmentation: Option<Augmentation>,
    /// One line an epoch.
    pub epochs: Vec<Epoch>,
    /// Which weights were kept, and how they were judged.
    pub selection: Selection,
    /// V, which chose the plan, the epoch and the temperature.
    pub validation: Option<BeforeAfter>,
    /// Test, read once, and only if a file was written.
    pub test: Option<BeforeAfter>,
    /// The tuned model's logits on test, if they were saved.
    #[serde(default)]
    pub predictions: Option<PredictionsInfo>,
    /// p and u, measured on V before and after.
    pub layers: Vec<LayerBeforeAfter>,
    /// Names of the classes, where checkpoint or data have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_names: Option<Vec<String>>,
    /// Damaged image files that were used as they decode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// What a reader should know.
    pub notes: Vec<String>,
}
