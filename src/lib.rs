//! planish: finds where a fine-tuned Vision Transformer over-fits, layer by layer, and mends it
//! cheaply.

pub mod cli;
pub mod data;
pub mod evaluate;
pub mod run;
pub mod vit;
