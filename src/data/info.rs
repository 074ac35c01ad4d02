//! Data information in reports.

use serde::{Deserialize, Serialize};

/// The object `data` of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataInfo {
    /// Folder or file.
    pub path: String,
    /// Format: `idx`, `cifar`, `folder`, `csv`, `webdataset`, `parquet`, `tensors`, or `several`.
    pub kind: String,
    /// Name of the split.
    pub split: String,
    /// Number of images.
    pub images: usize,
    /// SHA-256 of images and labels in hexadecimal.
    pub digest: String,
    /// Origin of the split, such as `half of test, seed 0`.
    pub origin: String,
    /// Number of image files of the whole split that were left out because they cannot be decoded,
    /// or only with a warning.
    #[serde(default)]
    pub skipped: usize,
}
