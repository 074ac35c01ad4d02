//! The result of `compare`: schema `planish/comparison/1`.

use crate::checkpoint::CheckpointInfo;
use crate::evaluate::Comparison;
use crate::run::Run;
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/comparison/1";

/// One of the two models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// What was named on the command line.
    pub path: String,
    /// The model, where its report or the file itself tells.
    pub checkpoint: Option<CheckpointInfo>,
    /// SHA-256 of images and labels, where it is known.
    pub data_digest: Option<String>,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// How the report came about.
    pub run: Run,
    /// The first model.
    pub a: Side,
    /// The second.
    pub b: Side,
    /// Their differences.
    pub comparison: Comparison,
    /// What is established and what is not, in words.
    pub sentence: String,
    /// What a reader should know.
    pub notes: Vec<String>,
}
