//! Checkpoint information in reports.

use crate::data::Preprocess;
use serde::{Deserialize, Serialize};

/// The object `checkpoint` of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// The weights file.
    pub path: String,
    /// Its SHA-256 in hexadecimal.
    pub digest: String,
    /// Layout of its tensor names: `timm`.
    pub layout: String,
    /// Name of the architecture, or width, depth and patch size in words.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: usize,
    /// How images are prepared; `None` if it is not stated.
    #[serde(default)]
    pub preprocessing: Option<Preprocess>,
}
