//! A GPU's memory: how much there is, how much was taken, and what happens when it gives out.

use super::{CHOSEN, Error, Gpu};
use candle_core::Device;
use planish_kernels::Error as KernelError;
use std::sync::atomic::Ordering;

/// Bytes of the device's memory that are free, and all.
#[cfg(feature = "cuda")]
pub(super) fn room(device: &Device) -> planish_kernels::Result<[u64; 2]> {
    planish_kernels::cuda::gpu::room(device)
}

#[cfg(not(feature = "cuda"))]
pub(super) fn room(_: &Device) -> planish_kernels::Result<[u64; 2]> {
    Ok([0; 2])
}

#[cfg(feature = "cuda")]
fn trim(device: &Device) -> planish_kernels::Result<()> {
    planish_kernels::cuda::gpu::trim(device)
}

#[cfg(not(feature = "cuda"))]
fn trim(_: &Device) -> planish_kernels::Result<()> {
    Ok(())
}

/// Whether a GPU had no room for an operation.
#[cfg(feature = "cuda")]
pub(crate) fn is_full(error: &candle_core::Error) -> bool {
    planish_kernels::cuda::gpu::is_out_of_memory(error)
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn is_full(_: &candle_core::Error) -> bool {
    false
}

/// Most of the GPU's memory that tensors took at once so far, in MiB.
pub fn peak_mib() -> Option<u64> {
    CHOSEN.get()?.peak_mib()
}

/// What forecasts expect of a GPU's memory, in MiB: the most that what was tried beforehand took of
/// it, with `kept` bytes of activations that are to stay there.
pub fn expected_mib(kept: u64) -> Option<u64> {
    Some(peak_mib()?.saturating_add(kept >> 20))
}

/// What forecasts say of memory: so many MiB of the process, and [`expected_mib`] of a GPU.
pub fn outlook(mib: f64, kept: u64) -> String {
    match CHOSEN.get().and_then(|gpu| Some((gpu, expected_mib(kept)?))) {
        Some((gpu, expected)) => format!(
            "{mib:.0} MiB of the CPU's memory, {expected} of {}'s {} MiB",
            gpu.choice,
            gpu.bytes >> 20
        ),
        None => format!("{mib:.0} MiB"),
    }
}

/// [`Gpu::make`] on the GPU that was chosen; without one, as it is.
///
/// # Errors
/// Those of [`Gpu::make`].
#[cfg(feature = "cuda")]
pub(crate) fn make<T>(
    what: (&'static str, u64, &'static str),
    mut make: impl FnMut() -> planish_kernels::Result<T>,
) -> Result<T, Error> {
    match CHOSEN.get() {
        Some(gpu) => gpu.make(what, make),
        None => Ok(make()?),
    }
}

impl Gpu {
    /// All of its memory, bytes: what micro-batches follow, for what is free differs from run to run,
    /// and results with their sizes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of its memory that are free.
    pub fn free(&self) -> u64 {
        room(&self.device).map_or(0, |[free, _]| free)
    }

    /// Whether examples of so many bytes are kept there between passes: an eighth of what is free.
    /// No result depends on the place.
    pub fn holds(&self, bytes: u64) -> bool {
        bytes <= self.free() / 8
    }

    /// Whether frozen layers' activations of so many bytes stay there: half of what is free.
    pub fn keeps(&self, bytes: u64) -> bool {
        bytes <= self.free() / 2
    }

    /// Most images that a micro-batch may have, as far as is known.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Notes that so many images at once are too many, and tells so.
    pub fn too_many(&self, images: usize) {
        self.tidy();
        let half = (images / 2).max(1);
        if self.limit.fetch_min(half, Ordering::Relaxed) > half {
            (self.notice)(&format!(
                "note: {} has no room for {images} images at once: going on with {half}",
                self.choice
            ));
        }
    }

    /// Why nothing goes on where not even one image has room.
    pub fn not_for_one(&self) -> Error {
        self.tidy();
        Error::NotForOne { choice: self.choice, free: self.free(), all: self.bytes }
    }

    /// Tells that frozen layers' activations of so many bytes go to the CPU's memory. Micro-batches
    /// that were too large beside them are tried again.
    pub fn moved_away(&self, bytes: u64) {
        self.tidy();
        self.limit.store(usize::MAX, Ordering::Relaxed);
        (self.notice)(&format!(
            "note: {} has no room for {} MiB of frozen layers' activations: they are kept in the \
             CPU's memory",
            self.choice,
            bytes.div_ceil(1 << 20)
        ));
    }

    /// Gives back memory that no tensor uses: pieces of what is free may be too small.
    pub fn tidy(&self) {
        // Whatever else is wrong with the device shows in its next operation.
        let _ = trim(&self.device);
    }

    /// Makes what can lie nowhere but there, if need be once more after [`Gpu::tidy`].
    ///
    /// # Errors
    /// [`Error::NoRoom`] naming `what`, its bytes and how it could be less; those of `make`.
    pub fn make<T>(
        &self,
        (what, needed, remedy): (&'static str, u64, &'static str),
        mut make: impl FnMut() -> planish_kernels::Result<T>,
    ) -> Result<T, Error> {
        let full = |error: &KernelError| matches!(error, KernelError::Candle(e) if is_full(e));
        let mut found = make();
        if found.as_ref().is_err_and(full) {
            self.tidy();
            found = make();
        }
        found.map_err(|error| match full(&error) {
            true => {
                let (choice, free, all) = (self.choice, self.free(), self.bytes);
                Error::NoRoom { choice, what, needed, free, all, remedy }
            }
            false => error.into(),
        })
    }

    #[cfg(feature = "cuda")]
    pub(super) fn peak_mib(&self) -> Option<u64> {
        planish_kernels::cuda::gpu::peak_mib(&self.device)
    }

    #[cfg(not(feature = "cuda"))]
    pub(super) fn peak_mib(&self) -> Option<u64> {
        None
    }
}
