//! GPU memory: how much there is, how much was used, and what happens when it runs out.

use super::{DeviceChoice, Error, Gpu};
use candle_core::Device;
use planish_kernels::Error as KernelError;
use std::sync::atomic::Ordering;

/// Free and total bytes of the device's memory.
#[cfg(feature = "cuda")]
pub(super) fn free_and_total(device: &Device) -> planish_kernels::Result<[u64; 2]> {
    planish_kernels::cuda::gpu::free_and_total(device)
}

#[cfg(not(feature = "cuda"))]
pub(super) fn free_and_total(_: &Device) -> planish_kernels::Result<[u64; 2]> {
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

/// Whether the error means that the GPU ran out of memory.
#[cfg(feature = "cuda")]
pub(crate) fn is_out_of_memory(error: &candle_core::Error) -> bool {
    planish_kernels::cuda::gpu::is_out_of_memory(error)
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn is_out_of_memory(_: &candle_core::Error) -> bool {
    false
}

/// Runs `allocate`. If the GPU `device` is out of memory, returns unused memory of the pool to the
/// driver and tries once more. `what` is a description, the size in bytes, and a remedy.
///
/// # Errors
/// [`Error::NoRoom`] with `what`; those of `allocate`.
pub(crate) fn allocate<T>(
    device: &Device,
    (what, needed, remedy): (&'static str, u64, &'static str),
    mut allocate: impl FnMut() -> planish_kernels::Result<T>,
) -> Result<T, Error> {
    let full = |error: &KernelError| matches!(error, KernelError::Candle(e) if is_out_of_memory(e));
    let mut found = allocate();
    if found.as_ref().is_err_and(full) {
        // Other failures of the device appear in its next operation.
        let _ = trim(device);
        found = allocate();
    }
    found.map_err(|error| match full(&error) {
        true => {
            let [free, all] = free_and_total(device).unwrap_or_default();
            Error::NoRoom { choice: DeviceChoice::of(device), what, needed, free, all, remedy }
        }
        false => error.into(),
    })
}

impl Gpu {
    /// Total memory of the GPU, in bytes. Micro-batch sizes derive from it rather than from free
    /// memory, which varies between runs and would make results vary.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Free bytes.
    pub fn free(&self) -> u64 {
        free_and_total(&self.device).map_or(0, |[free, _]| free)
    }

    /// Whether `bytes` of examples fit in an eighth of the free memory; then they stay on the GPU
    /// between passes. Results do not depend on this.
    pub fn has_room_for_examples(&self, bytes: u64) -> bool {
        bytes <= self.free() / 8
    }

    /// Whether `bytes` of frozen layers' activations fit in half of the free memory; then they stay
    /// on the GPU.
    pub fn has_room_for_activations(&self, bytes: u64) -> bool {
        bytes <= self.free() / 2
    }

    /// Largest micro-batch known to fit.
    pub fn max_images(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Records that a micro-batch of `images` did not fit, halves the limit, and tells the user.
    pub fn halve_limit(&self, images: usize) {
        self.release_unused();
        let half = (images / 2).max(1);
        if self.limit.fetch_min(half, Ordering::Relaxed) > half {
            (self.notice)(&format!(
                "note: {} has no room for {images} images at once: continuing with {half}",
                self.choice
            ));
        }
    }

    /// The error for when not even one image fits.
    pub fn no_room_for_one_image(&self) -> Error {
        self.release_unused();
        Error::NoRoomForOneImage { choice: self.choice, free: self.free(), all: self.bytes }
    }

    /// Tells the user that `bytes` of frozen layers' activations move to CPU memory, and resets the
    /// limit: larger micro-batches may fit again.
    pub fn report_moved_to_cpu(&self, bytes: u64) {
        self.release_unused();
        self.limit.store(usize::MAX, Ordering::Relaxed);
        (self.notice)(&format!(
            "note: {} has no room for {} MiB of frozen layers' activations: moved to CPU memory",
            self.choice,
            bytes.div_ceil(1 << 20)
        ));
    }

    /// Returns unused memory of the pool to the driver. Fragmentation can leave free pieces that
    /// are all too small.
    pub fn release_unused(&self) {
        // Other failures of the device appear in its next operation.
        let _ = trim(&self.device);
    }

    /// Peak memory used by tensors so far, in MiB.
    #[cfg(feature = "cuda")]
    pub fn peak_mib(&self) -> Option<u64> {
        planish_kernels::cuda::gpu::peak_mib(&self.device)
    }

    /// Peak memory used by tensors so far, in MiB.
    #[cfg(not(feature = "cuda"))]
    pub fn peak_mib(&self) -> Option<u64> {
        None
    }
}
