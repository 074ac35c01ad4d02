//! Applies the remedies that help, one after the other, and measures the result once on test.
//!
//! [`FixSession`] measures all moves of [`crate::remedies`] on V, applies the eligible one with the
//! highest gain, and repeats this, until none is eligible. Then it folds a temperature into the head.

mod candidate;
mod forecast;
mod options;
mod result;
mod session;

pub use candidate::FixCandidate;
pub use forecast::FixPlan;
pub use options::FixOptions;
pub use result::{Baseline, FixStep, Fixed, Stop};
pub use session::{FixSearch, FixSession};
