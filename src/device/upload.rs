//! Uploads that run while the GPU computes.

use super::Gpu;
use candle_core::{DType, Result, Tensor};
#[cfg(feature = "cuda")]
use planish_kernels::cuda::gpu::{Upload, Uploads};

/// The stream that uploads tensors to a GPU.
#[derive(Debug)]
pub(super) struct UploadStream {
    #[cfg(feature = "cuda")]
    uploads: Option<Uploads>,
}

impl UploadStream {
    /// An upload stream of a device. Empty if the device cannot create another stream.
    #[cfg(feature = "cuda")]
    pub fn new(device: &candle_core::Device) -> Self {
        Self { uploads: Uploads::new(device).ok() }
    }

    #[cfg(not(feature = "cuda"))]
    pub fn new(_: &candle_core::Device) -> Self {
        Self {}
    }

    #[cfg(feature = "cuda")]
    fn send(&self, x: &Tensor) -> Option<PendingUpload> {
        self.uploads.as_ref()?.send(x).ok().map(PendingUpload::InFlight)
    }

    #[cfg(not(feature = "cuda"))]
    fn send(&self, _: &Tensor) -> Option<PendingUpload> {
        None
    }
}

/// A tensor whose upload may be in flight.
#[derive(Debug)]
pub enum PendingUpload {
    /// Not uploaded: it is on the GPU already, or the upload could not start.
    NotStarted(Tensor),
    /// The copy is in flight.
    #[cfg(feature = "cuda")]
    InFlight(Upload),
}

impl PendingUpload {
    /// The tensor. Later computation on the GPU is ordered after the copy.
    ///
    /// # Errors
    /// A failure on the GPU.
    pub fn wait(self) -> Result<Tensor> {
        match self {
            PendingUpload::NotStarted(x) => Ok(x),
            #[cfg(feature = "cuda")]
            PendingUpload::InFlight(upload) => upload.wait().map_err(candle_core::Error::wrap),
        }
    }
}

impl Gpu {
    /// Starts to copy a tensor to the GPU on the upload stream. If that is not possible the tensor
    /// is returned unchanged; [`Gpu::to_device`] then copies it or reports why it cannot. Results
    /// do not depend on the path.
    pub fn start_upload(&self, x: &Tensor) -> PendingUpload {
        let sent = match (x.device().is_cuda(), x.dtype()) {
            (false, DType::F32) => x.contiguous().ok().and_then(|x| self.uploads.send(&x)),
            _ => None,
        };
        sent.unwrap_or_else(|| PendingUpload::NotStarted(x.clone()))
    }
}

/// Runs `work` on this thread and `read` on a new thread. Returns both results.
///
/// On a thread of the rayon pool `read` does not run and its result is `None`: `read` may wait for
/// the pool while `work` waits for `read`, which would deadlock.
pub(crate) fn overlap<R: Send, T>(
    read: impl FnOnce() -> R + Send,
    work: impl FnOnce() -> T,
) -> (T, Option<R>) {
    if rayon::current_thread_index().is_some() {
        return (work(), None);
    }
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new().name("upload".into()).spawn_scoped(scope, read);
        let done = work();
        // If the system refuses to start a thread, go on without it.
        let read = reading.ok().map(|reading| match reading.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (done, read)
    })
}
