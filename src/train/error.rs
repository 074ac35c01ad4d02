//! Why training stops.

use super::guard::Stopped;

/// What can go wrong while weights are changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be evaluated.
    #[error(transparent)]
    Objective(#[from] crate::objective::Error),
    /// The GPU cannot hold what has to lie there.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// Images cannot be read, ordered or prepared.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// Figures cannot be computed.
    #[error(transparent)]
    Evaluate(#[from] crate::evaluate::Error),
    /// The layer or the weights do not fit the model.
    #[error(transparent)]
    Model(#[from] crate::vit::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An operation refused its operands.
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
    /// SAM on normalisation layers alone, where there are none.
    #[error(
        "`method` sam-norm, layer {layer}: expected a normalisation layer in it to perturb, found \
         none; update a block, `norm` or all layers, or choose `method` sam"
    )]
    NoNorms {
        /// The layer that is to be updated.
        layer: String,
    },
    /// Weights and gradients that do not belong together.
    #[error(
        "optimizer, {place}: expected {expected}, found {found}; give each step the same tensors, \
         in the same order, in f32 or f64"
    )]
    Mismatch {
        /// Which tensor, or what of all of them.
        place: String,
        /// What would do.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A run was stopped before any epoch ended well.
    #[error("{0}; lower `lr`, or add `warmup` or `clip`")]
    Diverged(Stopped),
}

/// Result of a training step or run.
pub type Result<T> = std::result::Result<T, Error>;
