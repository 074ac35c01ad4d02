//! Errors of evaluating the model.

/// Why the model could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation rejected its operands.
    #[error(transparent)]
    Kernel(#[from] planish_kernels::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The GPU has no room for data that must be there.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// Images could not be read or prepared.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// Cached activations could not be read or written.
    #[error(transparent)]
    Cache(#[from] crate::cache::Error),
    /// The logits are not valid predictions.
    #[error(transparent)]
    Predictions(#[from] crate::predictions::Error),
    /// The loss is not a finite number.
    #[error(
        "the loss of examples {from}..{to} is {loss}: check the checkpoint for NaN or infinite weights, \
         and the normalisation of the images (`planish inspect` shows both)"
    )]
    NonFinite {
        /// First example of the micro-batch.
        from: usize,
        /// One past its last example.
        to: usize,
        /// The sum of losses found.
        loss: f64,
    },
    /// A matrix-vector product is not finite.
    #[error(
        "layer {layer}: the product with a vector is not finite; the first NaN or infinity is on \
         examples {from}..{to} in the {way} pass, in operation \"{op}\" of {place}; use a shorter \
         vector, or f64"
    )]
    NonFiniteProduct {
        /// Name of the layer.
        layer: String,
        /// First example of the micro-batch.
        from: usize,
        /// One past its last example.
        to: usize,
        /// Forward or backward pass.
        way: &'static str,
        /// The operation.
        op: &'static str,
        /// Its model stage.
        place: String,
    },
    /// The set of examples is empty.
    #[error("no examples: the loss is a mean over at least one")]
    NoExamples,
    /// The direction does not match the layer.
    #[error("layer {layer}: expected {expected} direction tensors, found {found}")]
    Direction {
        /// The layer.
        layer: String,
        /// Number of tensors of the layer.
        expected: usize,
        /// Tensors given.
        found: usize,
    },
}

/// Result of an evaluation.
pub type Result<T> = std::result::Result<T, Error>;
