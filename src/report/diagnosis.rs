//! The result of `diagnose`: schema `planish/diagnosis/1`.

use crate::checkpoint::CheckpointInfo;
use crate::data::{DamagedFile, DataInfo};
use crate::diagnose::findings::Findings;
use crate::diagnose::ranking::{ConvergencePoint, Sampling};
use crate::diagnose::{DiagnoseSession, Diagnosed};
use crate::forecast::{Forecast, Work};
use crate::remedies::RemedyFindings;
use crate::run::RunInfo;
use crate::session::checkpoint_info;
use serde::{Deserialize, Serialize};

pub use crate::diagnose::DIAGNOSIS as SCHEMA;

/// The `run` object: everything that may differ between two runs on equal input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimedDiagnosis {
    /// Command, seed, seconds, memory, host, date.
    #[serde(flatten)]
    pub run: RunInfo,
    /// Forecast of `post-train` on this machine, by method.
    pub forecast: Vec<Forecast>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiagnosisReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// Provenance of the report.
    pub run: TimedDiagnosis,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The validation images V.
    pub data: DataInfo,
    /// Damaged image files that were decoded in part and used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// Measurements.
    #[serde(flatten)]
    pub findings: Findings,
    /// The same figures on growing subsets of V, if requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub convergence: Vec<ConvergencePoint>,
    /// Outcome of `until_stderr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// Moves of layers along `remedies`, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedies: Option<RemedyFindings>,
    /// Operations per method, independent of the machine.
    pub forecast: Vec<Work>,
}

impl DiagnosisReport {
    /// The report of a diagnosis.
    pub fn new(run: RunInfo, session: &DiagnoseSession, found: Diagnosed) -> Self {
        Self {
            schema: SCHEMA.into(),
            run: TimedDiagnosis { run, forecast: found.forecast },
            checkpoint: checkpoint_info(&session.checkpoint),
            data: found.data,
            damaged: found.damaged,
            findings: found.findings,
            convergence: found.convergence,
            sampling: found.sampling,
            remedies: found.remedies,
            forecast: found.work,
        }
    }
}
