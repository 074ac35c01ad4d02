//! Layers whose gradients are held at the same time.
//!
//! Gradients of all layers come from one backward pass, but those of all blocks of V need a multiple of the
//! model's memory. Large models are therefore measured in groups of layers. A group costs a pass from its
//! lowest layer on.

use super::halvings::block_count;
use crate::models::{Layer, Network};

/// Most numbers of gradients held at a time, unless one layer has more: 1 GiB in f32.
const MOST: usize = 1 << 28;

/// The layers by `first_stage`, in groups whose gradients on all blocks are held at a time.
pub(super) fn groups(network: &Network, layers: &[Layer], repeats: usize) -> Vec<Vec<Layer>> {
    let mut order = layers.to_vec();
    order.sort_by_key(|layer| layer.first_stage);
    let sizes: Vec<usize> = order.iter().map(|layer| size(network, layer)).collect();
    let mut order = order.into_iter();
    let counts = counts(&sizes, MOST / block_count(repeats));
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

    #[test]
    fn groups_are_as_large_as_allowed() {
        assert_eq!(counts(&[3, 3, 4, 11, 1, 9, 1], 10), [3, 1, 2, 1]);
        assert_eq!(counts(&[3, 3], 100), [2]);
        assert!(counts(&[], 10).is_empty());
    }
}
