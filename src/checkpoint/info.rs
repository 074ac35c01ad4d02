//! What reports say of a checkpoint.

use serde::{Deserialize, Serialize};

/// The object `checkpoint` of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// The weights file.
    pub path: String,
    /// Its SHA-256 in hexadecimal.
    pub digest: String,
    /// Whose tensor names it uses: `timm`.
    pub layout: String,
    /// Name of the architecture, or width, depth and patch in words.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: usize,
}
