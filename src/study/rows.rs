//! Rows of a study's tables, as read from their JSON Lines.
//!
//! [`tables`](super::tables()) writes them. A row has the columns that pages show; other columns are
//! ignored. A missing column or a null is `None` or empty.

use super::settings::Attribute;
use crate::evaluate::Estimate;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// A model on a data set: columns of every table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ModelRow {
    /// Name of the model.
    #[serde(deserialize_with = "or_default")]
    pub model: String,
    /// SHA-256 of the weights.
    #[serde(deserialize_with = "or_default")]
    pub checkpoint_digest: String,
    /// Number of weights.
    pub parameters: Option<usize>,
    /// Name of the data set.
    #[serde(deserialize_with = "or_default")]
    pub data: String,
    /// Its images.
    #[serde(deserialize_with = "or_default")]
    pub source: String,
    /// Attributes of the model: the columns `model_NAME`.
    #[serde(flatten, deserialize_with = "attributes")]
    pub attributes: BTreeMap<String, Attribute>,
}

/// A value, or its type's default for a null.
fn or_default<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// Start of the columns with attributes.
pub(super) const ATTRIBUTE: &str = "model_";

/// Takes the attributes out of the columns that no field names.
fn attributes<'de, D>(columns: D) -> Result<BTreeMap<String, Attribute>, D::Error>
where
    D: Deserializer<'de>,
{
    let columns = BTreeMap::<String, Value>::deserialize(columns)?;
    let one = |(column, value): (String, Value)| {
        let name = column.strip_prefix(ATTRIBUTE)?.to_owned();
        Some((name, serde_json::from_value(value).ok()?))
    };
    Ok(columns.into_iter().filter_map(one).collect())
}

/// A row of `results`: a model on a split, shifted or not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EvaluationRow {
    /// The model and the data set.
    #[serde(flatten)]
    pub of: ModelRow,
    /// The corruption, or `none`.
    #[serde(deserialize_with = "or_default")]
    pub shift: String,
    /// 1 to 5; 0 without a corruption.
    #[serde(deserialize_with = "or_default")]
    pub severity: usize,
    /// NLL, nats per image.
    pub nll: Option<f64>,
    /// Its standard error.
    pub nll_stderr: Option<f64>,
    /// Accuracy.
    pub top1: Option<f64>,
    /// Its standard error.
    pub top1_stderr: Option<f64>,
    /// Expected calibration error.
    pub ece: Option<f64>,
    /// Its standard error.
    pub ece_stderr: Option<f64>,
}

/// A row of `ood`: detection of images of another kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OodRow {
    /// The model and the data set.
    #[serde(flatten)]
    pub of: ModelRow,
    /// Name of the other images.
    #[serde(deserialize_with = "or_default")]
    pub ood: String,
    /// Their number.
    pub ood_images: Option<u64>,
    /// Area under the ROC curve, by the largest probability.
    pub auroc_probability: Option<f64>,
    /// Its standard error.
    pub auroc_probability_stderr: Option<f64>,
    /// False positive rate at 95% true positives, by the largest probability.
    pub fpr95_probability: Option<f64>,
    /// Its standard error.
    pub fpr95_probability_stderr: Option<f64>,
    /// Area under the ROC curve, by the energy.
    pub auroc_energy: Option<f64>,
    /// Its standard error.
    pub auroc_energy_stderr: Option<f64>,
    /// False positive rate at 95% true positives, by the energy.
    pub fpr95_energy: Option<f64>,
    /// Its standard error.
    pub fpr95_energy_stderr: Option<f64>,
}

/// A row of `layers`: ΔL and κ of one layer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LayerRow {
    /// The model and the data set.
    #[serde(flatten)]
    pub of: ModelRow,
    /// Name of the layer.
    #[serde(deserialize_with = "or_default")]
    pub layer: String,
    /// ΔL measured on the images that did not choose the move, nats per image.
    pub delta_l_cross_fit: Option<f64>,
    /// Its standard error.
    pub delta_l_stderr: Option<f64>,
    /// ΔL measured on the images that chose the move.
    pub delta_l_in_sample: Option<f64>,
    /// Cross-fitted ΔL after temperature scaling.
    pub delta_l_calibrated_cross_fit: Option<f64>,
    /// Its standard error.
    pub delta_l_calibrated_stderr: Option<f64>,
    /// Cross-fitted κ, nats per squared weight unit.
    pub kappa_cross_fit: Option<f64>,
    /// Its standard error.
    pub kappa_stderr: Option<f64>,
    /// In-sample κ.
    pub kappa_in_sample: Option<f64>,
    /// ‖Δw‖.
    pub displacement: Option<f64>,
    /// Whether the cross-fitted ΔL is significant.
    #[serde(deserialize_with = "or_default")]
    pub eligible: bool,
}

/// A row of `runs`: a post-training run, its gain over its control, and the diagnosis of its layers.
/// Gains are the control's loss minus the run's, in nats.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RunRow {
    /// The model and the data set.
    #[serde(flatten)]
    pub of: ModelRow,
    /// The method.
    #[serde(deserialize_with = "or_default")]
    pub method: String,
    /// The layer p that is perturbed.
    pub perturb: Option<String>,
    /// The layer u that is updated.
    pub update: Option<String>,
    /// Gain in NLL on V.
    pub val_nll_gain_over_control: Option<f64>,
    /// Gain in NLL on V, each model at its temperature.
    pub val_calibrated_nll_gain_over_control: Option<f64>,
    /// Gain in NLL on test.
    pub test_nll_gain_over_control: Option<f64>,
    /// Gain in NLL on test, each model at its temperature.
    pub test_calibrated_nll_gain_over_control: Option<f64>,
    /// Cross-fitted κ of p.
    pub kappa_cross_fit_p: Option<f64>,
    /// In-sample κ of p.
    pub kappa_in_sample_p: Option<f64>,
    /// Cross-fitted ΔL of u.
    pub delta_l_cross_fit_u: Option<f64>,
    /// In-sample ΔL of u.
    pub delta_l_in_sample_u: Option<f64>,
}

impl Attribute {
    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Attribute::Whole(n) => Some(*n as f64),
            Attribute::Number(x) => Some(*x),
            Attribute::Text(_) => None,
        }
    }
}

/// A figure and its standard error, as two columns state them; NaN if it is missing.
pub fn stated(mean: Option<f64>, stderr: Option<f64>) -> Estimate {
    Estimate { mean: mean.unwrap_or(f64::NAN), stderr }
}
