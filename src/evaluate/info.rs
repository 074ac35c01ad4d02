//! Saved logits, as listed in reports.

use serde::{Deserialize, Serialize};

/// Where a model's logits on the images were saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionsInfo {
    /// The safetensors file, with `logits`, `labels` and `temperature`.
    pub path: String,
    /// Its SHA-256 in hexadecimal.
    pub digest: String,
}
