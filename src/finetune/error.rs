//! Errors of fine-tuning before it starts.

use std::path::PathBuf;

/// Anything that prevents fine-tuning from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output already holds a checkpoint.
    #[error(
        "`out` {}: {} stands there, and would be lost; name another place, or give `force`",
        .out.display(), .found.display()
    )]
    Standing {
        /// Output path.
        out: PathBuf,
        /// The existing file.
        found: PathBuf,
    },
    /// An option that the architecture's name already determines.
    #[error("`arch` {arch}: expected no `{option}`, which the name says; leave `{option}` out")]
    NamedAlready {
        /// The architecture.
        arch: String,
        /// The option.
        option: &'static str,
    },
    /// The best epoch is requested, but there are no validation images.
    #[error(
        "`keep` best: expected validation images, found none; give data with a split `val`, a \
         `val_fraction` above 0, or `keep` last"
    )]
    NothingToJudgeBy,
    /// Only one of mean and standard deviation is given.
    #[error(
        "`mean` and `std`: expected both or neither, found one; give both, or leave both out to take \
         the training images' own"
    )]
    HalfNormalised,
}
