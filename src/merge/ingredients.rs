//! Checkpoints to merge.

use crate::pretrained::Misfit;

/// Why checkpoints cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They do not belong together.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// Too few or too many checkpoints.
    #[error("the method {method} merges {expected}, found {found}")]
    Count {
        /// The method.
        method: &'static str,
        /// How many it merges.
        expected: &'static str,
        /// How many were given.
        found: usize,
    },
}
