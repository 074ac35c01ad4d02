//! planish: finds where a fine-tuned Vision Transformer over-fits, layer by layer, and mends it
//! cheaply.

pub mod cache;
pub mod checkpoint;
pub mod curvature;
pub mod data;
pub mod device;
pub mod diagnose;
pub mod error;
pub mod evaluate;
pub mod examples;
pub mod fingerprint;
pub mod forecast;
pub mod format;
pub mod line_search;
pub mod memory;
mod nearest;
pub mod objective;
pub mod observe;
pub mod options;
pub mod output;
pub mod pixels;
pub mod post_train;
pub mod report;
mod row_buffer;
pub mod run;
pub mod selftest;
pub mod session;
pub mod shift;
pub mod study;
pub mod tape;
pub mod temp_file;
pub mod train;
pub mod vector;
pub mod vit;
