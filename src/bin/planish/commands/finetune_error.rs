//! Why `finetune` cannot start.

use std::path::PathBuf;

/// What keeps a fine-tuning from its start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checkpoint is where the new one is to go.
    #[error(
        "--out {}: {} stands there, and would be lost; name another place, or pass --force", .out.display(),
        .found.display()
    )]
    Standing {
        /// `--out`.
        out: PathBuf,
        /// The file.
        found: PathBuf,
    },
    /// The architecture's name says it already.
    #[error("--arch {arch}: expected no {flag}, which the name says; leave {flag} out")]
    NamedAlready {
        /// The architecture.
        arch: String,
        /// The flag.
        flag: &'static str,
    },
    /// `--keep best` without images to judge by.
    #[error(
        "--keep best: expected validation images, found none; give data with a split `val`, a \
         --val-fraction above 0, or --keep last"
    )]
    NothingToJudgeBy,
    /// One of mean and standard deviation without the other.
    #[error(
        "--mean and --std: expected both or neither, found one; pass both, or leave the data \
             to say"
    )]
    HalfNormalised,
}
