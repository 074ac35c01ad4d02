//! What Google's JAX code computes besides the parameters of its Vision Transformers, as timm's
//! configuration.

use super::contents::StoredTensor;
use super::read::Shapes;
use super::{Layout, timm};
use crate::models::arch::{pooling_name, timm_architecture};
use crate::models::vit::{Activation, Distillation, Pooling};
use serde_json::json;

/// What writes these files, for error messages.
pub(super) const WRITER: &str = "numpy.savez";

/// timm's configuration of a model with these tensors; `None` if they form none, which is reported
/// later with all names.
///
/// `jax.nn.gelu` is the tanh approximation. Pixels are scaled to -1 to 1. For evaluation, the code
/// resizes images to the model's size with a bilinear filter, ignoring the aspect ratio.
pub(super) fn configuration(tensors: &[StoredTensor], heads: Option<usize>) -> Option<String> {
    let own = tensors.iter().filter(|tensor| timm::part(&tensor.name).is_some());
    let shapes: Shapes = own.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    let rows = *shapes.get("pos_embed")?.get(1)?;
    let mut config = timm::structure(&shapes, Layout::Timm, Distillation::None).ok()?;
    let patches = rows.checked_sub(usize::from(config.class_token))?;
    let side = patches.isqrt();
    if side == 0 || side * side != patches {
        return None;
    }
    config.heads = heads?;
    config.image_size = config.patch_size.map(|pixels| pixels.saturating_mul(side));
    config.position_covers_prefix = config.class_token;
    config.activation = Activation::GeluTanh;
    config.pooling = if config.class_token { Pooling::Token } else { Pooling::Mean };
    let (architecture, model_args) = timm_architecture(&config);
    let [height, width] = config.image_size;
    let out = json!({
        "architecture": architecture,
        "num_classes": config.classes,
        "num_features": config.dim,
        "global_pool": pooling_name(config.pooling),
        "model_args": model_args,
        "pretrained_cfg": {
            "custom_load": false,
            "input_size": [config.channels, height, width],
            "fixed_input_size": true,
            "num_classes": config.classes,
            "pool_size": null,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "interpolation": "bilinear",
            "crop_mode": "squash",
            "crop_pct": 1.0,
            "mean": vec![0.5; config.channels],
            "std": vec![0.5; config.channels],
        },
    });
    Some(format!("{out:#}\n"))
}
