//! Whether V was large enough: figures on parts of it, and how far the layers stand apart.

use super::spectrum::Estimated;
use serde::{Deserialize, Serialize};

/// How far the layers stand apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// By cross-fitted ΔL.
    pub update: Standing,
    /// By cross-fitted κ.
    pub perturb: Standing,
}

/// The best layer, and the others behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The best of the eligible layers, by the mean alone.
    pub best: String,
    /// Its value.
    pub value: f64,
    /// Its standard error.
    pub stderr: Option<f64>,
    /// All other layers, eligible or not.
    pub rivals: Vec<Rival>,
}

/// A layer behind the best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// The best layer's value less its own; negative where that one is not eligible, but higher.
    pub behind: f64,
    /// Standard error of that difference, from paired differences image by image.
    pub stderr: Option<f64>,
}

/// Figures on one number of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Images of V.
    pub images: usize,
    /// L^V, nats per example.
    pub loss_nats: Estimated,
    /// Every layer.
    pub layers: Vec<LayerSample>,
}

/// A layer on one number of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSample {
    /// Its name.
    pub name: String,
    /// Cross-fitted ΔL, nats per example.
    pub delta_l_nats: Option<Estimated>,
    /// Cross-fitted κ.
    pub kappa: Option<Estimated>,
    /// Largest eigenvalue of the Hessian, if `--spectrum` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_eigenvalue: Option<Estimated>,
}

/// How `--until-stderr` ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// The relative standard error asked for.
    pub until_stderr: f64,
    /// Whether the ranking was decided; if not, the images ended.
    pub decided: bool,
    /// Images used.
    pub images: usize,
    /// Images that there were.
    pub available: usize,
}
