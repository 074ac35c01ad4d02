//! The result of `compare`: schema `planish/comparison/1`.

use crate::checkpoint::CheckpointInfo;
use crate::evaluate::Comparison;
use crate::run::RunInfo;
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/comparison/1";

/// One of the two models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The path given by the user.
    pub path: String,
    /// The model, if the report or the file identifies it.
    pub checkpoint: Option<CheckpointInfo>,
    /// SHA-256 of images and labels, if known.
    pub data_digest: Option<String>,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Provenance of the report.
    pub run: RunInfo,
    /// The first model.
    pub a: Side,
    /// The second model.
    pub b: Side,
    /// Their differences.
    pub comparison: Comparison,
    /// Which differences are established, as a sentence.
    pub sentence: String,
    /// Notes.
    pub notes: Vec<String>,
}
