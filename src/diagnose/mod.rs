//! Where a model over-fits: ΔL and κ of every layer, with errors, ties and a plan.
//!
//! ΔL_ℓ = φ(0) − φ(α*) for φ(α) = L^V(w_ℓ − α g_ℓ), α* its first local minimum; κ_ℓ = ΔL_ℓ/‖Δw‖²
//! (the line along the gradient is the restriction of PoF's Fig. 1: Sato et al., ICML 2022).
//! V is split into two stratified folds: direction and α* come from one, the gap is measured on
//! the other, and the two are averaged.

mod fold;
mod path;
pub mod plan;
pub mod search;

pub use path::{Path, is_linear, layer_weights, moved};

use crate::data::folds::stratified_halves;
use crate::evaluate::{Predictions, fit, losses, mean_stderr};
use crate::objective::{Examples, Objective, Result};
use crate::report::diagnosis::{Findings, Fitted, LayerResult, Loss, Quadratic};
use crate::vector;
use crate::vit::Layer;
use crate::vit::layers::join;
use candle_core::Tensor;
use fold::{Fold, Measured, mean, measure};
use plan::{Evidence, cross_mean, is_eligible, plan};

/// Images and the layers to measure on them.
pub struct Request<'a> {
    /// The model at w*.
    pub objective: &'a Objective,
    /// V, as pixels.
    pub validation: &'a dyn Examples,
    /// Training images whose loss is reported beside V's.
    pub training: Option<&'a dyn Examples>,
    /// The layers, from the image upwards.
    pub layers: &'a [Layer],
    /// Seed of the folds.
    pub seed: u64,
}

/// Both folds' measurements of one layer.
type Pair = [Measured; 2];

/// Measures every layer. `done` is called with a layer's name when it has been measured.
///
/// # Errors
/// Those of evaluating the model; [`crate::objective::Error::NoExamples`] if a fold is empty.
pub fn diagnose(request: &Request, done: &mut dyn FnMut(&str)) -> Result<Findings> {
    let Request { objective, validation, layers, .. } = *request;
    let halves = stratified_halves(validation.labels(), request.seed);
    let folds = [halves.0, halves.1];
    if folds.iter().any(Vec::is_empty) {
        return Err(crate::objective::Error::NoExamples);
    }
    let mut fold_of = vec![0; validation.len()];
    folds[1].iter().for_each(|&i| fold_of[i] = 1);

    let mut order: Vec<&Layer> = layers.iter().collect();
    order.sort_by_key(|l| l.first_stage);
    let lowest = order.first().map_or(0, |layer| layer.first_stage);
    let mut at = objective.activations(validation, lowest)?;
    let base = objective.predict(&at)?;
    let parts = [at.select(&folds[0])?, at.select(&folds[1])?];
    let bases = [base.subset(&folds[0])?, base.subset(&folds[1])?];
    // One backward sweep a fold gives every layer's direction.
    let joint = join(layers);
    let mut gradients = Vec::with_capacity(2);
    for part in &parts {
        gradients.push(objective.gradient(part, &joint)?.gradient);
    }
    drop(parts);

    let mut results = Vec::new();
    for layer in order {
        if layer.first_stage > at.stage {
            // Each image climbs the network once, whatever the number of layers.
            at = objective.activations(&at, layer.first_stage)?;
        }
        let parts = [at.select(&folds[0])?, at.select(&folds[1])?];
        let one = |own: usize| -> Result<Measured> {
            let fold = Fold {
                own: &parts[own],
                other: &parts[1 - own],
                own_base: &bases[own],
                other_base: &bases[1 - own],
            };
            let direction: Vec<Tensor> = layer
                .tensors
                .iter()
                .filter_map(|i| joint.tensors.binary_search(i).ok())
                .map(|k| gradients[own][k].clone())
                .collect();
            measure(objective, layer, &fold, &direction)
        };
        let pair = [one(0)?, one(1)?];
        results.push((layer, pair));
        done(&layer.name);
    }
    let training = match request.training {
        Some(examples) => Some(mean(&losses(&objective.predict(examples)?, 1.0))),
        None => None,
    };
    let loss = model_loss(&base, &bases, &fold_of, &folds, training);
    assemble(objective, results, loss, &folds, &fold_of)
}

fn model_loss(
    base: &Predictions,
    bases: &[Predictions; 2],
    fold_of: &[usize],
    folds: &[Vec<usize>; 2],
    training: Option<f64>,
) -> Loss {
    let raw = mean_stderr(&losses(base, 1.0));
    let calibrated = scatter(folds, |f| losses(&bases[f], fit(&bases[1 - f]).usable()));
    Loss {
        validation: raw.mean,
        stderr: raw.stderr,
        calibrated: cross_mean(&calibrated, fold_of).0,
        temperature: fit(base).usable(),
        training,
    }
}

/// Values of both folds in the order of V.
fn scatter(folds: &[Vec<usize>; 2], values: impl Fn(usize) -> Vec<f64>) -> Vec<f64> {
    let mut out = vec![0.0; folds[0].len() + folds[1].len()];
    for (f, fold) in folds.iter().enumerate() {
        for (&i, v) in fold.iter().zip(values(f)) {
            out[i] = v;
        }
    }
    out
}

