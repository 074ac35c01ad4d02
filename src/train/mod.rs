//! Training: optimizers, learning rates, and the loops that use them.

mod error;
pub mod finetune;
pub mod optimizer;
pub mod schedule;

pub use error::{Error, Result};
pub use optimizer::{Optimizer, Rule};
pub use schedule::{Schedule, Shape};
