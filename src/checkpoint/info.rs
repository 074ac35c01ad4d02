//! Checkpoint information in reports.

use crate::data::Preprocess;
use serde::{Deserialize, Serialize};

/// The object `checkpoint` of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// The weights file.
    pub path: String,
    /// Its digest, in hexadecimal: for a safetensors file its SHA-256; see
    /// [`Checkpoint::digest`](super::Checkpoint::digest).
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
    /// The adapter that was merged into the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterInfo>,
}

/// An adapter in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterInfo {
    /// Its folder.
    pub path: String,
    /// SHA-256 of its configuration and weights.
    pub digest: String,
}

impl CheckpointInfo {
    /// What the digest identifies.
    pub fn place(&self) -> String {
        match &self.adapter {
            None => self.path.clone(),
            Some(adapter) => format!("{} with the adapter {}", self.path, adapter.path),
        }
    }
}
