//! Provenance: the record of how a checkpoint was made, in the file's metadata.

use super::Error;
use super::header::kind;
use crate::data::Sample;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// Metadata key of a JSON list of [`Provenance`], the oldest step first.
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
    /// Seed of all random choices.
    pub seed: u64,
    /// Version of planish.
    pub version: String,
    /// SHA-256 of the file it started from, in hex; `None` for a model trained from scratch.
    #[serde(default)]
    pub parent_digest: Option<String>,
    /// SHA-256 of the training data, in hex.
    #[serde(default)]
    pub data_digest: Option<String>,
    /// How validation images were held out.
    #[serde(default)]
    pub split: Option<RecordedSplit>,
    /// The images it was fine-tuned on, if they are a part of the training split.
    #[serde(default)]
    pub sample: Option<Sample>,
    /// The settings of the run.
    #[serde(default)]
    pub settings: StepSettings,
}

/// The settings of a step in the making of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepSettings {
    /// The images by which the step chose or checked its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<SelectionImages>,
    /// The settings of the method, each under the name of its option: epochs, rates, batch sizes.
    #[serde(flatten)]
    pub of_method: Map<String, Value>,
}

/// The images by which a step chose or checked its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectionImages {
    /// Their [`Split::digest`](crate::data::Split::digest).
    pub digest: String,
    /// Their number.
    pub images: usize,
    /// Seed that divided test into V and test, if they come from test.
    pub seed: u64,
}

impl StepSettings {
    /// The settings of a method, which must serialise to an object.
    ///
    /// # Errors
    /// Settings that JSON cannot represent.
    pub fn of(
        method: &impl Serialize,
        validation: Option<SelectionImages>,
    ) -> serde_json::Result<StepSettings> {
        let of_method = serde_json::from_value(serde_json::to_value(method)?)?;
        Ok(StepSettings { validation, of_method })
    }
}

impl Provenance {
    /// The step of a file's metadata; `None` if another program or version wrote something else.
    pub(super) fn parse(step: &Value) -> Option<Provenance> {
        Provenance::deserialize(step).ok()
    }
}

/// A seeded split of the training images into training and validation images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedSplit {
    /// Seed of the shuffle.
    pub seed: u64,
    /// Fraction of the images that was held out.
    pub fraction: f64,
}

/// A provenance entry as JSON.
pub(super) fn to_value(provenance: &Provenance) -> Result<Value, Error> {
    serde_json::to_value(provenance)
        .map_err(|source| Error::Json { place: PROVENANCE_KEY.into(), source })
}

/// The steps recorded in a file's metadata, oldest first.
///
/// # Errors
/// [`Error::Json`] or [`Error::Setting`] if the entry is not a list.
pub(super) fn provenance(path: &Path, metadata: &[(String, String)]) -> Result<Vec<Value>, Error> {
    let Some((_, text)) = metadata.iter().find(|(key, _)| key == PROVENANCE_KEY) else {
        return Ok(Vec::new());
    };
    let place = format!("{}: metadata \"{PROVENANCE_KEY}\"", path.display());
    match serde_json::from_str(text) {
        Ok(Value::Array(steps)) => Ok(steps),
        Ok(other) => Err(Error::Setting {
            place,
            key: PROVENANCE_KEY.into(),
            expected: "a list".into(),
            found: kind(&other).into(),
            remedy: "remove the key from the file's metadata".into(),
        }),
        Err(source) => Err(Error::Json { place, source }),
    }
}
