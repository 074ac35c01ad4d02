//! Why the model cannot be evaluated.

/// What can go wrong while evaluating the model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation refused its operands.
    #[error(transparent)]
    Kernel(#[from] planish_kernels::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The GPU cannot hold what has to lie there.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// Images could not be read or prepared.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// Kept activations could not be read or written.
    #[error(transparent)]
    Cache(#[from] crate::cache::Error),
    /// Logits that no metric can be computed from.
    #[error(transparent)]
    Predictions(#[from] crate::evaluate::Error),
    /// The loss is not a finite number.
    #[error(
        "the loss of examples {from}..{to} is {loss}: look for NaN or infinite weights in the \
         checkpoint and for wrong normalisation of the images (`planish inspect` shows both)"
    )]
    NonFinite {
        /// First example of the micro-batch.
        from: usize,
        /// One past its last example.
        to: usize,
        /// The sum of losses found.
        loss: f64,
    },
    /// A product with a vector is not finite.
    #[error(
        "layer {layer}: the product with a vector is not finite: on examples {from}..{to} it first \
         is so {way}, in operation `{op}` of {place}; give a vector of moderate length, or use f64"
    )]
    NonFiniteProduct {
        /// The layer whose product it is.
        layer: String,
        /// First example of the micro-batch.
        from: usize,
        /// One past its last example.
        to: usize,
        /// On the way up or back.
        way: &'static str,
        /// The operation.
        op: &'static str,
        /// Its stage of the model.
        place: String,
    },
    /// There is nothing to average over.
    #[error("no examples: the loss is a mean over at least one")]
    NoExamples,
    /// A direction that does not match the layer.
    #[error("layer {layer}: expected {expected} direction tensors, found {found}")]
    Direction {
        /// The layer.
        layer: String,
        /// Its number of tensors.
        expected: usize,
        /// Tensors given.
        found: usize,
    },
}

/// Result of an evaluation.
pub type Result<T> = std::result::Result<T, Error>;
