//! Layers whose gradients are held at the same time.
//!
//! Gradients of all layers come from one backward pass, but those of all halves of V need a multiple of the
//! model's memory. Large models are therefore measured in groups of layers. A group costs passes from its
//! lowest layer on.

use crate::models::{Layer, Network};

/// Most numbers of gradients held at a time, unless one layer has more: 1 GiB in f32.
pub(super) const MOST: usize = 1 << 28;

/// The layers by `first_stage`, in groups of which `sets` gradients are held at a time: at most `most` numbers,
/// usually [`MOST`].
pub(super) fn groups(
    network: &Network,
    layers: &[Layer],
    sets: usize,
    most: usize,
) -> Vec<Vec<Layer>> {
    let mut order = layers.to_vec();
    order.sort_by_key(|layer| layer.first_stage);
    let sizes: Vec<usize> = order.iter().map(|layer| size(network, layer)).collect();
    let mut order = order.into_iter();
    let counts = counts(&sizes, most / sets);
    counts.into_iter().map(|n| order.by_ref().take(n).collect()).collect()
}

/// Number of weights.
pub(super) fn size(network: &Network, layer: &Layer) -> usize {
    layer.tensors.iter().map(|&i| network.params()[i].shape.iter().product::<usize>()).sum()
}

/// How many of the sizes go into each group, so that its sum is at most `most` or it has one.
fn counts(sizes: &[usize], most: usize) -> Vec<usize> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for &size in sizes {
        match groups.last_mut() {
            Some((count, sum)) if *sum + size <= most => (*count, *sum) = (*count + 1, *sum + size),
            _ => groups.push((1, size)),
        }
    }
    groups.into_iter().map(|(count, _)| count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Request, diagnose_within};
    use crate::engine::Engine;
    use crate::models::{Weights, arch};
    use crate::objective::{Activations, Objective};
    use candle_core::{Device, Tensor};
    use std::sync::Arc;

    #[test]
    fn groups_do_not_change_the_figures() {
        let mut config = arch::vit("vit_nano_patch7_28", 3, 1).unwrap();
        (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 2, 2, 16);
        let network = Arc::new(config.network().unwrap());
        let weights = Weights::random(&network, 0).unwrap();
        let model = Objective::new(network.clone(), weights, &Engine::cpu());
        const IMAGES: usize = 48;
        let pixel = |i: usize| ((i * 7919) % 257) as f32 / 128.0 - 1.0;
        let values: Vec<f32> = (0..IMAGES * 28 * 28).map(pixel).collect();
        let validation = Activations {
            stage: 0,
            values: Tensor::from_vec(values, (IMAGES, 1, 28, 28), &Device::Cpu).unwrap(),
            labels: (0..IMAGES as u32).map(|i| i % 3).collect(),
        };
        let layers = network.blocks();
        assert_eq!(groups(&network, &layers, 12, 1).len(), layers.len());
        let request = Request::new(&model, &validation, &layers, 3);
        let of = |most| diagnose_within(&request, most, &mut |_| {}).unwrap().layers;
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 + 1e-4 * a.abs();
        for (one, several) in of(MOST).iter().zip(of(1)) {
            assert_eq!(one.name, several.name);
            assert!(close(one.gradient_norm, several.gradient_norm), "{one:?} {several:?}");
            let [a, b] = [one, &several].map(|layer| layer.delta_l_nats);
            assert!(a.cross_fit.is_some_and(|gap| gap != 0.0), "{one:?}");
            let figures =
                |f: crate::diagnose::findings::Fitted| [f.in_sample, f.cross_fit, f.stderr];
            for (a, b) in figures(a).into_iter().zip(figures(b)) {
                assert!(close(a.unwrap(), b.unwrap()), "{one:?} {several:?}");
            }
        }
    }

    #[test]
    fn groups_are_as_large_as_allowed() {
        assert_eq!(counts(&[3, 3, 4, 11, 1, 9, 1], 10), [3, 1, 2, 1]);
        assert_eq!(counts(&[3, 3], 100), [2]);
        assert!(counts(&[], 10).is_empty());
    }
}
