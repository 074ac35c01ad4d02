//! Results of a diagnosis.

use super::Basis;
use super::ranking::Ranking;
use super::spectrum::Spectrum;
use crate::curvature::steihaug::StopReason;
use crate::evaluate::{Bound, Estimate};
use serde::{Deserialize, Serialize};

/// Mean loss over all images of V, in nats per example, raw and after temperature scaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// L^V.
    pub validation: f64,
    /// Standard error of L^V.
    pub stderr: Option<f64>,
    /// L^V after temperature scaling. Each fold of the first halving uses the temperature fitted on the
    /// other fold.
    pub calibrated: f64,
    /// The temperature fitted on all of V.
    pub temperature: f64,
    /// Temperatures used to score the two folds, each fitted on the other fold. Absent in files of
    /// earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperatures_of_folds: Option<[f64; 2]>,
    /// Why the loss has no minimum in T, on all of V or on a fold. Absent if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_bound: Option<Bound>,
    /// Mean loss over a sample of training images, at most as many as V has. `None` without
    /// training images.
    pub training: Option<f64>,
    /// Number of training images in that sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_images: Option<usize>,
}

/// One quantity, in-sample and cross-fitted, averaged over halvings of V.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// Mean of the folds' in-sample values; `None` if undefined.
    pub in_sample: Option<f64>,
    /// Cross-fitted value: direction and α* from one half of V, measured on the other, averaged over
    /// both ways and all halvings. It estimates the value of a direction found on half of V.
    pub cross_fit: Option<f64>,
    /// Standard error of `cross_fit` over the choice of V, which determines the directions too: see
    /// [`cross_fit`](super::cross_fit).
    pub stderr: Option<f64>,
}

impl Fitted {
    /// The cross-fitted value with its standard error.
    pub fn estimate(&self) -> Option<Estimate> {
        self.cross_fit.map(|mean| Estimate { mean, stderr: self.stderr })
    }

    /// All values times a factor; `None` if there is no cross-fitted value.
    pub fn scaled(&self, factor: f64) -> Option<Self> {
        let times = |value: Option<f64>| value.map(|value| factor * value);
        let Self { in_sample, cross_fit, stderr } = *self;
        cross_fit.map(|_| Self {
            in_sample: times(in_sample),
            cross_fit: times(cross_fit),
            stderr: times(stderr),
        })
    }
}

/// Prediction from the second derivative along the gradient, averaged over both folds of the first
/// halving. `None` if gᵀHg is not positive.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Quadratic {
    /// α_q = gᵀg / gᵀHg.
    pub alpha: Option<f64>,
    /// ΔL_q = (gᵀg)² / (2 gᵀHg).
    pub delta_l_nats: Option<f64>,
    /// κ_q = gᵀHg / (2 gᵀg); defined for negative curvature too.
    pub kappa: Option<f64>,
}

/// Newton-CG steps, one per fold of the first halving. Scalars are means over folds; arrays hold one value per fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewtonSteps {
    /// ‖p‖.
    pub length: f64,
    /// −gᵀp − ½ pᵀHp, the decrease that the quadratic model predicts.
    pub delta_l_nats: f64,
    /// ‖g + Hp‖/‖g‖.
    pub residual: f64,
    /// Hessian-vector products.
    pub iterations: [usize; 2],
    /// Why the iterations stopped.
    pub ends: [StopReason; 2],
}

/// ΔL and κ of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// ΔL_ℓ, nats per example.
    pub delta_l_nats: Fitted,
    /// κ_ℓ = ΔL_ℓ/‖Δw‖², nats per squared weight unit.
    pub kappa: Fitted,
    /// ‖Δw‖, mean over all halvings and folds.
    pub displacement: f64,
}

/// Measurements of one layer. With [`Basis::Calibrated`], the loss is that of the model with a temperature
/// folded into its head: fitted on a half of V for the figures of that half, and on all of V for ‖w_ℓ‖.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerResult {
    /// Its name.
    pub name: String,
    /// n_ℓ.
    pub parameters: usize,
    /// ‖g_ℓ‖, mean over both folds of the first halving.
    pub gradient_norm: f64,
    /// ‖w_ℓ‖; 0 if all weights are zero.
    pub weight_norm: f64,
    /// ΔL_ℓ, nats per example.
    pub delta_l_nats: Fitted,
    /// ΔL_ℓ along the same move, with temperatures fitted at both of its ends: the gain from moving the
    /// layer beyond the gain from a temperature.
    pub delta_l_calibrated_nats: Fitted,
    /// The figures of the raw loss, from the first halving alone. Only with [`Basis::Calibrated`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Gain>,
    /// κ_ℓ = ΔL_ℓ/‖Δw‖², nats per squared weight unit. The ratio of the means of ΔL_ℓ and of
    /// ‖Δw‖² over all halvings and folds.
    pub kappa: Fitted,
    /// κ_ℓ‖w_ℓ‖², nats: ΔL_ℓ for each squared unit of ‖Δw‖/‖w_ℓ‖. Comparable across layers of different
    /// scale. `None` without κ, if all weights are zero, and in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kappa_relative: Option<Fitted>,
    /// ‖Δw‖, mean over all halvings and folds.
    pub displacement: f64,
    /// α*, mean over both folds of the first halving. For Newton steps, the fraction of the step taken.
    pub alpha: f64,
    /// Points evaluated on lines, summed over all halvings and folds.
    pub evaluations: usize,
    /// Whether any search hit its limit on ‖Δw‖. The limit is ‖w_ℓ‖, or 2 φ(0)/‖g_ℓ‖
    /// for a layer of zeros. For Newton steps, it is the trust-region radius.
    pub capped: bool,
    /// Whether gᵀHg ≤ 0 in either fold of the first halving.
    pub negative_curvature: bool,
    /// p value of the one-sided test that the cross-fitted ΔL is above 0, corrected for the number of
    /// layers (Holm). `None` without a standard error, and in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_holm: Option<f64>,
    /// Whether `p_holm` is at most 0.025.
    pub eligible: bool,
    /// The quadratic prediction.
    pub quadratic: Quadratic,
    /// Newton-CG steps, if `estimator` is `newton`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newton: Option<NewtonSteps>,
    /// The loss along the searched line, one entry per fold of the first halving. Absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<LossLine>,
    /// Spectra of the raw loss, measured on all of V, one entry per matrix, if `spectrum` is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spectra: Vec<Spectrum>,
}

