//! Directions: where each remedy moves the weights.

use super::Remedy;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::models::{Layer, Network, Weights};
use crate::pretrained::Pretrained;
use candle_core::Tensor;
use std::path::Path;

/// A target that weights are moved towards.
pub struct Direction {
    /// The remedy.
    pub remedy: Remedy,
    /// The weights at α = 1. Those of tensors that do not move are not read.
    pub target: Weights,
    /// The tensors that move, ascending.
    pub tensors: Vec<usize>,
    /// The checkpoint of the target, if it is one.
    pub checkpoint: Option<Checkpoint>,
    /// What was left out, for users.
    pub notes: Vec<String>,
}

impl Direction {
    /// Towards the weights of the checkpoint at `path`.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`].
    pub fn toward(path: &Path, tuned: &Checkpoint) -> Result<Self> {
        let found = Pretrained::open(path, tuned)?;
        let Pretrained { checkpoint, weights: target, moved: tensors, notes } = found;
        let (remedy, checkpoint) = (Remedy::Toward(path.into()), Some(checkpoint));
        Ok(Self { remedy, target, tensors, checkpoint, notes })
    }

    /// Towards 0, for weights of linear layers and convolutions.
    ///
    /// # Errors
    /// Tensor operations.
    pub fn decay(tuned: &Checkpoint) -> Result<Self> {
        let tensors = weights_of_products(&tuned.network);
        let zero = |&i: &usize| Ok((i, tuned.weights.tensor(i).zeros_like()?));
        let zeros: Vec<(usize, Tensor)> =
            tensors.iter().map(zero).collect::<candle_core::Result<_>>()?;
        let target = tuned.weights.with(&zeros);
        Ok(Self { remedy: Remedy::Decay, target, tensors, checkpoint: None, notes: Vec::new() })
    }

    /// The layers with the tensors that the remedy changes at these weights. A layer without any is
    /// left out.
    ///
    /// # Errors
    /// Tensor operations.
    pub(super) fn parts(&self, weights: &Weights, layers: &[Layer]) -> Result<Vec<Layer>> {
        let mut out = Vec::new();
        for layer in layers {
            let mut tensors = Vec::new();
            for &i in layer.tensors.iter().filter(|i| self.tensors.binary_search(i).is_ok()) {
                if differ(weights.tensor(i), self.target.tensor(i))? {
                    tensors.push(i);
                }
            }
            if !tensors.is_empty() {
                out.push(Layer { tensors, ..layer.clone() });
            }
        }
        Ok(out)
    }
}

/// Weights of linear layers and convolutions: not biases, norms, tokens, position embeddings or scales
/// per channel.
fn weights_of_products(network: &Network) -> Vec<usize> {
    let params = network.params().iter().enumerate();
    params
        .filter(|(_, p)| p.shape.len() > 1 && p.name.ends_with(".weight"))
        .map(|(i, _)| i)
        .collect()
}

fn differ(a: &Tensor, b: &Tensor) -> candle_core::Result<bool> {
    Ok(a.ne(b)?.to_dtype(candle_core::DType::F32)?.sum_all()?.to_scalar::<f32>()? > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::arch;

    #[test]
    fn decay_moves_weights_of_products_only() {
        for name in ["vit_nano_patch7_28", "mixer_s32_224", "convnextv2_tiny"] {
            let network = arch::named(name, 10, 3).unwrap().network().unwrap();
            let params = network.params();
            let names: Vec<&str> =
                weights_of_products(&network).iter().map(|&i| params[i].name.as_str()).collect();
            assert!(names.iter().any(|name| name.contains("fc1.weight")), "{names:?}");
            for name in names {
                let other = ["norm", "bias", "pos_embed", "reg_token", "gamma", "grn"];
                assert!(!other.iter().any(|part| name.contains(part)), "{name}");
            }
        }
    }
}
