//! planish: finds where a fine-tuned Vision Transformer over-fits, layer by layer, and mends it
//! cheaply.

pub mod checkpoint;
pub mod data;
mod nearest;
pub mod vit;
