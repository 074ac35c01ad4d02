//! Summary and warnings of a diagnosis, in sentences.

use super::plan::is_eligible;
use crate::diagnose::findings::{LayerResult, Loss};

/// Splits the gap into the gain from a temperature and the further gain from the best layer.
pub(super) fn summary(loss: &Loss, layers: &[LayerResult]) -> String {
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
    let beyond = |l: &LayerResult| l.delta_l_calibrated_nats.cross_fit.unwrap_or(f64::NEG_INFINITY);
    let sure = |l: &&LayerResult| is_eligible((beyond(l), l.delta_l_calibrated_nats.stderr));
    let best = layers.iter().filter(sure).reduce(|a, b| if beyond(b) > beyond(a) { b } else { a });
    let rest = match best {
        Some(layer) => {
            let stderr = layer.delta_l_calibrated_nats.stderr.unwrap_or(0.0);
            format!(
                "beyond that, moving one layer removes at most {:.4} ± {stderr:.4} ({}).",
                beyond(layer),
                layer.name
            )
        }
        None => "beyond that, moving one layer gives no gain that is significant on these images."
            .into(),
    };
    start + &rest
}

pub(super) fn warnings(
    loss: &Loss,
    layers: &[LayerResult],
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
    let (measured, passed) = (layers.len(), layers.iter().filter(|l| l.eligible).count());
    // By chance, one layer in forty exceeds 1.96 standard errors even if there is nothing to gain.
    if passed > 0 && passed <= measured.div_ceil(20) && measured >= 20 {
        out.push(format!(
            "{passed} of {measured} layers are eligible, and about {:.0} would be by chance alone: \
             before acting on this, measure on other images or use a coarser `granularity`",
            (measured as f64 / 40.0).ceil()
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
        out.push(format!(
            "there is no plan, because no layer's cross-fit ΔL exceeds 1.96 standard errors on \
             {images} images: use more images, or set `perturb` and `update`"
        ));
    }
    out
}
