//! Curvature from products alone: what is known of a symmetric matrix A by v ↦ A v.
//!
//! Estimators see a [`LinearOperator`] and nothing of models, so that they can be checked on
//! matrices whose spectrum is known, and any Hessian can be given to them.

mod basis;
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
pub use statistics::{Estimate, student_95};

/// A symmetric matrix A (n, n), known by its products.
///
/// Implementations are deterministic: equal vectors give equal bits.
pub trait LinearOperator {
    /// n.
    fn dimension(&self) -> usize;

    /// A v for each of several vectors v of n numbers, in their order.
    ///
    /// # Errors
    /// A vector of another length; those of evaluating the product.
    fn apply(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>>;

    /// Vectors that are best given at once: the work that they share is then done once.
    fn block(&self) -> usize {
        1
    }

    /// Relative rounding error of a number in a product.
    fn precision(&self) -> f64 {
        f64::EPSILON
    }
}
