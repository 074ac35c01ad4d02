//! Errors of selecting and using a device.

use super::DeviceChoice;

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build has no feature `cuda`.
    #[error(
        "not available: this build supports only the CPU; rebuild with `cargo build --release \
         --features cuda`, or use device cpu"
    )]
    NotBuilt(DeviceChoice),
    /// The driver is missing or too old, or there is no such GPU.
    #[error("not available: {source}")]
    Refused {
        /// The requested device.
        choice: DeviceChoice,
        /// The reason.
        source: planish_kernels::Error,
    },
    /// The GPU has no room for data that must be there.
    #[error(
        "{choice}: expected room for {needed} bytes of {what}, found {free} of {all} bytes free; \
         {remedy}, end other programs on this GPU, use a larger GPU, or use device cpu"
    )]
    NoRoom {
        /// The GPU.
        choice: DeviceChoice,
        /// What was to be stored.
        what: &'static str,
        /// Its size in bytes.
        needed: u64,
        /// Free bytes.
        free: u64,
        /// Total memory of the GPU, in bytes.
        all: u64,
        /// How to make it smaller.
        remedy: &'static str,
    },
    /// The GPU has no room to process a single image.
    #[error(
        "{choice}: no room to process one image: {free} of {all} bytes are free besides weights and \
         cached activations; end other programs on this GPU, cache frozen layers in CPU memory, use a \
         larger GPU, or use device cpu"
    )]
    NoRoomForOneImage {
        /// The GPU.
        choice: DeviceChoice,
        /// Free bytes.
        free: u64,
        /// Total memory of the GPU, in bytes.
        all: u64,
    },
    /// An operation failed.
    #[error(transparent)]
    Kernel(#[from] planish_kernels::Error),
}

impl Error {
    /// Turns "no room for one weight" into "no room for all weights", which take `bytes`.
    pub(crate) fn for_all_weights(self, bytes: u64) -> Self {
        match self {
            Error::NoRoom { choice, free, all, remedy, .. } => {
                Error::NoRoom { choice, what: "the weights", needed: bytes, free, all, remedy }
            }
            other => other,
        }
    }
}
