//! The Vision Transformer: its configuration, its named layers and its forward pass.

pub mod arch;
mod config;
pub mod cost;
mod error;
pub mod forward;
pub mod layers;
mod weights;

pub use config::{Activation, Config, Distillation, FinalNorm, Pooling};
pub use error::Error;
pub use forward::{Pass, stage_name, stages};
pub use layers::{Granularity, Layer};
pub use weights::Weights;
