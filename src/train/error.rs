//! Training errors.

use super::guard::Stopped;

/// Anything that can go wrong in training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be evaluated.
    #[error(transparent)]
    Objective(#[from] crate::objective::Error),
    /// The GPU has too little memory.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// Images cannot be read, ordered or prepared.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// Metrics cannot be computed.
    #[error(transparent)]
    Evaluate(#[from] crate::evaluate::Error),
    /// The layer or the weights do not fit the model.
    #[error(transparent)]
    Model(#[from] crate::models::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An operation rejected its operands.
    #[error(transparent)]
    Kernel(#[from] planish_kernels::Error),
    /// More steps than can be counted.
    #[error(
        "{epochs} epochs of {steps} steps: expected fewer steps than {}, found more; lower `epochs`",
        usize::MAX
    )]
    TooLong {
        /// Epochs.
        epochs: usize,
        /// Steps in each.
        steps: usize,
    },
    /// Norm-only SAM on layers without a normalisation layer.
    #[error(
        "`method` sam-norm, layer {layer}: expected a normalisation layer in it to perturb, found \
         none; update a block, `norm` or all layers, or use `method` sam"
    )]
    NoNorms {
        /// The layer to update.
        layer: String,
    },
    /// Weights and gradients that do not match.
    #[error(
        "optimizer, {place}: expected {expected}, found {found}; pass the same tensors to each step, \
         in the same order, in f32 or f64"
    )]
    Mismatch {
        /// Which tensor, or which property of all tensors.
        place: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A run was stopped before any epoch ended well.
    #[error("{0}; lower `lr`, or add `warmup` or `clip`")]
    Diverged(Stopped),
}

/// Result of a training step or run.
pub type Result<T> = std::result::Result<T, Error>;
