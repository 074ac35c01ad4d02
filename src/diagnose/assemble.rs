//! Combines the folds' measurements of all halvings into one report of all layers.

use super::cross_fit::{cross_fitted, sharpness};
use super::fold::Measured;
use super::halvings::Halvings;
use super::plan::{self, Evidence, corrected, is_eligible, plan};
use super::summary::{summary, warnings};
use super::{Basis, Found, Pair};
use crate::curvature::Result;
use crate::curvature::steihaug::{Step, StopReason};
use crate::diagnose::findings::{
    Findings, Fitted, Gain, LayerResult, Loss, NewtonSteps, Quadratic,
};
use crate::evaluate::{Estimate, fit, losses, mean_stderr};
use crate::models::Layer;
use crate::objective::Objective;
use crate::predictions::Predictions;
use crate::vector;
use candle_core::Tensor;

pub(super) fn model_loss(
    base: &Predictions,
    bases: &[Predictions; 2],
    training: Option<(f64, usize)>,
) -> Loss {
    let raw = mean_stderr(&losses(base, 1.0));
    let fits = bases.each_ref().map(fit);
    let calibrated = [0, 1].map(|f| mean_stderr(&losses(&bases[f], fits[1 - f].temperature)).mean);
    let overall = fit(base);
    Loss {
        validation: raw.mean,
        stderr: raw.stderr,
        calibrated: (calibrated[0] + calibrated[1]) / 2.0,
        temperature: overall.temperature,
        temperatures_of_folds: Some([fits[1].temperature, fits[0].temperature]),
        temperature_bound: overall.bound.or(fits[0].bound).or(fits[1].bound),
        training: training.map(|(loss, _)| loss),
        training_images: training.map(|(_, images)| images),
    }
}

/// Merges per-fold values into the order of V.
fn scatter(folds: &[Vec<usize>; 2], values: impl Fn(usize) -> Vec<f64>) -> Vec<f64> {
    let mut out = vec![0.0; folds[0].len() + folds[1].len()];
    for (f, fold) in folds.iter().enumerate() {
        for (&i, v) in fold.iter().zip(values(f)) {
            out[i] = v;
        }
    }
    out
}

