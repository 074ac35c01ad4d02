//! The figures of a cell, as the log stores them.

use super::CellKind;
use crate::diagnose::Basis;
use crate::diagnose::findings::{Findings, Fitted, Gain, InSamplePlan, LayerResult, Loss, Plan};
use crate::evaluate::{Bound, Detection, Estimate, Summary};
use crate::post_train::{Compared, Trial};
use serde::{Deserialize, Serialize};

/// The figures of a cell, by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellFigures {
    /// Of a model on a split, without reliability diagrams.
    Evaluation(Box<Summary>),
    /// Of a model on images of another kind.
    Ood(OodFigures),
    /// Of a model's layers on V.
    Diagnosis(DiagnosisFigures),
    /// Of a post-training run.
    Run(Box<RunFigures>),
}

/// How well images of another kind are detected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OodFigures {
    /// Number of known images.
    pub images: usize,
    /// Number of other images.
    pub ood_images: usize,
    /// By the largest probability.
    pub probability: Detection,
    /// By the energy.
    pub energy: Detection,
}

/// ΔL and κ of every layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiagnosisFigures {
    /// The loss that layers were measured by.
    pub basis: Basis,
    /// The layers, in the network's order.
    pub layers: Vec<LayerFigures>,
    /// The losses.
    pub loss: Loss,
    /// The plan of the cross-fitted figures, if any layer is eligible.
    pub plan: Option<Plan>,
    /// The plan of the in-sample figures.
    pub plan_in_sample: Option<InSamplePlan>,
}

/// The figures of one layer; see [`LayerResult`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerFigures {
    /// Its name.
    pub layer: String,
    /// ΔL on the basis, nats per example.
    pub delta_l: Fitted,
    /// The same with temperatures fitted at both ends of the move.
    pub delta_l_calibrated: Fitted,
    /// κ on the basis.
    pub kappa: Fitted,
    /// ΔL and κ of the raw loss, with the calibrated basis.
    pub raw: Option<Gain>,
    /// Whether the cross-fitted ΔL is significant.
    pub eligible: bool,
    /// ‖Δw‖.
    pub displacement: f64,
    /// ‖g‖.
    pub gradient_norm: f64,
    /// ‖w‖.
    pub weight_norm: f64,
    /// Number of weights.
    pub parameters: usize,
}

/// The history and the result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFigures {
    /// The epoch whose weights were kept, from 1; 0 means the initial weights.
    pub selected_epoch: usize,
    /// Number of finished epochs.
    pub finished_epochs: usize,
    /// Why the run was stopped, or why its result has no metrics.
    pub stopped: Option<String>,
    /// Number of images of V that each epoch is evaluated on.
    pub watched_images: usize,
    /// Loss on them before training.
    pub watched_loss_before: Option<f64>,
    /// Loss on them after the kept epoch.
    pub watched_loss_after: Option<f64>,
    /// Training loss of the last epoch.
    pub training_loss: Option<f64>,
    /// Its mean ‖Δw_p‖/‖w_p‖.
    pub perturbation: Option<f64>,
    /// Its mean ‖Δw_p‖.
    pub perturbation_length: Option<f64>,
    /// Fraction of its perturbations that were capped.
    pub capped: Option<f64>,
    /// Fraction of its steps without a perturbation, because the loss had no minimum along the line.
    #[serde(default)]
    pub rejected: Option<f64>,
    /// Before and after on V; `None` if the result has no metrics.
    pub val: Option<SplitFigures>,
    /// Before and after on test.
    pub test: Option<SplitFigures>,
}

/// A model before and after a run, on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitFigures {
    /// Before.
    pub before: ModelScore,
    /// After.
    pub after: ModelScore,
    /// Paired difference of NLL, before − after.
    pub nll_gain: Estimate,
    /// The same with temperature scaling on both sides.
    pub calibrated_nll_gain: Estimate,
}

/// The main figures of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelScore {
    /// NLL.
    pub nll: Estimate,
    /// NLL with a temperature.
    pub calibrated_nll: Estimate,
    /// Accuracy.
    pub top1: Estimate,
    /// Expected calibration error.
    pub ece: Estimate,
    /// The same with a temperature.
    pub calibrated_ece: Estimate,
    /// Brier score.
    pub brier: Option<Estimate>,
    /// The temperature.
    pub temperature: f64,
    /// Why no temperature minimises the loss, if so.
    pub temperature_bound: Option<Bound>,
}

