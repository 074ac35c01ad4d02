//! Reports: one versioned schema for each command that measures, written as JSON.
//!
//! A report knows results, not how they were made.

pub mod bench;
pub mod comparison;
pub mod convergence;
pub mod diagnosis;
pub mod dry_run;
mod evaluation;
mod finetuning;
pub mod format;
pub mod html;
mod inspection;
mod parts;
pub mod post_training;
pub mod search;
mod selftest;
pub mod sentence;
mod shifts;
pub mod spectrum;
pub mod tensorboard;

pub use evaluation::{EVALUATION, Evaluation};
pub use finetuning::{FINETUNING, Finetuning};
pub use inspection::{INSPECTION, Inspection, LayerInfo, ModelInfo};
pub use parts::{CheckpointInfo, DataInfo, PredictionsInfo};
pub use selftest::{SELFTEST, Selftest};
pub use shifts::{Cell, Other, Shifts, Step};
