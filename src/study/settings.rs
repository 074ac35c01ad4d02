//! The settings of a cell: what it measures, of which model, on which images.
//!
//! [`tables`](super::tables()) writes each field as a column of that name.

use super::CellKind;
use crate::cache::CacheDtype;
use crate::data::ValOrigin;
use crate::engine::Precision;
use crate::options::as_text;
use crate::train::{Keep, MethodArgs, MethodName, TrainOptions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A model on a data set: the first columns of every table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// Name of the model in the study file.
    pub model: String,
    /// Its attributes, each a column `model_NAME`. All models have the same names; one without the
    /// attribute has `None`.
    pub attributes: BTreeMap<String, Option<Attribute>>,
    /// File or folder.
    pub checkpoint: String,
    /// SHA-256 of the weights.
    pub checkpoint_digest: String,
    /// Name of the architecture.
    pub architecture: String,
    /// Number of weights.
    pub parameters: usize,
    /// Name of the data set in the study file.
    pub data: String,
    /// Its images, in the syntax of the option `data`.
    pub source: String,
}

/// An attribute of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Attribute {
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// The settings of a cell besides its model, by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellSettings {
    /// Of a model on a split, shifted or not.
    Evaluation(EvaluationSettings),
    /// Of a model on images of another kind.
    Ood(OodSettings),
    /// Of a model's layers on V.
    Diagnosis(ImageSettings),
    /// Of a post-training run.
    Run(Box<RunSettings>),
}

/// Settings of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvaluationSettings {
    /// The split.
    pub split: String,
    /// Its digest.
    pub split_digest: String,
    /// The corruption, or `none`.
    pub shift: String,
    /// 1 to 5; 0 without a corruption.
    pub severity: usize,
    /// Where corrupted images come from.
    pub shift_source: String,
    /// How logits are computed and scored.
    #[serde(flatten)]
    pub scoring: Scoring,
}

/// Settings of an evaluation on other images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OodSettings {
    /// The split of known images.
    pub split: String,
    /// Its digest.
    pub split_digest: String,
    /// Name of the other images in the study file.
    pub ood: String,
    /// The other images, in the syntax of the option `data`.
    pub ood_source: String,
    /// Their digest.
    pub ood_digest: String,
    /// How logits are computed and scored.
    #[serde(flatten)]
    pub scoring: Scoring,
}

/// How logits are computed and scored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// Precision of matrix products.
    #[serde(with = "as_text")]
    pub precision: Precision,
    /// Seed of everything random.
    pub seed: u64,
    /// The images that the temperature is fitted on.
    pub temperature_from: String,
}

/// The images of a diagnosis or a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageSettings {
    /// Number of training images.
    pub train_images: usize,
    /// Their digest.
    pub train_digest: String,
    /// Number of images of V.
    pub val_images: usize,
    /// Their digest.
    pub val_digest: String,
    /// Number of test images.
    pub test_images: usize,
    /// Their digest.
    pub test_digest: String,
    /// Where V comes from.
    pub val_from: ValOrigin,
    /// Seed of everything random except training.
    pub seed: u64,
}

/// Settings of a post-training run. The options of the method and of training are the option structs
/// themselves, so that every option is a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Name of the `[[bench]]`.
    pub bench: String,
    /// The method.
    pub method: MethodName,
    /// Its layers and options, with defaults resolved. Options that it does not read are `None`.
    #[serde(flatten)]
    pub of_method: MethodArgs,
    /// Training options.
    #[serde(flatten)]
    pub train: TrainOptions,
    /// Which weights are kept.
    pub keep: Keep,
    /// Type of the cached activations.
    pub cache_dtype: CacheDtype,
    /// Seed of B, B′ and γ.
    pub train_seed: u64,
    /// The images.
    #[serde(flatten)]
    pub images: ImageSettings,
}

impl CellSettings {
    /// What the cell measures.
    pub fn kind(&self) -> CellKind {
        match self {
            CellSettings::Evaluation(_) => CellKind::Evaluation,
            CellSettings::Ood(_) => CellKind::Ood,
            CellSettings::Diagnosis(_) => CellKind::Diagnosis,
            CellSettings::Run(_) => CellKind::Run,
        }
    }
}
