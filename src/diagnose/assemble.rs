//! Combines both folds' measurements into one report of all layers.

use super::fold::{Measured, mean};
use super::plan::{self, Evidence, corrected, cross_mean, is_eligible, plan};
use super::summary::{summary, warnings};
use super::{Found, Pair};
use crate::curvature::Result;
use crate::curvature::steihaug::{Step, StopReason};
use crate::diagnose::findings::{Findings, Fitted, LayerResult, Loss, NewtonSteps, Quadratic};
use crate::evaluate::{Estimate, fit, losses, mean_stderr};
use crate::models::Layer;
use crate::objective::Objective;
use crate::predictions::Predictions;
use crate::vector;
use candle_core::Tensor;

pub(super) fn model_loss(
    base: &Predictions,
    bases: &[Predictions; 2],
    fold_of: &[usize],
    folds: &[Vec<usize>; 2],
    training: Option<(f64, usize)>,
) -> Loss {
    let raw = mean_stderr(&losses(base, 1.0));
    let fits = bases.each_ref().map(fit);
    let calibrated = scatter(folds, |f| losses(&bases[f], fits[1 - f].temperature));
    let overall = fit(base);
    Loss {
        validation: raw.mean,
        stderr: raw.stderr,
        calibrated: cross_mean(&calibrated, fold_of).mean,
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

pub(super) fn assemble(
    objective: &Objective,
    results: Vec<Found>,
    loss: Loss,
    folds: &[Vec<usize>; 2],
    fold_of: &[usize],
) -> Result<Findings> {
    let (mut layers, mut raw, mut calibrated) = (Vec::new(), Vec::new(), Vec::new());
    for Found { layer, pair, spectra } in results {
        let pair = &pair;
        let evidence = |gap: fn(&Measured) -> &[f64]| {
            // Fold f's images are measured along the other fold's direction.
            let gaps = scatter(folds, |f| gap(&pair[1 - f]).to_vec());
            let squares = pair.each_ref().map(|m| m.displacement.powi(2));
            let moved = squares[0] > 0.0 && squares[1] > 0.0;
            let sharpness = moved.then(|| plan::sharpness(&gaps, squares, fold_of));
            Evidence { name: layer.name.clone(), gaps, sharpness }
        };
        let (r, c) = (evidence(|m| &m.other_gap.raw), evidence(|m| &m.other_gap.calibrated));
        let result = layer_result(objective, layer, pair, &r, &c, fold_of)?;
        layers.push(LayerResult { spectra, ..result });
        raw.push(r);
        calibrated.push(c);
    }
    let gaps: Vec<Estimate> =
        layers.iter().filter_map(|layer| layer.delta_l_nats.estimate()).collect();
    for (layer, p_holm) in layers.iter_mut().zip(corrected(&gaps)) {
        (layer.p_holm, layer.eligible) = (p_holm, is_eligible(p_holm));
    }
    let plan_raw = plan(&raw, fold_of, "cross_fit");
    let warnings = warnings(&loss, &layers, plan_raw.is_some(), fold_of.len());
    Ok(Findings {
        summary: summary(&loss, &layers),
        plan: plan_raw,
        ranking: plan::ranking(&raw, fold_of),
        plan_in_sample: plan::in_sample(&layers),
        plan_calibrated: plan(&calibrated, fold_of, "calibrated"),
        loss_nats: loss,
        layers,
        warnings,
    })
}

fn layer_result(
    objective: &Objective,
    layer: &Layer,
    pair: &Pair,
    raw: &Evidence,
    calibrated: &Evidence,
    fold_of: &[usize],
) -> Result<LayerResult> {
    let average = |f: fn(&Measured) -> f64| (f(&pair[0]) + f(&pair[1])) / 2.0;
    let positive = pair.iter().all(|m| m.curvature > 0.0);
    let moved = pair.iter().all(|m| m.displacement > 0.0);
    let nonzero = pair.iter().all(|m| m.gradient_norm > 0.0);
    let weights = objective.weights_of(layer)?;
    let fitted = |in_sample: Option<f64>, values: &[f64]| {
        let Estimate { mean, stderr } = cross_mean(values, fold_of);
        Fitted { in_sample, cross_fit: Some(mean), stderr }
    };
    let kappa = match &raw.sharpness {
        Some(values) => {
            let square = average(|m| m.displacement.powi(2));
            let own = average(|m| mean(&m.own_gap.raw));
            fitted(Some(own / square), values)
        }
        None => Fitted { in_sample: None, cross_fit: None, stderr: None },
    };
    debug_assert_eq!(moved, raw.sharpness.is_some());
    let weight_norm = vector::norm(&weights).map_err(crate::objective::Error::from)?;
    Ok(LayerResult {
        name: layer.name.clone(),
        parameters: weights.iter().map(Tensor::elem_count).sum(),
        gradient_norm: average(|m| m.gradient_norm),
        weight_norm,
        delta_l_nats: fitted(Some(average(|m| mean(&m.own_gap.raw))), &raw.gaps),
        delta_l_calibrated_nats: fitted(
            Some(average(|m| mean(&m.own_gap.calibrated))),
            &calibrated.gaps,
        ),
        kappa_relative: kappa.scaled(weight_norm.powi(2)).filter(|_| weight_norm > 0.0),
        kappa,
        displacement: average(|m| m.displacement),
        alpha: average(|m| m.minimum.alpha),
        evaluations: pair.iter().map(|m| m.minimum.evaluations).sum(),
        capped: pair.iter().any(|m| match &m.newton {
            Some(step) => step.end == StopReason::Boundary && m.minimum.capped,
            None => m.minimum.capped,
        }),
        negative_curvature: nonzero && !positive,
        p_holm: None,
        eligible: false,
        newton: newton_steps(pair),
        lines: pair.iter().filter_map(|m| m.line.clone()).collect(),
        spectra: Vec::new(),
        quadratic: Quadratic {
            alpha: positive.then(|| average(|m| m.gradient_norm.powi(2) / m.curvature)),
            delta_l_nats: positive
                .then(|| average(|m| m.gradient_norm.powi(4) / (2.0 * m.curvature))),
            kappa: nonzero.then(|| average(|m| m.curvature / (2.0 * m.gradient_norm.powi(2)))),
        },
    })
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
