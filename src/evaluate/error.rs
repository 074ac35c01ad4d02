//! Errors of computing metrics.

use crate::predictions;

/// Why a metric cannot be computed.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// The logits and labels are not valid.
    #[error(transparent)]
    Predictions(#[from] predictions::Error),
    /// Paired samples must be of the same images.
    #[error("cannot pair {a} values with {b}; score both models on the same images")]
    Unpaired {
        /// Values on the first side.
        a: usize,
        /// Values on the second side.
        b: usize,
    },
}
