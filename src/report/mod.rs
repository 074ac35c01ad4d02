//! Reports: one versioned schema for each command that measures, written as JSON.
//!
//! A report knows results, not how they were made.

pub mod bench;
pub mod diagnosis;
mod parts;
pub mod post_training;

pub use parts::{CheckpointInfo, DataInfo};
