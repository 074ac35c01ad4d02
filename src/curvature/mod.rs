//! Curvature estimators that use only matrix-vector products v ↦ A v of a symmetric matrix A.
//!
//! Estimators depend on the trait [`LinearOperator`] and not on models. They can be tested on
//! matrices with a known spectrum and applied to any Hessian.

mod basis;
mod bounds;
mod error;
pub mod hutch_plus_plus;
pub mod hutchinson;
mod krylov;
pub mod lanczos;
mod operator;
pub mod quadrature;
mod statistics;
pub mod steihaug;
mod vectors;

pub use error::{Error, Result};
pub use operator::{LayerOperator, Probe, flatten};
pub use statistics::{SampleMean, student_95};

/// A symmetric matrix A (n, n), given by its products.
///
/// Implementations must be deterministic: equal vectors give equal bits.
pub trait LinearOperator {
    /// n.
    fn dimension(&self) -> usize;

    /// A v for each vector v (n numbers), in order.
    ///
    /// # Errors
    /// A vector of the wrong length; errors of computing the product.
    fn apply(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>>;

    /// Preferred number of vectors per call of `apply`. Work that they share is done once per call.
    fn block(&self) -> usize {
        1
    }

    /// Relative rounding error of the numbers in a product.
    fn precision(&self) -> f64 {
        f64::EPSILON
    }
}
