//! What reports say of the images.

use serde::{Deserialize, Serialize};

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
    /// Image files of the whole split that cannot be decoded, or only with a warning, and were left
    /// out.
    #[serde(default)]
    pub skipped: usize,
}
