//! Uploads that run while the device computes: a separate stream, and pinned CPU memory that the
//! device reads on its own.
//!
//! Candle allocates and frees the memory of tensors on the device's single stream. So an upload
//! synchronises the two streams twice, with an event each time. First, the copy waits for the
//! computing stream, because that stream may still use the memory on behalf of its previous owner.
//! Second, the computing stream waits for the copy, at the point where the tensor is first used.

use super::memory::{uninitialized, wrapped};
use crate::dual_tensor::Host;
use crate::error::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaSlice, CudaStream, PinnedHostSlice,
};
use candle_core::{CudaDevice, Device, Tensor};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Pinned buffers kept for reuse: two batches of two kinds.
const MAX_FREE_BUFFERS: usize = 4;
/// Count of numbers copied by one thread at a time.
const CHUNK: usize = 1 << 16;

/// Uploads to one device, in parallel with its computation.
#[derive(Clone, Debug)]
pub struct Uploads(Arc<UploadStream>);

#[derive(Debug)]
struct UploadStream {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    free_buffers: Mutex<Vec<Pinned>>,
}

/// Pinned CPU memory. Event tracking is off, so the driver crate does not synchronise: before the
/// memory is written or freed, the last copy from it must have ended.
#[derive(Debug)]
struct Pinned {
    numbers: PinnedHostSlice<f32>,
    copied: CudaEvent,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // If the device no longer responds, nothing reads the memory.
        let _ = self.copied.synchronize();
    }
}

/// An upload in flight.
#[derive(Debug)]
pub struct Upload {
    uploads: Uploads,
    tensor: Option<Tensor>,
    from: Option<Pinned>,
}

impl Uploads {
    /// An upload stream of this device.
    ///
    /// # Errors
    /// Not a CUDA device; the device cannot create another stream.
    pub fn new(device: &Device) -> Result<Self> {
        let device = device.as_cuda_device()?.clone();
        let stream = device.cuda_stream().context().new_stream().w()?;
        Ok(Self(Arc::new(UploadStream { device, stream, free_buffers: Mutex::default() })))
    }

    /// Starts to upload an f32 tensor from the CPU. Returns once the tensor has been copied to
    /// pinned memory.
    ///
    /// # Errors
    /// A different type or device; no room on the device or for pinned memory.
    pub fn send(&self, x: &Tensor) -> Result<Upload> {
        let host = Host::new("upload", x)?;
        let numbers = host.slice::<f32>()?;
        let UploadStream { device, stream, .. } = &*self.0;
        let mut from = self.pinned(numbers.len().max(1))?;
        from.copied.synchronize().w()?;
        let chunks = from.numbers.as_mut_slice().w()?.par_chunks_mut(CHUNK);
        chunks.zip(numbers.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
        let mut to = uninitialized::<f32>(device, numbers.len())?;
        if let Err(error) = copy(stream, &device.cuda_stream(), &from, &mut to) {
            // The state of the copy is unknown, and its memory is about to be freed.
            let _ = stream.synchronize();
            return Err(error);
        }
        let tensor = Some(wrapped(device, to, x.dims()));
        Ok(Upload { uploads: self.clone(), tensor, from: Some(from) })
    }

    fn pinned(&self, count: usize) -> Result<Pinned> {
        let mut free_buffers = self.0.free_buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = free_buffers.iter().position(|one| one.numbers.len() == count) {
            return Ok(free_buffers.remove(i));
        }
        drop(free_buffers);
        let context = self.0.stream.context();
        // SAFETY: all of it is written before it is read.
        let numbers = unsafe { context.alloc_pinned::<f32>(count) }.w()?;
        Ok(Pinned { numbers, copied: context.new_event(None).w()? })
    }

    fn recycle(&self, one: Pinned) {
        let mut free_buffers = self.0.free_buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let eldest = (free_buffers.len() == MAX_FREE_BUFFERS).then(|| free_buffers.remove(0));
        free_buffers.push(one);
        drop(free_buffers);
        // Dropping waits for the copy, so do it without the lock.
        drop(eldest);
    }
}

fn copy(
    stream: &Arc<CudaStream>,
    computing: &CudaStream,
    from: &Pinned,
    to: &mut CudaSlice<f32>,
) -> Result<()> {
    stream.join(computing).w()?;
    stream.memcpy_htod(&from.numbers, to).w()?;
    from.copied.record(stream).w()?;
    Ok(())
}

impl Upload {
    /// The uploaded tensor. All later work on the device is ordered after the copy.
    ///
    /// # Errors
    /// The driver cannot order the streams.
    pub fn wait(mut self) -> Result<Tensor> {
        self.order_after_copy()?;
        self.tensor.take().ok_or_else(|| crate::Error::shape("upload", "a tensor", "none"))
    }

    /// Makes the computing stream wait for the copy.
    fn order_after_copy(&mut self) -> Result<()> {
        let Some(from) = self.from.take() else { return Ok(()) };
        let UploadStream { device, stream, .. } = &*self.uploads.0;
        let waits = device.cuda_stream().wait(&from.copied);
        if waits.is_err() {
            let _ = stream.synchronize();
        }
        self.uploads.recycle(from);
        Ok(waits.w()?)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // The memory of an unused upload returns to the computing stream. Its next owner must not
        // overlap with the copy.
        let _ = self.order_after_copy();
    }
}
