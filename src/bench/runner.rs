//! The interface between a bench and the runs it needs.

use crate::cache::CacheInfo;
use crate::data::DamagedFile;
use crate::diagnose::findings::Plan;
use crate::error::Error;
use crate::evaluate::Scores;
use crate::forecast::{Expected, Part};
use crate::post_train::PostTrainOptions;
use crate::post_train::result::{BeforeAfter, LayerBeforeAfter, MethodInfo, Selection};
use crate::session::Context;
use crate::train::Epoch;

/// Diagnoses and trains for a bench, in this process or in child processes.
pub trait BenchRunner {
    /// Why a run fails.
    type Error: From<Error>;

    /// Time and memory of [`BenchRunner::diagnose`].
    ///
    /// # Errors
    /// The model cannot be evaluated.
    fn forecast_diagnosis(
        &self,
        samples: Option<usize>,
        context: &Context,
    ) -> Result<Part, Self::Error>;

    /// The plan of a diagnosis on this many validation images; `None` if no layer is eligible.
    ///
    /// # Errors
    /// The model cannot be diagnosed.
    fn diagnose(
        &self,
        samples: Option<usize>,
        context: &Context,
    ) -> Result<Option<Plan>, Self::Error>;

    /// Time and memory of a run.
    ///
    /// # Errors
    /// The run could not start.
    fn forecast(&self, run: &BenchRun, context: &Context) -> Result<RunForecast, Self::Error>;

    /// Trains, and measures the model before and after.
    ///
    /// # Errors
    /// The model cannot be trained or measured.
    fn train(&self, run: &BenchRun, context: &Context) -> Result<RunResult, Self::Error>;
}

/// A row with one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchRun<'a> {
    /// Name of the row.
    pub row: &'a str,
    /// The training seed.
    pub seed: u64,
    /// The options of the run. They include the seed.
    pub options: PostTrainOptions,
    /// Whether the result needs the scores of the untouched model too.
    pub untouched: bool,
}

impl BenchRun<'_> {
    /// The name of the file or folder for its result: adapters that are not merged are a folder.
    pub fn output(&self) -> &'static str {
        match self.options.of_method.lora.writes_checkpoint() {
            true => "run.safetensors",
            false => "run",
        }
    }
}

/// Forecast of a run.
#[derive(Clone, Debug)]
pub struct RunForecast {
    /// Expected time and memory.
    pub expected: Expected,
    /// Where frozen activations would be kept.
    pub cache: Option<CacheInfo>,
}

/// The result of a run, as far as a bench uses it.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// The method and its layers.
    pub method: MethodInfo,
    /// The finished epochs.
    pub epochs: Vec<Epoch>,
    /// Which weights were kept, and whether the run was stopped.
    pub selection: Selection,
    /// Metrics on V.
    pub validation: Option<BeforeAfter>,
    /// Metrics on test.
    pub test: Option<BeforeAfter>,
    /// ΔL and κ of p and u, before and after.
    pub layers: Vec<LayerBeforeAfter>,
    /// Damaged image files that were decoded in part and used.
    pub damaged: Vec<DamagedFile>,
    /// Median seconds per epoch, steps only.
    pub seconds_per_epoch: f64,
    /// Peak memory of the process at the end of training, MiB.
    pub training_peak_mib: Option<u64>,
    /// Where frozen activations were kept.
    pub cache: CacheInfo,
    /// Scores of the tuned model on each test image, at T = 1 and at the fitted temperatures.
    pub scores: Option<[Scores; 2]>,
    /// The same of the untouched model, if requested.
    pub untouched_scores: Option<[Scores; 2]>,
}
