//! Errors of fine-tuning before it starts.

use std::path::PathBuf;

/// Anything that prevents fine-tuning from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output already holds a checkpoint.
    #[error(
        "`out` {}: {} exists and would be overwritten; choose another output, or set `force`",
        .out.display(), .found.display()
    )]
    Exists {
        /// Output path.
        out: PathBuf,
        /// The existing file.
        found: PathBuf,
    },
}
