//! Parameter groups: tensors that share a learning rate and a weight decay.
//!
//! - Layer-wise decay: layer k of L has the rate d^(L − 1 − k), and the head the full rate, as
//!   `param_groups_layer_decay` of timm for a ViT with a class token. A layer that holds only a norm has
//!   the rate of the layer below it; timm gives `fc_norm` the rate of the head, and the downsampling of a
//!   ConvNeXt that of the block after it.
//! - Auto-RGN (Lee et al., ICLR 2023): the rate of a layer is proportional to ‖g‖/‖w‖, its relative
//!   gradient norm. The largest has the full rate. It is measured at the first step of each epoch.
//! - Weight decay of matrices alone: norms, biases and other tensors with one dimension have none.

use super::Result;
use super::optimizer::{Optimizer, OptimizerRule};
use crate::models::{Layer, Network};
use crate::vector;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// How the tensors of a layer are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grouping {
    /// d of the layer-wise decay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_decay: Option<f64>,
    /// Whether rates follow relative gradient norms.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_rgn: bool,
    /// Whether weight decay applies to tensors with one dimension, too.
    #[serde(skip_serializing_if = "is_true")]
    pub decay_all: bool,
}

impl Default for Grouping {
    fn default() -> Self {
        Self { layer_decay: None, auto_rgn: false, decay_all: true }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

/// One group.
#[derive(Debug)]
struct Group {
    /// Positions in the updated layer's list of tensors.
    positions: Vec<usize>,
    /// Index of the network's layer.
    layer: usize,
    /// Factor of the learning rate.
    factor: f64,
    optimizer: Optimizer,
}

/// The groups of an updated layer, each with its optimizer.
#[derive(Debug)]
pub struct Groups {
    groups: Vec<Group>,
    auto_rgn: bool,
}

impl Groups {
    /// One group of all tensors.
    pub fn whole(layer: &Layer, rule: OptimizerRule, weight_decay: f64) -> Self {
        let positions = (0..layer.tensors.len()).collect();
        let optimizer = Optimizer::new(rule, weight_decay);
        Self {
            groups: vec![Group { positions, layer: 0, factor: 1.0, optimizer }],
            auto_rgn: false,
        }
    }

    /// The groups of `layer`.
    pub fn new(
        network: &Network,
        layer: &Layer,
        grouping: Grouping,
        rule: OptimizerRule,
        weight_decay: f64,
    ) -> Self {
        if grouping == Grouping::default() {
            return Self::whole(layer, rule, weight_decay);
        }
        let depths = depths(network);
        let top = depths.last().copied().unwrap_or(0);
        let mut groups: Vec<(usize, f64, Group)> = Vec::new();
        for (position, &i) in layer.tensors.iter().enumerate() {
            let param = &network.params()[i];
            let of = network.layer_of(i);
            let factor = grouping.layer_decay.map_or(1.0, |d| d.powi((top - depths[of]) as i32));
            let decay = match grouping.decay_all || param.shape.len() > 1 {
                true => weight_decay,
                false => 0.0,
            };
            match groups.iter_mut().find(|(layer, own, _)| (*layer, *own) == (of, decay)) {
                Some((.., group)) => group.positions.push(position),
                None => {
                    let optimizer = Optimizer::new(rule, decay);
                    let group = Group { positions: vec![position], layer: of, factor, optimizer };
                    groups.push((of, decay, group));
                }
            }
        }
        let groups = groups.into_iter().map(|(.., group)| group).collect();
        Self { groups, auto_rgn: grouping.auto_rgn }
    }

    /// Sets the rates that follow relative gradient norms, if any do.
    ///
    /// # Errors
    /// Tensors that do not fit together.
    pub fn measure(&mut self, weights: &[Tensor], gradients: &[Tensor]) -> Result<()> {
        if !self.auto_rgn {
            return Ok(());
        }
        let mut layers: Vec<(usize, Option<f64>)> = Vec::new();
        for group in &self.groups {
            if layers.iter().any(|(layer, _)| *layer == group.layer) {
                continue;
            }
            let same = self.groups.iter().filter(|other| other.layer == group.layer);
            let positions: Vec<usize> = same.flat_map(|g| g.positions.iter().copied()).collect();
            let [w, g] = [weights, gradients].map(|all| vector::norm(&chosen(all, &positions)));
            let (w, g) = (w?, g?);
            // A new head of zeros has no relative gradient.
            layers.push((group.layer, (w > 0.0).then(|| g / w)));
        }
        let most = layers.iter().filter_map(|(_, ratio)| *ratio).fold(0.0, f64::max);
        for group in &mut self.groups {
            let ratio = layers.iter().find(|(layer, _)| *layer == group.layer);
            group.factor = match ratio.and_then(|(_, ratio)| *ratio) {
                Some(ratio) if most > 0.0 => ratio / most,
                _ => 1.0,
            };
        }
        Ok(())
    }

    /// One group for each tensor, so that steps may leave out tensors.
    #[must_use]
    pub fn apart(self) -> Self {
        let alone = |group: Group| {
            let Group { positions, layer, factor, optimizer } = group;
            positions.into_iter().map(move |position| {
                let optimizer = Optimizer::new(optimizer.rule(), optimizer.weight_decay());
                Group { positions: vec![position], layer, factor, optimizer }
            })
        };
        let groups = self.groups.into_iter().flat_map(alone).collect();
        Self { groups, auto_rgn: self.auto_rgn }
    }

    /// The weights after a step on the tensors at `part`, of which `gradients` has one each. Groups with
    /// other tensors do not move, and keep their state.
    ///
    /// # Errors
    /// Those of [`Optimizer::step`].
    pub fn step_part(
        &mut self,
        part: &[usize],
        weights: &[Tensor],
        gradients: &[Tensor],
        rate: f64,
    ) -> Result<Vec<Tensor>> {
        let mut next = weights.to_vec();
        for group in &mut self.groups {
            let place = |position: &usize| part.iter().position(|other| other == position);
            let places: Option<Vec<usize>> = group.positions.iter().map(place).collect();
            let Some(places) = places else { continue };
            let (own, of) = (chosen(weights, &group.positions), chosen(gradients, &places));
            let stepped = group.optimizer.step(&own, &of, group.factor * rate)?;
            for (&position, tensor) in group.positions.iter().zip(stepped) {
                next[position] = tensor;
            }
        }
        Ok(next)
    }

    /// The weights after one step at learning rate `rate`.
    ///
    /// # Errors
    /// Those of [`Optimizer::step`].
    pub fn step(
        &mut self,
        weights: &[Tensor],
        gradients: &[Tensor],
        rate: f64,
    ) -> Result<Vec<Tensor>> {
        let mut next = weights.to_vec();
        for group in &mut self.groups {
            let positions = &group.positions;
            let [own, of] = [weights, gradients].map(|all| chosen(all, positions));
            let stepped = group.optimizer.step(&own, &of, group.factor * rate)?;
            for (&position, tensor) in positions.iter().zip(stepped) {
                next[position] = tensor;
            }
        }
        Ok(next)
    }

    /// Factor of the learning rate and weight decay of each tensor, by position.
    pub fn settings(&self) -> Vec<(f64, f64)> {
        let mut out = Vec::new();
        for group in &self.groups {
            for &position in &group.positions {
                out.push((position, (group.factor, group.optimizer.weight_decay())));
            }
        }
        out.sort_by_key(|(position, _)| *position);
        out.into_iter().map(|(_, settings)| settings).collect()
    }
}

fn chosen(all: &[Tensor], positions: &[usize]) -> Vec<Tensor> {
    positions.iter().filter_map(|&i| all.get(i).cloned()).collect()
}

/// Depth of each layer from the input. A layer that holds only a norm is as deep as the one below it.
fn depths(network: &Network) -> Vec<usize> {
    let mut only_vectors = vec![true; network.layer_count()];
    for (i, param) in network.params().iter().enumerate() {
        only_vectors[network.layer_of(i)] &= param.shape.len() == 1;
    }
    let mut depth = 0;
    let mut out = Vec::with_capacity(only_vectors.len());
    for (i, only_vectors) in only_vectors.into_iter().enumerate() {
        if i > 0 && !only_vectors {
            depth += 1;
        }
        out.push(depth);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::arch;
    use crate::models::layers::everything;
    use candle_core::Device;

    fn small() -> Network {
        let mut config = arch::vit("vit_nano_patch7_14", 3, 1).unwrap();
        (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 3, 2, 16);
        config.network().unwrap()
    }

    const SGD: OptimizerRule = OptimizerRule::Sgd { momentum: 0.0, nesterov: false };

    fn settings(network: &Network, grouping: Grouping) -> Vec<(String, f64, f64)> {
        let all = everything(network);
        let found = Groups::new(network, &all, grouping, SGD, 0.05).settings();
        let name = |&i: &usize| network.params()[i].name.clone();
        let found = all.tensors.iter().map(name).zip(found);
        found.map(|(name, (factor, decay))| (name, factor, decay)).collect()
    }

    /// `param_groups_layer_decay(vit_tiny_patch16_224 of depth 3, layer_decay=0.5)` of timm 1.0.
    #[test]
    fn layer_wise_rates_are_those_of_timm() {
        let network = small();
        let grouping = Grouping { layer_decay: Some(0.5), ..Grouping::default() };
        for (name, factor, decay) in settings(&network, grouping) {
            let expected = match name.split_once('.').map_or(&name[..], |(first, _)| first) {
                "cls_token" | "pos_embed" | "patch_embed" => 0.0625,
                "blocks" if name.starts_with("blocks.0.") => 0.125,
                "blocks" if name.starts_with("blocks.1.") => 0.25,
                "blocks" | "norm" => 0.5,
                "head" => 1.0,
                other => panic!("{other}"),
            };
            assert_eq!((factor, decay), (expected, 0.05), "{name}");
        }
    }

    #[test]
    fn norms_and_biases_have_no_decay_on_request() {
        let network = small();
        let grouping = Grouping { decay_all: false, ..Grouping::default() };
        let found = settings(&network, grouping);
        for (name, factor, decay) in &found {
            let vector = name.ends_with(".bias") || name.contains("norm");
            assert_eq!((*factor, *decay), (1.0, if vector { 0.0 } else { 0.05 }), "{name}");
        }
        assert!(found.iter().any(|(_, _, decay)| *decay == 0.0));
    }

    #[test]
    fn rates_follow_relative_gradient_norms() {
        let network = small();
        let all = everything(&network);
        let grouping = Grouping { auto_rgn: true, decay_all: false, ..Grouping::default() };
        let mut groups = Groups::new(&network, &all, grouping, SGD, 0.0);
        // All weights are 1. Gradients are 4 in the embedding, 2 in block 1, and 1 elsewhere, so the
        // relative norms have the ratios 4 : 2 : 1.
        let constant = |value: &dyn Fn(&str) -> f64| -> Vec<Tensor> {
            let one = |&i: &usize| {
                let param = &network.params()[i];
                Tensor::full(value(&param.name), &param.shape[..], &Device::Cpu).unwrap()
            };
            all.tensors.iter().map(one).collect()
        };
        let gradient = |name: &str| match name {
            name if name.starts_with("blocks.1.") => 2.0,
            "cls_token" | "pos_embed" => 4.0,
            name if name.starts_with("patch_embed") => 4.0,
            _ => 1.0,
        };
        let (weights, gradients) = (constant(&|_| 1.0), constant(&gradient));
        groups.measure(&weights, &gradients).unwrap();
        let next = groups.step(&weights, &gradients, 0.1).unwrap();
        for (&i, next) in all.tensors.iter().zip(&next) {
            let g = gradient(&network.params()[i].name);
            let expected = 1.0 - 0.1 * (g / 4.0) * g;
            let found = next.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(found.iter().all(|x| (x - expected).abs() < 1e-12), "{expected} {found:?}");
        }
        // Without weights there is no relative gradient, and the full rate is used.
        let zeros = constant(&|name| if name.starts_with("head") { 0.0 } else { 1.0 });
        groups.measure(&zeros, &gradients).unwrap();
        let head = all.tensors.iter().position(|&i| network.params()[i].name == "head.weight");
        assert_eq!(groups.settings()[head.unwrap()].0, 1.0);
    }
}
