//! Studies end to end, and report pages of studies and spectra.

// Other test files use the rest.
#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;

mod commands;
mod density;
mod mistakes;
mod report;
mod runs;
