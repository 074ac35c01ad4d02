//! Studies as a user meets them, and what the report draws of them and of spectra.

// Other test files use the rest.
#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;

mod commands;
mod density;
mod mistakes;
mod report;
mod runs;
