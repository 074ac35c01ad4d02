//! The name of kept activations: a digest of all that they follow from.
//!
//! What is hashed is told apart by its length, so that no two lists of parts have the same bytes.
//! Two things that a digest cannot see, a build that computes otherwise and a processor that rounds
//! otherwise, are caught by [`crate::train::Source`], which computes a few rows of a file anew
//! before it is used.

use super::Stored;
use crate::device;
use crate::vit::layers::layers;
use crate::vit::{Config, Granularity, Weights};
use candle_core::Tensor;
use planish_kernels::Precision;
use planish_kernels::simd::Simd;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Version of the file's layout and of what is hashed.
const FORMAT: &str = "1";

/// What activations follow from.
pub struct Frozen<'a> {
    /// The architecture.
    pub config: &'a Config,
    /// All weights, of which those of the stages below count.
    pub weights: &'a Weights,
    /// The stage whose input is kept.
    pub stage: usize,
    /// What the images are and how they are brought to the model's size; see
    /// [`crate::objective::Examples::identity`].
    pub images: &'a str,
    /// Images that go through the model together: products of few rows round as their size has it.
    pub micro_batch: usize,
    /// How the layers' products take their operands.
    pub precision: Precision,
    /// The type kept.
    pub stored: Stored,
}

/// The key, 64 hexadecimal digits: SHA-256 of format, version, processor's registers (or the GPU), architecture,
/// stage, precision, images with their transform, and the names, shapes and values of the tensors that the
/// stages below use. Labels, and weights of the stage or above, do not count.
///
/// # Errors
/// A tensor that is not of floats.
pub fn key(of: &Frozen) -> super::Result<String> {
    let below: Vec<usize> = layers(of.config, Granularity::Tensor)
        .into_iter()
        .filter(|tensor| tensor.first_stage < of.stage)
        .flat_map(|tensor| tensor.tensors)
        .collect();
    let digests: Vec<super::Result<String>> =
        below.par_iter().map(|&i| digest(of.weights.tensor(i))).collect();
    let mut parts = vec![
        "planish activations".to_owned(),
        FORMAT.to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
        device::rounding().map_or_else(|| format!("{:?}", Simd::best()), str::to_owned),
        format!("{:?}", of.config),
        of.stage.to_string(),
        of.micro_batch.to_string(),
        of.precision.name().to_owned(),
        of.stored.name().to_owned(),
        of.images.to_owned(),
    ];
    for (i, digest) in below.into_iter().zip(digests) {
        parts.push(of.weights.names()[i].clone());
        parts.push(digest?);
    }
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256, in hexadecimal, of a tensor's type, shape and values.
///
/// # Errors
/// A tensor that is not of floats.
pub fn digest(tensor: &Tensor) -> super::Result<String> {
    let mut hash = Sha256::new();
    let about = format!("{:?} {:?}", tensor.dtype(), tensor.dims());
    hash.update((about.len() as u64).to_le_bytes());
    hash.update(about.as_bytes());
    hash.update(Stored::of(tensor.dtype(), false).encode(tensor)?);
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