/// Figures of all layers. The objective has the temperature of all of V in its head, if that is the basis.
pub(super) fn assemble(
    objective: &Objective,
    results: Vec<Found>,
    loss: Loss,
    halvings: &Halvings,
    basis: Basis,
) -> Result<Findings> {
    let half_of = &halvings.half_of_images();
    let folds: Vec<[Vec<usize>; 2]> = (0..halvings.repeats()).map(|r| halvings.halves(r)).collect();
    let (mut layers, mut all, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for Found { layer, pairs, raw: raw_pair, spectra } in results {
        let evidence = |pairs: &[Pair], gap: fn(&Measured) -> &[f64]| {
            // Fold f's images are measured along the other fold's direction.
            let of_pair =
                |(folds, pair): (_, &Pair)| scatter(folds, |f| gap(&pair[1 - f]).to_vec());
            let gaps: Vec<Vec<f64>> = folds.iter().zip(pairs).map(of_pair).collect();
            let squares: Vec<[f64; 2]> =
                pairs.iter().map(|pair| pair.each_ref().map(|m| m.displacement.powi(2))).collect();
            let sharpness = sharpness(&gaps, &squares, half_of);
            Evidence { name: layer.name.clone(), gaps, sharpness }
        };
        let own = evidence(&pairs, |m| &m.other_gap.searched);
        let refitted = evidence(&pairs, |m| &m.other_gap.refitted);
        let result = layer_result(objective, &layer, &pairs, &own, &refitted, half_of)?;
        let of_raw = raw_pair.map(|pair| {
            let pairs = [pair];
            let evidence = evidence(&pairs, |m| &m.other_gap.searched);
            (fitted_gap(&pairs, &evidence, half_of), evidence)
        });
        let (of_raw, raw_evidence) = of_raw.unzip();
        layers.push(LayerResult { spectra, raw: of_raw, ..result });
        raw.extend(raw_evidence);
        all.push(own);
    }
    let gaps: Vec<Estimate> =
        layers.iter().filter_map(|layer| layer.delta_l_nats.estimate()).collect();
    for (layer, p_holm) in layers.iter_mut().zip(corrected(&gaps)) {
        (layer.p_holm, layer.eligible) = (p_holm, is_eligible(p_holm));
    }
    let images = half_of.first().map_or(0, Vec::len);
    let plan_of_all = plan(&all, half_of, basis.name());
    let warnings = warnings(&loss, &layers, basis, plan_of_all.is_some(), images);
    Ok(Findings {
        basis,
        summary: summary(&loss, &layers, basis),
        plan: plan_of_all,
        ranking: plan::ranking(&all, half_of),
        plan_in_sample: plan::in_sample(&layers),
        plan_raw: match basis {
            // Empty if the raw loss was not measured.
            Basis::Calibrated => plan(&raw, half_of, Basis::Raw.name()),
            Basis::Raw => plan(&all, half_of, basis.name()),
        },
        loss_nats: loss,
        repeats: halvings.repeats(),
        layers,
        warnings,
    })
}

/// ΔL, κ and ‖Δw‖ over these halvings.
fn fitted_gap(pairs: &[Pair], evidence: &Evidence, half_of: &[Vec<usize>]) -> Gain {
    let over_all = |f: fn(&Measured) -> f64| {
        pairs.iter().flatten().map(f).sum::<f64>() / (2 * pairs.len()) as f64
    };
    let own = over_all(|m| m.own_gap.searched);
    let kappa = match &evidence.sharpness {
        Some(values) => {
            let square = over_all(|m| m.displacement.powi(2));
            fitted(Some(own / square), values, half_of)
        }
        None => Fitted { in_sample: None, cross_fit: None, stderr: None },
    };
    Gain {
        delta_l_nats: fitted(Some(own), &evidence.gaps, half_of),
        kappa,
        displacement: over_all(|m| m.displacement),
    }
}

fn fitted(in_sample: Option<f64>, values: &[Vec<f64>], half_of: &[Vec<usize>]) -> Fitted {
    let Estimate { mean, stderr } = cross_fitted(values, half_of);
    Fitted { in_sample, cross_fit: Some(mean), stderr }
}

fn layer_result(
    objective: &Objective,
    layer: &Layer,
    pairs: &[Pair],
    own: &Evidence,
    refitted: &Evidence,
    half_of: &[Vec<usize>],
) -> Result<LayerResult> {
    // Curvatures are measured in the first halving; what they are compared with is from there too.
    let pair = pairs.first().ok_or(crate::objective::Error::NoExamples)?;
    let average = |f: fn(&Measured) -> f64| (f(&pair[0]) + f(&pair[1])) / 2.0;
    let all = pairs.iter().flatten();
    let positive = pair.iter().all(|m| curvature(m) > 0.0);
    let nonzero = pair.iter().all(|m| m.gradient_norm > 0.0);
    let weights = objective.weights_of(layer)?;
    let Gain { delta_l_nats, kappa, displacement } = fitted_gap(pairs, own, half_of);
    let weight_norm = vector::norm(&weights).map_err(crate::objective::Error::from)?;
    Ok(LayerResult {
        name: layer.name.clone(),
        parameters: weights.iter().map(Tensor::elem_count).sum(),
        gradient_norm: average(|m| m.gradient_norm),
        weight_norm,
        delta_l_nats,
        delta_l_calibrated_nats: {
            let in_sample = all.clone().map(|m| m.own_gap.refitted).sum::<f64>();
            fitted(Some(in_sample / (2 * pairs.len()) as f64), &refitted.gaps, half_of)
        },
        kappa_relative: kappa.scaled(weight_norm.powi(2)).filter(|_| weight_norm > 0.0),
        kappa,
        displacement,
        alpha: average(|m| m.minimum.alpha),
        evaluations: all.clone().map(|m| m.minimum.evaluations).sum(),
        capped: all.clone().any(|m| match &m.newton {
            Some(step) => step.end == StopReason::Boundary && m.minimum.capped,
            None => m.minimum.capped,
        }),
        negative_curvature: nonzero && !positive,
        p_holm: None,
        eligible: false,
        newton: newton_steps(pair),
        lines: pair.iter().filter_map(|m| m.line.clone()).collect(),
        spectra: Vec::new(),
        raw: None,
        quadratic: Quadratic {
            alpha: positive.then(|| average(|m| m.gradient_norm.powi(2) / curvature(m))),
            delta_l_nats: positive
                .then(|| average(|m| m.gradient_norm.powi(4) / (2.0 * curvature(m)))),
            kappa: nonzero.then(|| average(|m| curvature(m) / (2.0 * m.gradient_norm.powi(2)))),
        },
    })
}

/// gᵀHg. All directions of the first halving have one.
fn curvature(measured: &Measured) -> f64 {
    measured.curvature.unwrap_or(f64::NAN)
}

/// Newton-CG figures of both folds.
fn newton_steps(pair: &Pair) -> Option<NewtonSteps> {
    let [a, b] = pair.each_ref().map(|m| m.newton.as_ref());
    let steps = [a?, b?];
    let average = |f: fn(&Step) -> f64| steps.iter().map(|s| f(s)).sum::<f64>() / 2.0;
    Some(NewtonSteps {
        length: average(|s| s.length),
        delta_l_nats: average(|s| s.decrease),
        residual: average(|s| s.residual),
        iterations: steps.map(|s| s.iterations),
        ends: steps.map(|s| s.end),
    })
}
