//! How a checkpoint came to be: what planish leaves in a file's metadata.

use serde::{Deserialize, Serialize};

/// Metadata key under which a JSON list of [`Provenance`] stands, the oldest step first.
pub const PROVENANCE_KEY: &str = "planish.provenance";

/// One step in the making of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The method: `finetune`, `pol`, `pof`, `sgd`, …
    pub method: String,
    /// Names of the layers that were perturbed.
    #[serde(default)]
    pub perturb: Vec<String>,
    /// Names of the layers that were trained.
    #[serde(default)]
    pub update: Vec<String>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Version of planish.
    pub version: String,
    /// SHA-256 of the file it started from, in hex; none for a model made from scratch.
    #[serde(default)]
    pub parent_digest: Option<String>,
    /// SHA-256 of the training data, in hex.
    #[serde(default)]
    pub data_digest: Option<String>,
    /// How validation images were set aside.
    #[serde(default)]
    pub split: Option<Split>,
    /// Everything else that fixes the run: epochs, rates, batch sizes.
    #[serde(default)]
    pub settings: serde_json::Value,
}

/// A seeded cut of validation images from the training split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Seed of the shuffle.
    pub seed: u64,
    /// Share of the images that was set aside.
    pub fraction: f64,
}