fn assemble(
    objective: &Objective,
    results: Vec<(&Layer, Pair)>,
    loss: Loss,
    folds: &[Vec<usize>; 2],
    fold_of: &[usize],
) -> Result<Findings> {
    let (mut layers, mut raw, mut calibrated) = (Vec::new(), Vec::new(), Vec::new());
    for (layer, pair) in &results {
        let evidence = |gap: fn(&Measured) -> &[f64]| {
            // Fold f's images are measured along the direction of the other fold.
            let gaps = scatter(folds, |f| gap(&pair[1 - f]).to_vec());
            let squares = pair.each_ref().map(|m| m.displacement.powi(2));
            let sharpness = (squares[0] > 0.0 && squares[1] > 0.0)
                .then(|| gaps.iter().zip(fold_of).map(|(gap, f)| gap / squares[1 - f]).collect());
            Evidence { name: layer.name.clone(), gaps, sharpness }
        };
        let (r, c) = (evidence(|m| &m.other_gap.raw), evidence(|m| &m.other_gap.calibrated));
        layers.push(layer_result(objective, layer, pair, &r, &c, fold_of)?);
        raw.push(r);
        calibrated.push(c);
    }
    let plan_raw = plan(&raw, fold_of, "cross_fit");
    let warnings = warnings(&loss, plan_raw.is_some(), fold_of.len());
    Ok(Findings {
        summary: summary(&loss, &layers),
        plan: plan_raw,
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
    let weights = layer_weights(objective, layer);
    let (gap, gap_error) = cross_mean(&raw.gaps, fold_of);
    let fitted = |in_sample: Option<f64>, (mean, stderr): (f64, Option<f64>)| Fitted {
        in_sample,
        cross_fit: Some(mean),
        stderr,
    };
    let kappa = match &raw.sharpness {
        Some(values) => fitted(
            Some(average(|m| mean(&m.own_gap.raw) / m.displacement.powi(2))),
            cross_mean(values, fold_of),
        ),
        None => Fitted { in_sample: None, cross_fit: None, stderr: None },
    };
    debug_assert_eq!(moved, raw.sharpness.is_some());
    Ok(LayerResult {
        name: layer.name.clone(),
        parameters: weights.iter().map(Tensor::elem_count).sum(),
        gradient_norm: average(|m| m.gradient_norm),
        weight_norm: vector::norm(&weights)?,
        delta_l_nats: fitted(Some(average(|m| mean(&m.own_gap.raw))), (gap, gap_error)),
        delta_l_calibrated_nats: fitted(
            Some(average(|m| mean(&m.own_gap.calibrated))),
            cross_mean(&calibrated.gaps, fold_of),
        ),
        kappa,
        displacement: average(|m| m.displacement),
        alpha: average(|m| m.minimum.alpha),
        evaluations: pair.iter().map(|m| m.minimum.evaluations).sum(),
        capped: pair.iter().any(|m| m.minimum.capped),
        negative_curvature: nonzero && !positive,
        eligible: is_eligible((gap, gap_error)),
        quadratic: Quadratic {
            alpha: positive.then(|| average(|m| m.gradient_norm.powi(2) / m.curvature)),
            delta_l_nats: positive
                .then(|| average(|m| m.gradient_norm.powi(4) / (2.0 * m.curvature))),
            kappa: nonzero.then(|| average(|m| m.curvature / (2.0 * m.gradient_norm.powi(2)))),
        },
    })
}

/// How the gap divides: what a temperature wins, and what the best layer wins beyond it.
fn summary(loss: &Loss, layers: &[LayerResult]) -> String {
    let over_confidence = loss.validation - loss.calibrated;
    let start = format!(
        "Of the validation loss {:.4}, a temperature of {:.3} wins back {over_confidence:.4}; ",
        loss.validation, loss.temperature
    );
    let beyond = |l: &LayerResult| l.delta_l_calibrated_nats.cross_fit.unwrap_or(f64::NEG_INFINITY);
    let best = layers.iter().reduce(|a, b| if beyond(b) > beyond(a) { b } else { a });
    let rest = match best {
        Some(layer) if is_eligible((beyond(layer), layer.delta_l_calibrated_nats.stderr)) => {
            let stderr = layer.delta_l_calibrated_nats.stderr.unwrap_or(0.0);
            format!(
                "beyond that, moving one layer offers at most {:.4} ± {stderr:.4} ({}).",
                beyond(layer),
                layer.name
            )
        }
        _ => "beyond that, moving one layer along its gradient offers nothing that these images \
              can show."
            .into(),
    };
    start + &rest
}

fn warnings(loss: &Loss, planned: bool, images: usize) -> Vec<String> {
    let mut out = Vec::new();
    if let (Some(training), Some(stderr)) = (loss.training, loss.stderr)
        && loss.validation - training <= 2.0 * stderr
    {
        out.push(format!(
            "the validation loss {:.4} is no more than two standard errors above the training loss \
                 {training:.4}: either the model does not over-fit, or it was trained on these \
                 validation images; give unseen ones with --val-data",
            loss.validation
        ));
    }
    if !planned {
        out.push(format!(
            "no layer's cross-fitted gap exceeds 1.96 standard errors on {images} images, so there \
             is no plan: use more images, or name the layers with --perturb and --update"
        ));
    }
    out
}
