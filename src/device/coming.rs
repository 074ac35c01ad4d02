//! Tensors on their way to a GPU beside what it computes.

use super::Gpu;
use candle_core::{DType, Result, Tensor};
#[cfg(feature = "cuda")]
use planish_kernels::cuda::gpu::{Upload, Uploads};

/// The way there.
#[derive(Debug)]
pub(super) struct Way {
    #[cfg(feature = "cuda")]
    uploads: Option<Uploads>,
}

impl Way {
    /// The way to a device; none where it has no stream to spare.
    #[cfg(feature = "cuda")]
    pub fn to(device: &candle_core::Device) -> Self {
        Self { uploads: Uploads::new(device).ok() }
    }

    #[cfg(not(feature = "cuda"))]
    pub fn to(_: &candle_core::Device) -> Self {
        Self {}
    }

    #[cfg(feature = "cuda")]
    fn send(&self, x: &Tensor) -> Option<Coming> {
        self.uploads.as_ref()?.send(x).ok().map(Coming::Sent)
    }

    #[cfg(not(feature = "cuda"))]
    fn send(&self, _: &Tensor) -> Option<Coming> {
        None
    }
}

/// A tensor that was sent, or is where it was.
#[derive(Debug)]
pub enum Coming {
    /// It stayed: it is on the GPU already, or could not be sent.
    Stayed(Tensor),
    /// Its copy is on the way.
    #[cfg(feature = "cuda")]
    Sent(Upload),
}

impl Coming {
    /// The tensor, for what is computed from now on.
    ///
    /// # Errors
    /// What went wrong on the GPU.
    pub fn arrive(self) -> Result<Tensor> {
        match self {
            Coming::Stayed(x) => Ok(x),
            #[cfg(feature = "cuda")]
            Coming::Sent(upload) => upload.take().map_err(candle_core::Error::wrap),
        }
    }
}

impl Gpu {
    /// Begins to copy a tensor there, on a stream of its own. What cannot go that way stays, for
    /// [`Gpu::put`] to copy it or to tell why not: no number depends on the way.
    pub fn send(&self, x: &Tensor) -> Coming {
        let sent = match (x.device().is_cuda(), x.dtype()) {
            (false, DType::F32) => x.contiguous().ok().and_then(|x| self.way.send(&x)),
            _ => None,
        };
        sent.unwrap_or_else(|| Coming::Stayed(x.clone()))
    }
}

/// Runs `work` here and `read` on a thread of its own; what was read, or nothing where this thread is
/// one of the pool: `read` may wait for the pool, and `work` for `read`.
pub(crate) fn meanwhile<R: Send, T>(
    read: impl FnOnce() -> R + Send,
    work: impl FnOnce() -> T,
) -> (T, Option<R>) {
    if rayon::current_thread_index().is_some() {
        return (work(), None);
    }
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new().name("upload".into()).spawn_scoped(scope, read);
        let done = work();
        // A thread that the system refuses is done without.
        let read = reading.ok().map(|reading| match reading.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (done, read)
    })
}
