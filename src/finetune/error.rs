//! Why fine-tuning cannot start.

use std::path::PathBuf;

/// What keeps fine-tuning from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is a checkpoint where the new one is to be written.
    #[error(
        "`out` {}: {} stands there, and would be lost; name another place, or give `force`",
        .out.display(), .found.display()
    )]
    Standing {
        /// Where the checkpoint is to be written.
        out: PathBuf,
        /// The file.
        found: PathBuf,
    },
    /// An option whose value follows from the architecture's name.
    #[error("`arch` {arch}: expected no `{option}`, which the name says; leave `{option}` out")]
    NamedAlready {
        /// The architecture.
        arch: String,
        /// The option.
        option: &'static str,
    },
    /// The best epoch cannot be found without validation images.
    #[error(
        "`keep` best: expected validation images, found none; give data with a split `val`, a \
         `val_fraction` above 0, or `keep` last"
    )]
    NothingToJudgeBy,
    /// One of mean and standard deviation without the other.
    #[error(
        "`mean` and `std`: expected both or neither, found one; give both, or leave both out to take \
         the training images' own"
    )]
    HalfNormalised,
}
