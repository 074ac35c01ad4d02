//! Weights between those before fine-tuning, w⁰, and those after it, w. Computed in f64 and returned
//! in f32.

use crate::models::{Network, Weights};
use candle_core::{DType, Result};

/// w⁰ + α (w − w⁰) for the tensors of `moved`; all others stay w: WiSE-FT (Wortsman et al., CVPR
/// 2022).
///
/// # Errors
/// Tensor operations.
pub fn interpolate(
    tuned: &Weights,
    pretrained: &Weights,
    moved: &[usize],
    alpha: f64,
) -> Result<Weights> {
    scaled(tuned, pretrained, moved, |_| alpha)
}

/// w⁰ + λ_ℓ (w − w⁰) for the tensors of `moved`, with λ_ℓ = α + (1 − α) ℓ/(L − 1) for layer ℓ of L,
/// from 0: LiNeS (Wang et al., ICLR 2025). The first layer keeps the share α of its change, the last
/// layer all of it.
///
/// # Errors
/// Tensor operations.
pub fn lines(
    network: &Network,
    tuned: &Weights,
    pretrained: &Weights,
    moved: &[usize],
    alpha: f64,
) -> Result<Weights> {
    let layers = network.blocks();
    let last = layers.len().saturating_sub(1).max(1) as f64;
    let depth = |i: usize| layers.iter().position(|layer| layer.tensors.contains(&i)).unwrap_or(0);
    scaled(tuned, pretrained, moved, |i| alpha + (1.0 - alpha) * depth(i) as f64 / last)
}

fn scaled(
    tuned: &Weights,
    pretrained: &Weights,
    moved: &[usize],
    share: impl Fn(usize) -> f64,
) -> Result<Weights> {
    let mut out = Vec::new();
    for &i in moved {
        let share = share(i);
        // The ends are exact: a difference in f64 may round.
        let tensor = if share == 1.0 {
            tuned.tensor(i).clone()
        } else if share == 0.0 {
            pretrained.tensor(i).clone()
        } else {
            let [w, w0] = [tuned, pretrained].map(|w| w.tensor(i).to_dtype(DType::F64));
            let (w, w0) = (w?, w0?);
            (&w0 + ((w - &w0)? * share)?)?.to_dtype(DType::F32)?
        };
        out.push((i, tensor));
    }
    Ok(tuned.with(&out))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::models::arch;
    use candle_core::{Device, Tensor};
    use std::sync::Arc;

    /// A network with two narrow blocks.
    pub(crate) fn network() -> Arc<Network> {
        let mut config = arch::vit("vit_nano_patch7_28", 3, 1).unwrap();
        (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 2, 2, 16);
        Arc::new(config.network().unwrap())
    }

    /// Weights by tensor and position.
    pub(crate) fn filled(network: &Network, of: impl Fn(usize, usize) -> f64) -> Weights {
        let tensors = network.params().iter().enumerate().map(|(i, param)| {
            let n: usize = param.shape.iter().product();
            let values: Vec<f32> = (0..n).map(|j| of(i, j) as f32).collect();
            Tensor::from_vec(values, param.shape.as_slice(), &Device::Cpu).unwrap()
        });
        Weights::new(network, tensors.collect()).unwrap()
    }

    /// The numbers of a tensor.
    pub(crate) fn values(weights: &Weights, i: usize) -> Vec<f64> {
        let tensor = weights.tensor(i).to_dtype(DType::F64).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn lines_scales_changes_linearly_in_depth() {
        let network = network();
        let (tuned, pretrained) = (filled(&network, |_, _| 1.0), filled(&network, |_, _| 0.0));
        let all: Vec<usize> = (0..network.params().len()).collect();
        let merged = lines(&network, &tuned, &pretrained, &all, 0.2).unwrap();
        let layers = network.blocks();
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["embed", "block.0", "block.1", "norm", "head"]);
        for (layer, expected) in layers.iter().zip([0.2f32, 0.4, 0.6, 0.8, 1.0]) {
            for &i in &layer.tensors {
                let found = values(&merged, i);
                assert!(found.iter().all(|x| (x - f64::from(expected)).abs() < 1e-7), "{found:?}");
            }
        }
    }
}
