//! Forecast of a run: schema `planish/dry-run/1`.

use crate::cache::CacheInfo;
use crate::checkpoint::CheckpointInfo;
use crate::error::Result;
use crate::forecast::Expected;
use crate::post_train::frozen::info;
use crate::post_train::result::MethodInfo;
use crate::post_train::{Outlook, PostTrainSession};
use crate::run::RunInfo;
use crate::session::checkpoint_info;
use crate::train::run::TrainSettings;
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema of [`DryRun`].
pub const DRY_RUN: &str = "planish/dry-run/1";

/// Result of a dry run of `diagnose`, `post-train` or `bench`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DryRun {
    /// [`DRY_RUN`].
    pub schema: String,
    /// Provenance of the report.
    pub run: RunInfo,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The method that `post-train` would run.
    pub method: Option<MethodInfo>,
    /// Its settings.
    pub settings: Option<TrainSettings>,
    /// Notes.
    pub notes: Vec<String>,
    /// Where `post-train` would keep the frozen layers' activations.
    pub cache: Option<CacheInfo>,
    /// Expected time and memory.
    pub expected: Expected,
}

impl DryRun {
    /// The forecast for a command other than `post-train`.
    pub fn new(
        run: RunInfo,
        checkpoint: CheckpointInfo,
        notes: &[String],
        expected: Expected,
    ) -> Self {
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

    /// The forecast of `post-train`.
    ///
    /// # Errors
    /// Those of [`PostTrainSession::method`].
    pub fn of_post_training(
        run: RunInfo,
        session: &PostTrainSession,
        outlook: Outlook,
    ) -> Result<Self> {
        let checkpoint = checkpoint_info(&session.checkpoint);
        Ok(Self {
            method: Some(session.method()?),
            settings: Some(session.settings.clone()),
            cache: Some(info(&outlook.plan, &session.prefix())),
            ..Self::new(run, checkpoint, &session.roles.notes, outlook.expected)
        })
    }
}
