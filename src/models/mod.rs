//! Models as data: each architecture is declared once, and everything else is derived.
//!
//! An architecture is one file, such as [`vit`]: a configuration, and a function that declares the
//! parameters and the stages of the network with a [`Builder`]. A stage is a function of its input
//! and of its parameters, written as operations of `planish-kernels`. It runs on a tape ([`Pass`]) or
//! without numbers ([`trace`]). The second gives shapes, floating-point operations, memory, and the
//! layers in whose weights the logits are linear. Forecasts, caches, layer names, activation
//! checkpointing and line searches read these.

pub mod arch;
mod builder;
mod config;
pub mod convnext;
pub mod cost;
mod error;
mod head;
pub mod layers;
pub mod lora;
pub mod mlp_mixer;
mod network;
mod pass;
pub mod position;
mod run;
pub mod trace;
pub mod vit;
mod weights;

pub use builder::{Branch, Builder, Init, LayerNorm, Linear, PatchProjection, StageBuilder};
pub use config::Config;
pub use error::Error;
pub use layers::{Granularity, Layer};
pub use network::{Network, Param, ParamId, Stage};
pub use pass::Pass;
pub use position::PositionResize;
pub use run::{Node, Run};
pub use weights::Weights;
