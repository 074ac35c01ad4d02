//! Fine-tuning: all layers of a new model, or of a checkpoint, trained on labelled images.
//!
//! [`FinetuneSession`] prepares a run (images divided, model made, output checked), trains it, saves
//! the result and measures it. The loop is [`train`](crate::train::run::train), with the method SGD on
//! all layers and images as its source.

mod error;
mod images;
mod options;
mod record;
mod session;
mod start;

pub use error::Error;
pub use images::Images;
pub use options::{FinetuneOptions, OptimizerName};
pub use session::{FinetuneSession, Finetuned};
pub use start::Start;
