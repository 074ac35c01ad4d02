//! Summary and warnings of a diagnosis, in sentences.

use super::Basis;
use super::plan::{corrected, is_eligible};
use crate::diagnose::findings::{LayerResult, Loss};
use crate::evaluate::Estimate;
use crate::format::estimate;

/// Splits the gap into the gain from a temperature and the further gain from the best layer.
pub(super) fn summary(loss: &Loss, layers: &[LayerResult], basis: Basis) -> String {
    let over_confidence = loss.validation - loss.calibrated;
    // Cross-fitted on halves of V, a temperature can also raise the loss.
    let effect = match over_confidence > 0.0 {
        true => format!("removes {over_confidence:.4}"),
        false => "removes nothing".into(),
    };
    let start = format!(
        "Of the validation loss {:.4}, a temperature of {:.3} {effect}; ",
        loss.validation, loss.temperature
    );
    let beyond = |l: &LayerResult| match basis {
        Basis::Calibrated => l.delta_l_nats,
        Basis::Raw => l.delta_l_calibrated_nats,
    };
    let gains: Vec<Estimate> = layers.iter().filter_map(|l| beyond(l).estimate()).collect();
    let best = layers
        .iter()
        .zip(gains.iter().zip(corrected(&gains)))
        .filter(|(_, (_, p_holm))| is_eligible(*p_holm))
        .map(|(layer, (gain, _))| (layer, *gain))
        .reduce(|a, b| if b.1.mean > a.1.mean { b } else { a });
    let rest = match best {
        Some((layer, gain)) => {
            format!(
                "after temperature scaling, the largest ΔL is that of {}: {}.",
                layer.name,
                estimate(gain)
            )
        }
        None => match basis {
            Basis::Calibrated => "after temperature scaling, no layer has a significant ΔL.".into(),
            Basis::Raw => {
                "after temperature scaling, no move along the raw gradient has a significant gain."
                    .into()
            }
        },
    };
    start + &rest
}

pub(super) fn warnings(
    loss: &Loss,
    layers: &[LayerResult],
    basis: Basis,
    planned: bool,
    images: usize,
) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(bound) = loss.temperature_bound {
        out.push(format!("the temperature of these images: {}", bound.note()));
    }
    let zeros: Vec<&str> =
        layers.iter().filter(|l| l.weight_norm == 0.0).map(|l| l.name.as_str()).collect();
    if !zeros.is_empty() {
        out.push(format!(
            "{}: all weights are 0, so ‖w‖ cannot limit ‖Δw‖; the limit is twice the loss divided by \
             the gradient norm, which bounds the minimum of any non-negative parabola",
            zeros.join(", ")
        ));
    }
    if let (Some(training), Some(stderr)) = (loss.training, loss.stderr)
        && loss.validation - training <= 2.0 * stderr
    {
        out.push(format!(
            "the validation loss {:.4} is within two standard errors of the training loss \
             {training:.4}, or below it: the model does not overfit, or it was trained on these \
             validation images (set `val_data` to unseen ones), or it was trained on other training images \
             (set `train_data` to those)",
            loss.validation
        ));
    }
    if !planned {
        let beyond = match basis {
            Basis::Calibrated => " beyond temperature scaling",
            Basis::Raw => "",
        };
        out.push(format!(
            "there is no plan: on these {images} images, no layer's cross-fitted ΔL{beyond} is significantly \
             above 0; use more images, or set `perturb` and `update`"
        ));
    }
    out
}