/// φ(α), the loss of a fold's own images with the layer moved by α along the searched direction:
/// the negative gradient or a Newton step. Nats per example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossLine {
    /// φ(0).
    pub at_zero: f64,
    /// φ′(0): −‖g‖² along the negative gradient, gᵀp along a step p.
    pub slope: f64,
    /// φ″(0): gᵀHg along the negative gradient, pᵀHp along a step p.
    pub curvature: f64,
    /// (α, φ(α)), sorted by α. Points with a non-finite loss are left out.
    pub points: Vec<[f64; 2]>,
}

/// Which layer to perturb and which to update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// p: highest κ.
    pub perturb: String,
    /// u: highest ΔL.
    pub update: String,
    /// Other layers whose κ does not differ significantly from the best on V and is known to be at
    /// least half of it.
    #[serde(default)]
    pub tied_perturb: Vec<String>,
    /// Other layers whose ΔL does not differ significantly from the best on V and is known to be at
    /// least half of it.
    #[serde(default)]
    pub tied_update: Vec<String>,
    /// The name of a [`Basis`]; `cross_fit` in files of earlier builds, which measured the raw loss.
    pub basis: String,
}

fn one() -> usize {
    1
}

fn raw() -> Basis {
    Basis::Raw
}

impl LayerResult {
    /// ΔL to be shown beside the other: of the raw loss if there is one, otherwise beyond a temperature.
    pub fn beside(&self) -> Fitted {
        self.raw.map_or(self.delta_l_calibrated_nats, |raw| raw.delta_l_nats)
    }
}

impl Findings {
    /// What the cross-fitted figures estimate.
    pub fn estimand(&self) -> String {
        let ways = match self.repeats {
            1 => "for one split of V into halves".to_owned(),
            n => format!("and averaged over {n} splits of V into halves"),
        };
        format!(
            "In-sample figures are measured on the half of V that chose the move. Cross-fit figures are measured on \
             the other half, {ways}: they estimate the gain of a move chosen on half of V. A move chosen on all \
             of V would gain more."
        )
    }

    /// Explains why the plan names one layer twice and what that means. `None` if it names two
    /// layers.
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

/// How the chosen layer ranks on a quantity.
fn standing((tied, figure): (&Vec<String>, &str)) -> String {
    match tied.is_empty() {
        true => format!("the highest {figure}"),
        false => format!(
            "a {figure} that does not differ significantly from that of {} (of tied layers, the one \
             nearest the head is chosen)",
            tied.join(", ")
        ),
    }
}

/// What PoL does if one layer is both perturbed and updated.
pub fn perturbed_and_updated(layer: &str) -> String {
    format!(
        "each gradient is computed with {layer} perturbed and applied to its unperturbed weights; all \
         other layers stay fixed"
    )
}

/// The plain in-sample argmaxes of the raw loss, as in the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InSamplePlan {
    /// Highest in-sample κ.
    pub perturb: String,
    /// Highest in-sample ΔL.
    pub update: String,
}

/// All results of a diagnosis. Equal input and seed give equal bytes, with any number of
/// threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Findings {
    /// The loss that layers were measured by; raw in files of earlier builds.
    #[serde(default = "raw")]
    pub basis: Basis,
    /// The model's loss.
    pub loss_nats: Loss,
    /// Ways in which V was halved. 1 in files of earlier builds.
    #[serde(default = "one")]
    pub repeats: usize,
    /// One entry per layer, from input to output.
    pub layers: Vec<LayerResult>,
    /// The plan, or `None` if no layer is eligible.
    pub plan: Option<Plan>,
    /// The plan from in-sample values of the raw loss.
    pub plan_in_sample: Option<InSamplePlan>,
    /// The plan from the raw loss. With [`Basis::Calibrated`], it is from the first halving alone.
    #[serde(default)]
    pub plan_raw: Option<Plan>,
    /// How clearly the layers are separated; `None` if none is eligible.
    #[serde(default)]
    pub ranking: Option<Ranking>,
    /// One sentence on how much of the gap is over-confidence.
    pub summary: String,
    /// Warnings to read before acting on the results.
    pub warnings: Vec<String>,
}
