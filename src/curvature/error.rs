//! Errors of curvature estimates.

/// Why an estimate failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be evaluated.
    #[error(transparent)]
    Objective(#[from] crate::objective::Error),
    /// The vector's length differs from the operator's dimension.
    #[error("expected a vector of {expected} numbers, found {found}")]
    Length {
        /// n.
        expected: usize,
        /// Length given.
        found: usize,
    },
    /// The operator has dimension 0.
    #[error("expected an operator of dimension 1 or more, found 0: choose a layer with weights")]
    ZeroDimension,
    /// The operator returned a different number of products than it received vectors.
    #[error("expected {expected} products of the operator, found {found}")]
    Count {
        /// Vectors given.
        expected: usize,
        /// Products returned.
        found: usize,
    },
    /// A NaN or infinite number.
    #[error(
        "{what}, number {position}: expected a finite number, found {value}; the loss has no \
         second derivative there, or exceeds its number format (try f64, or other weights)"
    )]
    NonFinite {
        /// The vector that contains it.
        what: &'static str,
        /// Its index, from 0.
        position: usize,
        /// Its value.
        value: f64,
    },
    /// A setting of an estimator is out of range.
    #[error("setting {name}: expected {expected}, found {found}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its valid range.
        expected: &'static str,
        /// The value given.
        found: String,
    },
    /// The eigenvalues of the projected matrix did not converge.
    #[error(
        "the eigenvalues of a projected matrix ({size}, {size}): expected QR iterations to \
         converge, found that they did not; try another seed"
    )]
    Projected {
        /// Rows of that matrix.
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
