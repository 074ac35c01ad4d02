//! timm's layout of MLP-Mixer: `MlpMixer` of `timm.models.mlp_mixer` (1.0). Its names are canonical.

use super::Error;
use super::arguments::Arguments;
use super::error::Mismatch;
use super::layout::LayoutPart;
use super::read::{Shapes, compare, nonempty};
use super::reader::Reader;
use super::spelling::index;
use crate::models::mlp_mixer::Config;
use std::collections::BTreeSet;

/// Tensors outside the blocks.
const OUTSIDE: [&str; 6] =
    ["stem.proj.weight", "stem.proj.bias", "norm.weight", "norm.bias", "head.weight", "head.bias"];

/// Tensors of a block.
const INSIDE: [&str; 12] = [
    "norm1.weight",
    "norm1.bias",
    "mlp_tokens.fc1.weight",
    "mlp_tokens.fc1.bias",
    "mlp_tokens.fc2.weight",
    "mlp_tokens.fc2.bias",
    "norm2.weight",
    "norm2.bias",
    "mlp_channels.fc1.weight",
    "mlp_channels.fc1.bias",
    "mlp_channels.fc2.weight",
    "mlp_channels.fc2.bias",
];

/// What planish computes, for error messages.
const COMPUTES: &str = "MLP-Mixers with layer norms, MLPs of two layers with the exact GELU, and the \
     mean over tokens";

/// ε of timm's layer norms in this family.
const EPS: f64 = 1e-6;

/// timm's arguments of `MlpMixer`.
const ARGUMENTS: Arguments = Arguments {
    computes: COMPUTES,
    read: &[
        "embed_dim",
        "global_pool",
        "img_size",
        "in_chans",
        "mlp_ratio",
        "num_blocks",
        "num_classes",
        "patch_size",
    ],
    harmless: &["device", "drop_path_rate", "drop_rate", "dtype", "nlhb", "proj_drop_rate"],
    other: &[
        ("act_layer", "it selects another activation"),
        ("block_layer", "it selects another block"),
        ("mlp_layer", "it selects another MLP"),
        ("norm_layer", "it selects another norm"),
        ("stem_norm", "it puts a norm after the patch projection"),
    ],
    defaults: &[("act_layer", "gelu")],
};

/// The block of a name and the rest of the name.
fn in_block(name: &str) -> Option<(usize, &str)> {
    name.strip_prefix("blocks.").and_then(index)
}

/// The part for a name; `None` if the layout has no such name.
pub(super) fn part(name: &str) -> Option<LayoutPart> {
    let known = match in_block(name) {
        Some((_, rest)) => INSIDE.contains(&rest),
        None => OUTSIDE.contains(&name),
    };
    known.then(|| LayoutPart::whole(name.to_string()))
}

/// The configuration as far as the tensors determine it. The image is one row of patches.
///
/// # Errors
/// What does not fit such a model.
pub(super) fn structure(shapes: &Shapes) -> Result<Config, Box<Mismatch>> {
    nonempty(shapes)?;
    let dim_of = |name: &str, axis: usize| shapes.get(name).and_then(|s| s.get(axis).copied());
    let blocks: BTreeSet<usize> =
        shapes.keys().filter_map(|name| in_block(name)).map(|(i, _)| i).collect();
    let patch = |axis: usize| dim_of("stem.proj.weight", axis).unwrap_or(1);
    let hidden = |mlp: &str| dim_of(&format!("blocks.0.{mlp}.fc1.weight"), 0).unwrap_or(0);
    let tokens = dim_of("blocks.0.mlp_tokens.fc1.weight", 1).unwrap_or(1);
    let config = Config {
        image_size: [patch(2), patch(3).saturating_mul(tokens)],
        patch_size: [patch(2), patch(3)],
        channels: patch(1),
        dim: dim_of("stem.proj.weight", 0).or(dim_of("head.weight", 1)).unwrap_or(0),
        depth: blocks.len(),
        token_mlp_dim: hidden("mlp_tokens"),
        channel_mlp_dim: hidden("mlp_channels"),
        classes: dim_of("head.weight", 0).or(dim_of("head.bias", 0)).unwrap_or(0),
        eps: EPS,
    };
    let mut mismatch = compare(config.declare().params(), shapes, None);
    if config.depth == 0 {
        mismatch.missing.push("blocks.0".into());
    }
    if mismatch.is_empty() { Ok(config) } else { Err(Box::new(mismatch)) }
}

impl Reader<'_> {
    /// Completes the configuration of the tensors.
    ///
    /// # Errors
    /// Contradictions, and settings of networks that planish does not compute.
    pub fn complete_mixer(&mut self, mut config: Config) -> Result<Config, Error> {
        self.refuse_heads()?;
        self.check_patch_size(config.patch_size)?;
        if let Some(settings) = self.settings {
            ARGUMENTS.check(settings)?;
            self.check_top_level(settings, &ARGUMENTS)?;
            for key in ["model_args.global_pool", "global_pool"] {
                if settings.text(key)?.is_some_and(|pool| pool != "avg") {
                    let means = "it selects another pooling";
                    return Err(settings.not_computed(key, means, COMPUTES, "use a mean"));
                }
            }
            let place = settings.place.as_str();
            for (key, shown, tensor) in [
                ("num_classes", config.classes, "`head.weight`"),
                ("model_args.num_classes", config.classes, "`head.weight`"),
                ("model_args.embed_dim", config.dim, "`stem.proj.weight`"),
                ("model_args.num_blocks", config.depth, "`blocks.*`"),
                ("model_args.in_chans", config.channels, "`stem.proj.weight`"),
            ] {
                if let Some(stated) = settings.count(key)?.filter(|&stated| stated != shown) {
                    return Err(self.contradiction(place, key, stated, shown, tensor));
                }
            }
        }
        if let Some(settings) = self.settings {
            let place = settings.place.as_str();
            let key = "model_args.patch_size";
            if let Some(stated) = settings.pair(key)?.filter(|&p| p != config.patch_size) {
                let tensor = "`stem.proj.weight`";
                return Err(self.contradiction(place, key, stated, config.patch_size, tensor));
            }
            let key = "model_args.mlp_ratio";
            let shown = [config.token_mlp_dim, config.channel_mlp_dim];
            if let Some(ratios) = settings.numbers(key).ok().flatten() {
                let stated = ratios.iter().map(|&r| (f64::from(r) * config.dim as f64) as usize);
                if !stated.eq(shown) {
                    return Err(self.contradiction(place, key, ratios, shown, "the MLPs"));
                }
            }
        }
        config.image_size = self.size_of_grid(config.tokens(), config.patch_size)?;
        self.note_name(&["mixer_"])?;
        self.assumed.push(format!("layer norm ε: {:e}", config.eps));
        self.assumed.push("activation: exact GELU".into());
        Ok(config)
    }
}
