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
    /// An operator on no numbers.
    #[error("expected an operator of dimension 1 or more, found 0: choose a layer with weights")]
    ZeroDimension,
    /// An operator that answered with another number of products than it was given vectors.
    #[error("expected {expected} products of the operator, found {found}")]
    Count {
        /// Vectors given.
        expected: usize,
        /// Products returned.
        found: usize,
    },
    /// A number that is infinite or none.
    #[error(
        "{what}, number {position}: expected a finite number, found {value}; the loss has no \
         second derivative there, or exceeds its number format (try f64, or other weights)"
    )]
    NonFinite {
        /// Of which vector.
        what: &'static str,
        /// Where, from 0.
        position: usize,
        /// What was found.
        value: f64,
    },
    /// A setting of an estimator out of its range.
    #[error("setting {name}: expected {expected}, found {found}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it was.
        found: String,
    },
    /// The eigenvalues of a projected matrix did not come out.
    #[error(
        "the eigenvalues of a projected matrix ({size}, {size}): expected QR iterations to \
         converge, found that they did not; try another seed"
    )]
    Projected {
        /// Its size.
        size: usize,
    },
}

/// Result of an estimate.
pub type Result<T> = std::result::Result<T, Error>;

/// [`Error::Setting`] unless `holds`.
pub(super) fn require(
    holds: bool,
    name: &'static str,
    expected: &'static str,
    found: impl ToString,
) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Setting { name, expected, found: found.to_string() }) }
}
