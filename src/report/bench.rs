//! The result of `bench`: schema `planish/bench/1`.

use crate::bench::{BenchMethod, BenchOptions, BenchResult, Cost, RowResult, RunResult};
use crate::cache::CacheOptions;
use crate::checkpoint::CheckpointInfo;
use crate::data::DamagedFile;
use crate::error::Result;
use crate::report::post_training;
use crate::run::RunInfo;
use crate::train::{MethodOptions, Preset, TrainOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/bench/1";

/// The `run` object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimedBench {
    /// Command, seed, seconds, memory, host, date.
    #[serde(flatten)]
    pub run: RunInfo,
    /// One entry per trained row.
    pub costs: Vec<Cost>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BenchReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// Provenance of the report.
    pub run: TimedBench,
    /// Damaged image files that any run decoded in part and used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// The model from which all rows start.
    pub checkpoint: CheckpointInfo,
    /// Training seeds.
    pub seeds: Vec<u64>,
    /// Options shared by all rows, and those of each method, under the names of
    /// the version that wrote them.
    pub settings: Value,
    /// Origin of the layers of PoL and of adapters; `None` without these methods.
    pub plan: Option<String>,
    /// The rows.
    pub rows: Vec<RowResult>,
    /// Verdicts on the perturbation by calibrated NLL, one sentence per method.
    pub verdicts: Vec<String>,
}

/// The options of a bench, for [`BenchReport::settings`].
#[derive(Serialize)]
struct Settings<'a> {
    train: &'a TrainOptions,
    cache: &'a CacheOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<Preset>,
    /// The options of each method.
    methods: BTreeMap<&'static str, MethodOptions>,
}

impl BenchReport {
    /// The report of a bench.
    ///
    /// # Errors
    /// Options out of range; settings that JSON cannot represent.
    pub fn new(
        run: RunInfo,
        checkpoint: CheckpointInfo,
        options: &BenchOptions,
        found: BenchResult,
    ) -> Result<Self> {
        let of = |method: &BenchMethod| {
            let filled = options.preset.fill(&options.of_methods, method.method);
            Ok((method.name(), filled.of(method.method).method(method.method)?))
        };
        let settings = Settings {
            train: &found.train,
            cache: &options.cache,
            preset: options.preset.preset,
            methods: options.methods().iter().map(of).collect::<Result<_>>()?,
        };
        Ok(Self {
            schema: SCHEMA.into(),
            run: TimedBench { run, costs: found.costs },
            damaged: found.damaged,
            checkpoint,
            seeds: found.seeds,
            settings: serde_json::to_value(settings)?,
            plan: found.plan,
            rows: found.rows,
            verdicts: found.verdicts,
        })
    }
}

impl From<post_training::PostTrainReport> for RunResult {
    /// A run of a bench, from its report. The report has no scores of images.
    fn from(report: post_training::PostTrainReport) -> Self {
        Self {
            method: report.method,
            epochs: report.epochs,
            selection: report.selection,
            validation: report.validation,
            test: report.test,
            layers: report.layers,
            damaged: report.damaged,
            seconds_per_epoch: report.run.seconds_per_epoch,
            training_peak_mib: report.run.training_peak_mib,
            cache: report.run.cache,
            scores: None,
            untouched_scores: None,
        }
    }
}
