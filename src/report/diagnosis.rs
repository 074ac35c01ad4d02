//! The result of `diagnose`: schema `planish/diagnosis/1`.

use crate::checkpoint::CheckpointInfo;
use crate::data::{DamagedFile, DataInfo};
use crate::diagnose::findings::Findings;
use crate::diagnose::ranking::{Sample, Sampling};
use crate::forecast::{Forecast, Work};
use crate::run::Run;
use serde::{Deserialize, Serialize};

pub use crate::diagnose::DIAGNOSIS as SCHEMA;

/// The `run` object: all that may differ between two runs on equal input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimedRun {
    /// Command, seed, seconds, memory, host, date.
    #[serde(flatten)]
    pub run: Run,
    /// What `post-train` would take on this machine, by method.
    pub forecast: Vec<Forecast>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// How the report came about.
    pub run: TimedRun,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// V.
    pub data: DataInfo,
    /// Damaged image files that were used as they decode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// What was measured.
    #[serde(flatten)]
    pub findings: Findings,
    /// The same figures on growing parts of V, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub convergence: Vec<Sample>,
    /// How `--until-stderr` ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// Work of each method in operations, whatever the machine.
    pub forecast: Vec<Work>,
}
