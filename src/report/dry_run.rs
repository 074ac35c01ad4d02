//! What a run is expected to take: schema `planish/dry-run/1`.

use crate::cache::CacheInfo;
use crate::checkpoint::CheckpointInfo;
use crate::forecast::Expected;
use crate::run::Run;
use crate::train::result::MethodInfo;
use crate::train::run::TrainSettings;
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema of [`DryRun`].
pub const DRY_RUN: &str = "planish/dry-run/1";

/// What `--dry-run` finds: `diagnose`, `post-train` or `bench` as it would run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DryRun {
    /// [`DRY_RUN`].
    pub schema: String,
    /// How it was found.
    pub run: Run,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// What `post-train` would do.
    pub method: Option<MethodInfo>,
    /// And how.
    pub settings: Option<TrainSettings>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Where `post-train` would keep the frozen layers' activations.
    pub cache: Option<CacheInfo>,
    /// What it would take.
    pub expected: Expected,
}

impl DryRun {
    /// What a command other than `post-train` finds.
    pub fn new(run: Run, checkpoint: CheckpointInfo, notes: &[String], expected: Expected) -> Self {
        let notes = notes.to_vec();
        Self {
            schema: DRY_RUN.into(),
            run,
            checkpoint,
            method: None,
            settings: None,
            notes,
            cache: None,
            expected,
        }
    }
}
