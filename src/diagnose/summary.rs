//! What a reader should know of a diagnosis, in sentences.

use super::plan::is_eligible;
use crate::report::diagnosis::{LayerResult, Loss};

/// How the gap divides: what a temperature wins, and what the best layer wins beyond it.
pub(super) fn summary(loss: &Loss, layers: &[LayerResult]) -> String {
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
        _ => "beyond that, moving one layer offers nothing that these images can show.".into(),
    };
    start + &rest
}

pub(super) fn warnings(loss: &Loss, planned: bool, images: usize) -> Vec<String> {
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
