//! Checkpoints and data sets, opened for work.

pub mod bad_samples;
mod context;
mod data;
pub mod evaluate;
mod model;
pub mod saved;
pub mod tensors;
pub mod vectors;

pub use context::Context;
pub use data::{Data, data_info, held_out, note_few, pixels, sample, seen};
pub use model::{Counted, checkpoint_info, objective};
