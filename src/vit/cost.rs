//! Operations and memory of a forward pass by stage, used by forecasts.

use super::{Config, Layer, stages};
use std::ops::Range;

/// Floating-point operations of one image's forward pass through some stages. A multiply-add counts
/// as two. Matrix products only; the rest is below two percent.
pub fn forward(config: &Config, range: Range<usize>) -> f64 {
    range.map(|stage| stage_cost(config, stage)).sum()
}

fn stage_cost(config: &Config, stage: usize) -> f64 {
    let [t, d, m] = [config.tokens(), config.dim, config.mlp_dim].map(|n| n as f64);
    let [patches, inputs] = [
        config.grid()[0] * config.grid()[1],
        config.channels * config.patch_size[0] * config.patch_size[1],
    ]
    .map(|n| n as f64);
    // Query tokens of a block's attention, which also pass through its MLP.
    let asking = |block: usize| config.tokens_after(block) as f64;
    match stage {
        0 => 2.0 * patches * inputs * d,
        s if s == 2 * config.depth + 1 => 0.0,
        s if s == 2 * config.depth + 2 => 2.0 * config.features() as f64 * config.classes as f64,
        s if s % 2 == 1 => {
            let q = asking((s - 1) / 2);
            4.0 * (q + t) * d * d + 4.0 * q * t * d
        }
        s => 4.0 * asking(s / 2 - 1) * d * m,
    }
}

/// A forward pass from the layer's input to the logits.
pub fn suffix(config: &Config, layer: &Layer) -> f64 {
    forward(config, layer.first_stage..stages(config))
}

/// The layer's own share of a forward pass.
pub fn own(config: &Config, layer: &Layer) -> f64 {
    forward(config, layer.first_stage..layer.last_stage + 1)
}

/// Gradient of one layer from its input: forward pass, backward pass to the layer, and the product
/// for its own weights.
pub fn gradient(config: &Config, layer: &Layer) -> f64 {
    2.0 * suffix(config, layer) + own(config, layer)
}

/// Gradient and Hessian-vector product of one layer from its input: every product of the gradient
/// twice, those of the layer's weights three times.
pub fn hvp(config: &Config, layer: &Layer) -> f64 {
    4.0 * suffix(config, layer) + 3.0 * own(config, layer)
}

/// Hessian-vector products of all these layers, in one pass from the lowest layer's input: forward
/// and backward pass of the values, then forward and backward pass of each layer's tangents, with
/// the products of its own weights.
pub fn sweep(config: &Config, layers: &[&Layer]) -> f64 {
    let lowest = layers.iter().min_by_key(|layer| layer.first_stage);
    let values = lowest.map_or(0.0, |l| 2.0 * suffix(config, l) + own(config, l));
    let tangents = |layer: &&Layer| 2.0 * suffix(config, layer) + 5.0 * own(config, layer);
    values + layers.iter().map(tangents).sum::<f64>()
}

/// Elements that a gradient keeps on the tape for one image. Per block: the inputs of two norms and
/// of four linear layers, the query-key-value buffer, and the sums in between.
pub fn kept_per_image(config: &Config) -> usize {
    kept_above(config, 0)
}

/// The same for the part above a stage's input. Above the blocks, the norm's input of one token.
pub fn kept_above(config: &Config, stage: usize) -> usize {
    // Stages 2b + 1 and 2b + 2 are block b's. A block that starts half-way counts as a whole.
    let blocks = stage.saturating_sub(1) / 2..config.depth;
    blocks.map(|block| kept_by(config, block)).sum::<usize>().max(config.dim)
}

/// The same with activation checkpointing: the blocks' inputs, and one block.
pub fn kept_recomputing(config: &Config) -> usize {
    let inputs = config.depth * config.tokens() * config.dim;
    inputs + (0..config.depth).map(|block| kept_by(config, block)).max().unwrap_or(0)
}

fn kept_by(config: &Config, block: usize) -> usize {
    let (t, asking) = (config.tokens(), config.tokens_after(block));
    4 * (t + asking) * config.dim + 2 * asking * config.mlp_dim
}
