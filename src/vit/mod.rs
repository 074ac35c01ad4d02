//! The Vision Transformer: its configuration, its named layers and its forward pass.

mod config;

pub use config::{Activation, Config, FinalNorm, Pooling};
