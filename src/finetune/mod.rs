//! Fine-tuning: trains all layers of a new model or a checkpoint on labelled images.
//!
//! [`FinetuneSession`] prepares a run, trains, saves the result and evaluates it. It uses the loop of
//! post-training, [`train`](crate::train::run::train), with the method SGD on all layers. The source
//! holds the images themselves.

mod error;
mod images;
mod options;
mod record;
mod session;
mod start;

pub use error::Error;
pub use images::FinetuneImages;
pub use options::{FinetuneOptions, OptimizerName, SamVariant};
pub use session::{FinetuneSession, Finetuned};
pub use start::InitialModel;
