//! Why curvature cannot be told.

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be evaluated.
    #[error(transparent)]
    Objective(#[from] crate::objective::Error),
    /// A vector of another length than the operator's dimension.
    #[error("expected a vector of {expected} numbers, found {found}")]
    Length {
        /// n.
        expected: usize,
        /// What was given.
        found: usize,
    },
}

/// Result of an estimate.
pub type Result<T> = std::result::Result<T, Error>;
