//! What several reports say in the same words.

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

/// The object `data` of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataInfo {
    /// Folder or file.
    pub path: String,
    /// `idx`, `cifar`, `folder` or `tensors`.
    pub kind: String,
    /// Name of the split.
    pub split: String,
    /// Number of images.
    pub images: usize,
    /// SHA-256 of images and labels in hexadecimal.
    pub digest: String,
    /// Where the split comes from, such as `half of test, seed 0`.
    pub origin: String,
    /// Image files of the whole split that cannot be decoded, or only with a warning, and were left out.
    #[serde(default)]
    pub skipped: usize,
}

/// Where a model's logits on the images were saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionsInfo {
    /// The safetensors file, with `logits`, `labels` and `temperature`.
    pub path: String,
    /// Its SHA-256 in hexadecimal.
    pub digest: String,
}
