//! Why a device cannot be used, or can hold no more.

use super::Choice;

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A build without feature `cuda`.
    #[error(
        "--device {0}: this planish was built for the CPU alone; build it with `cargo build \
         --release --features cuda`, or run with --device cpu"
    )]
    NotBuilt(Choice),
    /// No driver, one that is too old, or no such GPU.
    #[error("--device {choice}: {source}")]
    Refused {
        /// What was asked for.
        choice: Choice,
        /// Why not.
        source: planish_kernels::Error,
    },
    /// A GPU without room for what cannot lie elsewhere.
    #[error(
        "--device {choice}: expected room for {needed} bytes of {what}, found {free} of {all}; \
         {remedy}, end other programs on this GPU, take a larger one, or run with --device cpu"
    )]
    NoRoom {
        /// The GPU.
        choice: Choice,
        /// What should lie there.
        what: &'static str,
        /// Its bytes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// All of the GPU's memory, bytes.
        all: u64,
        /// What would make it smaller.
        remedy: &'static str,
    },
    /// A GPU without room for the work on a single image.
    #[error(
        "--device {choice}: no room for one image at once, with {free} of {all} bytes free beside \
         weights and what is kept; end other programs on this GPU, keep frozen layers elsewhere \
         (`post-train --cache ram`), take a larger one, or run with --device cpu"
    )]
    NotForOne {
        /// The GPU.
        choice: Choice,
        /// Bytes that are free.
        free: u64,
        /// All of the GPU's memory, bytes.
        all: u64,
    },
    /// An operation failed.
    #[error(transparent)]
    Kernel(#[from] planish_kernels::Error),
}

impl Error {
    /// The same of all weights together, of which one had no room.
    pub(crate) fn of_all(self, bytes: u64) -> Self {
        match self {
            Error::NoRoom { choice, free, all, remedy, .. } => {
                Error::NoRoom { choice, what: "the weights", needed: bytes, free, all, remedy }
            }
            other => other,
        }
    }
}
