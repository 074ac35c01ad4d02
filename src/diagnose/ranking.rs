//! Whether V is large enough: results on parts of it, and how clearly the layers are separated.

use super::spectrum::Estimated;
use serde::{Deserialize, Serialize};

/// How clearly the layers are separated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// By cross-fitted ΔL.
    pub update: Standing,
    /// By cross-fitted κ.
    pub perturb: Standing,
}

/// The best layer and its rivals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The eligible layer with the highest mean.
    pub best: String,
    /// Its value.
    pub value: f64,
    /// Its standard error.
    pub stderr: Option<f64>,
    /// All other layers, eligible or not.
    pub rivals: Vec<Rival>,
}

/// A layer compared with the best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// The best layer's value minus this one's. Negative if this layer is higher but not eligible.
    pub behind: f64,
    /// Standard error of that difference, from paired differences per image.
    pub stderr: Option<f64>,
}

/// Results on one number of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvergencePoint {
    /// Images of V.
    pub images: usize,
    /// L^V, nats per example.
    pub loss_nats: Estimated,
    /// Every layer.
    pub layers: Vec<LayerSample>,
}

/// A layer's results on one number of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSample {
    /// Its name.
    pub name: String,
    /// Cross-fitted ΔL, nats per example.
    pub delta_l_nats: Option<Estimated>,
    /// Cross-fitted κ.
    pub kappa: Option<Estimated>,
    /// Largest eigenvalue of the Hessian, if `spectrum` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_eigenvalue: Option<Estimated>,
}

/// Outcome of `until_stderr`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// The requested relative standard error.
    pub until_stderr: f64,
    /// Whether the ranking was decided. If not, the images ran out.
    pub decided: bool,
    /// Images used.
    pub images: usize,
    /// Images available.
    pub available: usize,
}
