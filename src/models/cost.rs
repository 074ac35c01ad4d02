//! Operations and memory of parts of a network, from its trace. Forecasts use them.

use super::{Layer, Network};
use std::ops::Range;

/// Floating-point operations of one image's forward pass through some stages. A multiply-add counts
/// as two. Matrix products and convolutions only; the rest is below two percent.
pub fn forward(network: &Network, range: Range<usize>) -> f64 {
    range.filter_map(|stage| network.trace(stage)).map(|stage| stage.flops).sum()
}

/// A forward pass from the layer's input to the logits.
pub fn suffix(network: &Network, layer: &Layer) -> f64 {
    forward(network, layer.first_stage..network.stages())
}

/// The layer's own share of a forward pass.
pub fn own(network: &Network, layer: &Layer) -> f64 {
    forward(network, layer.first_stage..layer.last_stage + 1)
}

/// Gradient of one layer from its input: forward pass, backward pass to the layer, and the product
/// for its own weights.
pub fn gradient(network: &Network, layer: &Layer) -> f64 {
    2.0 * suffix(network, layer) + own(network, layer)
}

/// Gradient and Hessian-vector product of one layer from its input: every product of the gradient
/// twice, those of the layer's weights three times.
pub fn hvp(network: &Network, layer: &Layer) -> f64 {
    4.0 * suffix(network, layer) + 3.0 * own(network, layer)
}

/// Hessian-vector products of all these layers, in one pass from the lowest layer's input: forward
/// and backward pass of the values, then forward and backward pass of each layer's tangents, with
/// the products of its own weights.
pub fn sweep(network: &Network, layers: &[&Layer]) -> f64 {
    let lowest = layers.iter().min_by_key(|layer| layer.first_stage);
    let values = lowest.map_or(0.0, |l| 2.0 * suffix(network, l) + own(network, l));
    let tangents = |layer: &&Layer| 2.0 * suffix(network, layer) + 5.0 * own(network, layer);
    values + layers.iter().map(tangents).sum::<f64>()
}

/// Numbers that a gradient saves on the tape for one image.
pub fn saved_per_image(network: &Network) -> usize {
    saved_above(network, 0)
}

/// The same for the part above a stage's input, and at least that input.
pub fn saved_above(network: &Network, stage: usize) -> usize {
    saved_by(network, stage..network.stages()).max(network.activation_len(stage))
}

/// The same with activation checkpointing: the inputs of all units, and the largest unit.
pub fn saved_checkpointed(network: &Network) -> usize {
    let units = units(network, 0);
    let inputs: usize = units.iter().map(|unit| network.activation_len(unit.start)).sum();
    inputs + units.into_iter().map(|unit| saved_by(network, unit)).max().unwrap_or(0)
}

fn saved_by(network: &Network, range: Range<usize>) -> usize {
    range.filter_map(|stage| network.trace(stage)).map(|stage| stage.saved).sum()
}

/// The units of activation checkpointing from stage `from` on: each layer, with the layers at the end
/// in whose weights the logits are linear as one.
pub fn units(network: &Network, from: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = from;
    let trunk = network.trunk_end();
    for layer in network.blocks().iter().filter(|layer| layer.first_stage < trunk) {
        let end = layer.last_stage + 1;
        if end > start {
            parts.push(start..end);
            start = end;
        }
    }
    if start < network.stages() {
        parts.push(start..network.stages());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::vit::Pooling;
    use crate::models::{Config, arch};

    #[test]
    fn operations_match_published_counts() {
        // 10⁹ multiply-adds of a forward pass, as timm's results tables and the papers list them.
        for (name, published) in [
            ("vit_base_patch16_224", 17.58),
            ("vit_small_patch16_224", 4.61),
            ("mixer_b16_224", 12.62),
            ("mixer_s32_224", 1.00),
            ("convnext_tiny", 4.47),
            ("convnext_base", 15.38),
            ("convnextv2_tiny", 4.47),
        ] {
            let mut config = arch::named(name, 1000, 3).unwrap();
            // For the class token alone, the last block would compute less than the counts say.
            if let Config::Vit(vit) = &mut config {
                vit.pooling = Pooling::Mean;
            }
            let network = config.network().unwrap();
            let found = forward(&network, 0..network.stages()) / 2e9;
            assert!((found / published - 1.0).abs() < 0.02, "{name}: {found}");
        }
    }

    #[test]
    fn units_cover_all_stages_once() {
        for name in ["vit_tiny_patch16_224", "mixer_s32_224", "convnext_tiny"] {
            let network = arch::named(name, 10, 3).unwrap().network().unwrap();
            for from in 0..network.stages() {
                let covered: Vec<usize> = units(&network, from).into_iter().flatten().collect();
                assert!(covered.into_iter().eq(from..network.stages()), "{name} from {from}");
            }
            // The norm and the head, in which the logits are linear, are one unit.
            assert_eq!(units(&network, 0).last(), Some(&(network.trunk_end()..network.stages())));
            assert_eq!(network.trunk_end(), network.stages() - 2);
        }
    }
}
