//! Post-training and fine-tuning: one loop each, one file a method.

pub mod method;
pub mod optimizer;
pub mod perturbation;
pub mod pof;
pub mod pol;
pub mod post;
pub mod recipe;
pub mod schedule;
pub mod sgd;
pub mod source;

pub use method::{Method, Step};
pub use perturbation::{Perturbation, Perturber};
pub use source::Source;
