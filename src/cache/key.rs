//! Cache keys: a fingerprint of everything that activations depend on.
//!
//! A fingerprint cannot detect a build that computes differently, or a processor that rounds
//! differently. [`crate::train::Source`] detects both: it recomputes a few rows of a file before it
//! uses the file.

use super::ActivationDtype;
use crate::engine::{Engine, Precision};
use crate::fingerprint::fingerprint;
use crate::models::layers::layers;
use crate::models::{Config, Granularity, Network, Weights};
use candle_core::Tensor;
use planish_kernels::simd::Simd;
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Schema of the fingerprint, and of the file's layout.
pub const FORMAT: &str = "planish/activations/2";

/// Dependencies of cached activations.
pub struct Frozen<'a> {
    /// The network.
    pub network: &'a Network,
    /// All weights. The key uses those of the stages below.
    pub weights: &'a Weights,
    /// The stage whose input is cached.
    pub stage: usize,
    /// Fingerprint of the images and of their resizing to the model's size; see
    /// [`crate::objective::Examples::fingerprint`].
    pub images: &'a str,
    /// Number of images per forward pass, because the rounding of matrix products depends on it.
    pub micro_batch: usize,
    /// Precision of the layers' products.
    pub precision: Precision,
    /// What computes the activations.
    pub engine: &'a Engine,
    /// The stored type.
    pub stored: ActivationDtype,
}

/// The serialised form of [`Frozen`].
#[derive(Serialize)]
struct Spec<'a> {
    version: &'a str,
    rounding: &'a str,
    architecture: &'a Config,
    stage: usize,
    micro_batch: usize,
    precision: &'a str,
    stored: &'a str,
    images: &'a str,
    /// Name and digest of every tensor below the stage.
    tensors: Vec<(&'a str, String)>,
}

/// The key, 64 hexadecimal digits. It is the fingerprint of planish's version, the processor's
/// vector instructions (or the GPU), architecture, stage, precision, images with their transform,
/// and the names, shapes and values of the tensors of the stages below. Labels, and weights of this
/// stage or above, have no effect.
///
/// # Errors
/// A tensor that is not of a float type.
pub fn key(of: &Frozen) -> super::Result<String> {
    let below: Vec<usize> = layers(of.network, Granularity::Tensor)
        .into_iter()
        .filter(|tensor| tensor.first_stage < of.stage)
        .flat_map(|tensor| tensor.tensors)
        .collect();
    let named = |&i: &usize| -> super::Result<(&str, String)> {
        Ok((of.weights.names()[i].as_str(), digest(of.weights.tensor(i))?))
    };
    let tensors = below.par_iter().map(named).collect::<super::Result<_>>()?;
    let spec = Spec {
        version: env!("CARGO_PKG_VERSION"),
        rounding: of.engine.rounding().unwrap_or_else(|| Simd::best().name()),
        architecture: of.network.config(),
        stage: of.stage,
        micro_batch: of.micro_batch,
        precision: of.precision.name(),
        stored: of.stored.name(),
        images: of.images,
        tensors,
    };
    Ok(fingerprint(FORMAT, &spec)?)
}

/// SHA-256, in hexadecimal, of a tensor's type, shape and values.
///
/// # Errors
/// A tensor that is not of a float type.
pub fn digest(tensor: &Tensor) -> super::Result<String> {
    let mut hash = Sha256::new();
    hash.update(fingerprint("planish/tensor/1", &(tensor.dtype().as_str(), tensor.dims()))?);
    hash.update(ActivationDtype::of(tensor.dtype(), false).encode(tensor)?);
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
