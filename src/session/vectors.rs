//! Vectors in the space of a layer's weights, given by users.

use crate::checkpoint::Checkpoint;
use crate::curvature::flatten;
use crate::models::Layer;
use crate::random::{below, stream};
use crate::session::tensors::read_vector;
use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};

/// Source of a vector.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// The gradient at the weights.
    Gradient,
    /// Random signs with this seed.
    Random(u64),
    /// A safetensors file.
    File(PathBuf),
}

impl std::str::FromStr for Vector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("random:") {
            Some(seed) => seed
                .parse()
                .map(Vector::Random)
                .map_err(|_| "expected a whole number after `random:`, as in random:0".into()),
            None if text == "gradient" => Ok(Vector::Gradient),
            None => Ok(Vector::File(text.into())),
        }
    }
}

impl std::fmt::Display for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Vector::Gradient => write!(f, "gradient"),
            Vector::Random(seed) => write!(f, "random:{seed}"),
            Vector::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Vector {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Vector::File(path) => Some(path),
            _ => None,
        }
    }

    /// The vector, one tensor for each of the layer's; `None` for the gradient.
    ///
    /// # Errors
    /// A file whose tensors are not exactly the layer's.
    pub fn given(
        &self,
        checkpoint: &Checkpoint,
        layer: &Layer,
    ) -> crate::error::Result<Option<Vec<Tensor>>> {
        Ok(match self {
            Vector::Gradient => None,
            Vector::Random(seed) => Some(signs(checkpoint, layer, *seed)?),
            Vector::File(path) => Some(read_vector(path, checkpoint, layer, DType::F64)?),
        })
    }
}

/// A vector of seeded random signs.
fn signs(checkpoint: &Checkpoint, layer: &Layer, seed: u64) -> candle_core::Result<Vec<Tensor>> {
    let mut rng = stream(seed, "hvp vector");
    let mut sign = || if below(&mut rng, 2) == 1 { 1f64 } else { -1.0 };
    let weights = layer.tensors.iter().map(|&i| checkpoint.weights.tensor(i));
    weights
        .map(|w| {
            let signs: Vec<f64> = (0..w.elem_count()).map(|_| sign()).collect();
            Tensor::from_vec(signs, w.shape(), &Device::Cpu)
        })
        .collect()
}

/// The part of a joint layer's vector that belongs to one layer.
///
/// # Errors
/// Tensors that are not real.
pub fn part(joint: &Layer, vector: &[Tensor], layer: &Layer) -> crate::curvature::Result<Vec<f64>> {
    let own = layer.tensors.iter().filter_map(|i| joint.tensors.binary_search(i).ok());
    flatten(&own.map(|k| vector[k].clone()).collect::<Vec<_>>())
}

/// A vector as tensors with the shapes of a layer's weights.
///
/// # Errors
/// A vector of the wrong length.
pub fn shaped(
    checkpoint: &Checkpoint,
    layer: &Layer,
    vector: &[f64],
) -> candle_core::Result<Vec<Tensor>> {
    let mut start = 0;
    let weights = layer.tensors.iter().map(|&i| checkpoint.weights.tensor(i));
    weights
        .map(|w| {
            let range = start..start + w.elem_count();
            start = range.end;
            Tensor::from_slice(&vector[range], w.shape(), &Device::Cpu)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_read() {
        assert_eq!("gradient".parse(), Ok(Vector::Gradient));
        assert_eq!("random:7".parse(), Ok(Vector::Random(7)));
        assert_eq!("v.safetensors".parse(), Ok(Vector::File("v.safetensors".into())));
        assert!("random:x".parse::<Vector>().is_err());
    }
}
