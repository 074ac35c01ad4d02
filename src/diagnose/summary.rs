//! What a reader should know of a diagnosis, in sentences.

use super::plan::is_eligible;
use crate::diagnose::findings::{LayerResult, Loss};

/// How the gap divides: what a temperature wins, and what the best layer wins beyond it.
pub(super) fn summary(loss: &Loss, layers: &[LayerResult]) -> String {
    let over_confidence = loss.validation - loss.calibrated;
    let start = format!(
        "Of the validation loss {:.4}, a temperature of {:.3} wins back {over_confidence:.4}; ",
        loss.validation, loss.temperature
    );
    let beyond = |l: &LayerResult| l.delta_l_calibrated_nats.cross_fit.unwrap_or(f64::NEG_INFINITY);
    let sure = |l: &&LayerResult| is_eligible((beyond(l), l.delta_l_calibrated_nats.stderr));
    let best = layers.iter().filter(sure).reduce(|a, b| if beyond(b) > beyond(a) { b } else { a });
    let rest = match best {
        Some(layer) => {
            let stderr = layer.delta_l_calibrated_nats.stderr.unwrap_or(0.0);
            format!(
                "beyond that, moving one layer offers at most {:.4} ± {stderr:.4} ({}).",
                beyond(layer),
                layer.name
            )
        }
        None => "beyond that, moving one layer offers nothing that these images can show.".into(),
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
            "{}: all weights are 0, so ‖w‖ cannot limit ‖Δw‖; the limit is twice the loss over the \
             gradient's norm, which no parabola above 0 exceeds",
            zeros.join(", ")
        ));
    }
    let (measured, passed) = (layers.len(), layers.iter().filter(|l| l.eligible).count());
    // One layer in forty exceeds 1.96 standard errors though there is nothing to win.
    if passed > 0 && passed <= measured.div_ceil(20) && measured >= 20 {
        out.push(format!(
            "of {measured} layers, about {:.0} would be eligible by chance alone, and {passed} are: \
             measure on other images, or cut less finely, before acting on it",
            (measured as f64 / 40.0).ceil()
        ));
    }
    if let (Some(training), Some(stderr)) = (loss.training, loss.stderr)
        && loss.validation - training <= 2.0 * stderr
    {
        out.push(format!(
            "the validation loss {:.4} is no more than two standard errors above the training loss \
                 {training:.4}: either the model does not over-fit, or it was trained on these \
                 validation images (give unseen ones with --val-data), or on few of these training \
                 images (name those with --train-data)",
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