impl CellFigures {
    /// What the cell measures.
    pub fn kind(&self) -> CellKind {
        match self {
            CellFigures::Evaluation(_) => CellKind::Evaluation,
            CellFigures::Ood(_) => CellKind::Ood,
            CellFigures::Diagnosis(_) => CellKind::Diagnosis,
            CellFigures::Run(_) => CellKind::Run,
        }
    }

    /// The figures of a diagnosis.
    pub fn diagnosis(&self) -> Option<&DiagnosisFigures> {
        match self {
            CellFigures::Diagnosis(figures) => Some(figures),
            _ => None,
        }
    }

    /// The figures of a run.
    pub fn run(&self) -> Option<&RunFigures> {
        match self {
            CellFigures::Run(figures) => Some(figures),
            _ => None,
        }
    }
}

impl From<Summary> for CellFigures {
    fn from(summary: Summary) -> Self {
        CellFigures::Evaluation(Box::new(Summary { reliability: None, ..summary }))
    }
}

impl From<Findings> for CellFigures {
    fn from(found: Findings) -> Self {
        CellFigures::Diagnosis(DiagnosisFigures {
            basis: found.basis,
            layers: found.layers.into_iter().map(Into::into).collect(),
            loss: found.loss_nats,
            plan: found.plan,
            plan_in_sample: found.plan_in_sample,
        })
    }
}

impl From<LayerResult> for LayerFigures {
    fn from(layer: LayerResult) -> Self {
        Self {
            layer: layer.name,
            delta_l: layer.delta_l_nats,
            delta_l_calibrated: layer.delta_l_calibrated_nats,
            kappa: layer.kappa,
            raw: layer.raw,
            eligible: layer.eligible,
            displacement: layer.displacement,
            gradient_norm: layer.gradient_norm,
            weight_norm: layer.weight_norm,
            parameters: layer.parameters,
        }
    }
}

impl From<Trial> for CellFigures {
    fn from(trial: Trial) -> Self {
        let last = trial.epochs.last();
        let kept = trial.epochs.iter().find(|e| e.epoch == trial.selected_epoch);
        CellFigures::Run(Box::new(RunFigures {
            selected_epoch: trial.selected_epoch,
            finished_epochs: trial.epochs.len(),
            watched_images: trial.watched_images,
            watched_loss_before: trial.watched_before,
            watched_loss_after: kept.and_then(|e| e.validation_loss),
            training_loss: last.map(|e| e.training_loss),
            perturbation: last.and_then(|e| e.perturbation),
            perturbation_length: last.and_then(|e| e.perturbation_length),
            capped: last.and_then(|e| e.capped),
            rejected: last.and_then(|e| e.rejected),
            val: trial.val.as_ref().map(Into::into),
            test: trial.test.as_ref().map(Into::into),
            stopped: trial.stopped,
        }))
    }
}

impl From<&Compared> for SplitFigures {
    fn from(found: &Compared) -> Self {
        Self {
            before: (&found.before).into(),
            after: (&found.after).into(),
            nll_gain: found.nll_gain,
            calibrated_nll_gain: found.calibrated_nll_gain,
        }
    }
}

impl From<&Summary> for ModelScore {
    fn from(s: &Summary) -> Self {
        let of = |mean, stderr| Estimate { mean, stderr };
        let d = s.details.as_ref();
        Self {
            nll: of(s.nll, s.nll_stderr),
            calibrated_nll: of(s.calibrated_nll, s.calibrated_nll_stderr),
            top1: of(s.top1, s.top1_stderr),
            ece: of(s.ece, d.and_then(|d| d.ece_stderr)),
            calibrated_ece: of(s.calibrated_ece, d.and_then(|d| d.calibrated_ece_stderr)),
            brier: d.map(|d| of(d.brier, d.brier_stderr)),
            temperature: s.temperature,
            temperature_bound: s.temperature_bound,
        }
    }
}
