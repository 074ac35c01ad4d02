//! The way to the device beside the stream that computes: a stream of its own, and memory of the
//! CPU that the device reads by itself.
//!
//! Candle's tensors belong to the one stream of their device, where their memory is asked for and
//! given back. So an upload crosses between the streams twice, by an event each time: the copy waits
//! for the stream that gave the memory, since whose it was before may use it until then; and what
//! computes waits for the copy, but only where it takes the tensor.

use super::memory::{blank, wrapped};
use crate::dual_tensor::Host;
use crate::error::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaSlice, CudaStream, PinnedHostSlice,
};
use candle_core::{CudaDevice, Device, Tensor};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that are kept for the next uploads: two batches of two kinds.
const SPARE: usize = 4;
/// Numbers that one thread moves at a time.
const CHUNK: usize = 1 << 16;

/// Copies to a device beside what it computes.
#[derive(Clone, Debug)]
pub struct Uploads(Arc<Way>);

#[derive(Debug)]
struct Way {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    spare: Mutex<Vec<Pinned>>,
}

/// Memory of the CPU that stays where it is. The driver's crate orders nothing while events are not
/// tracked, so whoever writes to it, or gives it back, has to wait for the last copy out of it.
#[derive(Debug)]
struct Pinned {
    numbers: PinnedHostSlice<f32>,
    copied: CudaEvent,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Without a device that answers nothing reads it any more.
        let _ = self.copied.synchronize();
    }
}

/// A tensor on its way.
#[derive(Debug)]
pub struct Upload {
    way: Uploads,
    tensor: Option<Tensor>,
    from: Option<Pinned>,
}

impl Uploads {
    /// A way to this device.
    ///
    /// # Errors
    /// Another kind of device; one that has no further stream.
    pub fn new(device: &Device) -> Result<Self> {
        let device = device.as_cuda_device()?.clone();
        let stream = device.cuda_stream().context().new_stream().w()?;
        Ok(Self(Arc::new(Way { device, stream, spare: Mutex::default() })))
    }

    /// Begins to copy a tensor of f32 from the CPU, and returns once it has been read.
    ///
    /// # Errors
    /// Another type or place; no room on the device, or for what is sent from.
    pub fn send(&self, x: &Tensor) -> Result<Upload> {
        let host = Host::new("upload", x)?;
        let numbers = host.slice::<f32>()?;
        let Way { device, stream, .. } = &*self.0;
        let mut from = self.pinned(numbers.len().max(1))?;
        from.copied.synchronize().w()?;
        let chunks = from.numbers.as_mut_slice().w()?.par_chunks_mut(CHUNK);
        chunks.zip(numbers.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
        let mut to = blank::<f32>(device, numbers.len())?;
        if let Err(error) = copy(stream, &device.cuda_stream(), &from, &mut to) {
            // Of the copy nothing is known, and its memory goes back.
            let _ = stream.synchronize();
            return Err(error);
        }
        let tensor = Some(wrapped(device, to, x.dims()));
        Ok(Upload { way: self.clone(), tensor, from: Some(from) })
    }

    fn pinned(&self, count: usize) -> Result<Pinned> {
        let mut spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = spare.iter().position(|one| one.numbers.len() == count) {
            return Ok(spare.remove(i));
        }
        drop(spare);
        let context = self.0.stream.context();
        // SAFETY: all of it is written before it is read.
        let numbers = unsafe { context.alloc_pinned::<f32>(count) }.w()?;
        Ok(Pinned { numbers, copied: context.new_event(None).w()? })
    }

    fn give_back(&self, one: Pinned) {
        let mut spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let eldest = (spare.len() == SPARE).then(|| spare.remove(0));
        spare.push(one);
        drop(spare);
        // Waits, so not under the lock.
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
    /// The tensor, which all that is sent to the device from now on finds complete.
    ///
    /// # Errors
    /// The driver refuses to wait.
    pub fn take(mut self) -> Result<Tensor> {
        self.land()?;
        self.tensor.take().ok_or_else(|| crate::Error::shape("upload", "a tensor", "none"))
    }

    /// Makes what computes wait for the copy.
    fn land(&mut self) -> Result<()> {
        let Some(from) = self.from.take() else { return Ok(()) };
        let Way { device, stream, .. } = &*self.way.0;
        let waits = device.cuda_stream().wait(&from.copied);
        if waits.is_err() {
            let _ = stream.synchronize();
        }
        self.way.give_back(from);
        Ok(waits.w()?)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // The memory of what nobody took goes back to the stream that computes, whose next owner
        // must not meet the copy.
        let _ = self.land();
    }
}
