//! What a diagnosis finds.

use super::ranking::Ranking;
use super::spectrum::Spectrum;
use crate::curvature::steihaug::StopReason;
use crate::evaluate::Bound;
use serde::{Deserialize, Serialize};

/// Mean over all images of V, in nats per example, and what a temperature makes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loss {
    /// L^V.
    pub validation: f64,
    /// Its standard error.
    pub stderr: Option<f64>,
    /// L^V after a temperature fitted on the other fold.
    pub calibrated: f64,
    /// The temperature fitted on all of V.
    pub temperature: f64,
    /// The temperatures that the two folds are scored at, each fitted on the other; absent in files of
    /// earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperatures_of_folds: Option<[f64; 2]>,
    /// Why the loss has no minimum in T, on all of V or on a fold; absent where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_bound: Option<Bound>,
    /// Mean loss over training images, a sample of at most as many as V has, if there are any.
    pub training: Option<f64>,
    /// How many these were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_images: Option<usize>,
}

/// One quantity, in-sample and cross-fitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// Mean of the folds' own values; `None` where it is not defined.
    pub in_sample: Option<f64>,
    /// Direction and α* from one fold, measured on the other; swapped, and averaged.
    pub cross_fit: Option<f64>,
    /// Standard error of `cross_fit`, conditional on the directions found.
    pub stderr: Option<f64>,
}

/// What the second derivative along the gradient predicts, averaged over folds; `None` where gᵀHg
/// is not positive.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Quadratic {
    /// α_q = gᵀg / gᵀHg.
    pub alpha: Option<f64>,
    /// ΔL_q = (gᵀg)² / (2 gᵀHg).
    pub delta_l_nats: Option<f64>,
    /// κ_q = gᵀHg / (2 gᵀg); defined for negative curvature too.
    pub kappa: Option<f64>,
}

/// Newton-CG's steps, each from one fold's images; means over folds but where two values stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewtonSteps {
    /// ‖p‖.
    pub length: f64,
    /// −gᵀp − ½ pᵀHp, the decrease that the quadratic model predicts.
    pub delta_l_nats: f64,
    /// ‖g + Hp‖/‖g‖.
    pub residual: f64,
    /// Products taken.
    pub iterations: [usize; 2],
    /// What ended the iterations.
    pub ends: [StopReason; 2],
}

/// What was measured of one layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerResult {
    /// Its name.
    pub name: String,
    /// n_ℓ.
    pub parameters: usize,
    /// ‖g_ℓ‖, mean over folds.
    pub gradient_norm: f64,
    /// ‖w_ℓ‖; 0 for a layer of zeros.
    pub weight_norm: f64,
    /// ΔL_ℓ, nats per example.
    pub delta_l_nats: Fitted,
    /// ΔL_ℓ on losses after a temperature: what moving the layer offers beyond it.
    pub delta_l_calibrated_nats: Fitted,
    /// κ_ℓ = ΔL_ℓ/‖Δw‖², nats per squared weight unit.
    pub kappa: Fitted,
    /// ‖Δw‖, mean over folds.
    pub displacement: f64,
    /// α*, mean over folds; of Newton's steps, the share taken of them.
    pub alpha: f64,
    /// Points of the line evaluated, both folds together.
    pub evaluations: usize,
    /// Whether the search ended at its longest ‖Δw‖ in either fold: ‖w_ℓ‖, and 2 φ(0)/‖g_ℓ‖ for a
    /// layer of zeros; of Newton's steps, at the radius.
    pub capped: bool,
    /// Whether gᵀHg ≤ 0 in either fold.
    pub negative_curvature: bool,
    /// Whether the cross-fitted ΔL exceeds 1.96 standard errors.
    pub eligible: bool,
    /// The quadratic prediction.
    pub quadratic: Quadratic,
    /// The steps of `--estimator newton`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newton: Option<NewtonSteps>,
    /// The loss along the line that was searched, fold by fold; absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<LossLine>,
    /// What `--spectrum` measured, matrix by matrix, on all of V.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spectra: Vec<Spectrum>,
}

/// φ(α), the loss of a fold's own images with the layer moved by α along the direction searched:
/// down the gradient, or along a Newton step. Nats per example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossLine {
    /// φ(0).
    pub at_zero: f64,
    /// φ′(0): −‖g‖² down the gradient, gᵀp along a step p.
    pub slope: f64,
    /// φ″(0): gᵀHg down the gradient, pᵀHp along a step p.
    pub curvature: f64,
    /// (α, φ(α)), by α; where the loss was no finite number there is no point.
    pub points: Vec<[f64; 2]>,
}

/// Which layer to perturb and which to update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// p: highest κ.
    pub perturb: String,
    /// u: highest ΔL.
    pub update: String,
    /// Layers that V cannot tell from p's best.
    #[serde(default)]
    pub tied_perturb: Vec<String>,
    /// Layers that V cannot tell from u's best.
    #[serde(default)]
    pub tied_update: Vec<String>,
    /// `cross_fit`, `calibrated` or `in_sample`.
    pub basis: String,
}

impl Findings {
    /// Why the plan names one layer twice, and what that means; nothing where it names two.
    pub fn one_layer(&self) -> Option<String> {
        let plan = self.plan.as_ref().filter(|plan| plan.perturb == plan.update)?;
        let name = &plan.update;
        let why = match self.layers.iter().filter(|l| l.eligible).count() {
            1 => "it is the only eligible layer".to_owned(),
            n => {
                let [by_kappa, by_gap] =
                    [(&plan.tied_perturb, "κ"), (&plan.tied_update, "ΔL")].map(standing);
                format!("of {n} eligible layers it has {by_kappa}, and {by_gap}")
            }
        };
        Some(format!("p = u = {name}, since {why}; {}", perturbed_and_updated(name)))
    }
}

/// How a layer that was taken stands by a figure.
fn standing((tied, figure): (&Vec<String>, &str)) -> String {
    match tied.is_empty() {
        true => format!("the highest {figure}"),
        false => format!(
            "a {figure} that V cannot tell from that of {} (of layers that tie, the one nearest the \
             head is taken)",
            tied.join(", ")
        ),
    }
}

/// What PoL does where one layer is both perturbed and updated.
pub fn perturbed_and_updated(layer: &str) -> String {
    format!(
        "each gradient is taken with {layer} perturbed and applied to its unperturbed weights, and all \
         other layers keep theirs"
    )
}

/// The literal argmaxes, as published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InSamplePlan {
    /// Highest in-sample κ.
    pub perturb: String,
    /// Highest in-sample ΔL.
    pub update: String,
}

/// All that is measured; equal bytes for equal input, seed and threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Findings {
    /// The model's loss.
    pub loss_nats: Loss,
    /// One entry a layer, from the image upwards.
    pub layers: Vec<LayerResult>,
    /// The plan, or nothing if no layer is eligible.
    pub plan: Option<Plan>,
    /// The plan by in-sample figures.
    pub plan_in_sample: Option<InSamplePlan>,
    /// The plan by figures beyond temperature.
    pub plan_calibrated: Option<Plan>,
    /// How far the layers stand apart; nothing if none is eligible.
    #[serde(default)]
    pub ranking: Option<Ranking>,
    /// How the gap divides between over-confidence and the rest, in one sentence.
    pub summary: String,
    /// What a reader should know before acting.
    pub warnings: Vec<String>,
}
