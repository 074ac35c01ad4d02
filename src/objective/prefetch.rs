//! Reads and uploads the next micro-batch while the GPU computes the current one.

use super::{Activations, Examples, Objective, Result};
use crate::device::{Gpu, PendingUpload, overlap};
use candle_core::{DType, Tensor};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Examples, with the micro-batch that was uploaded ahead of its use.
pub(super) struct Prefetcher<'a> {
    of: &'a dyn Examples,
    dtype: DType,
    next: Mutex<Option<(Range<usize>, PendingUpload)>>,
}

/// Examples whose upload to a GPU may be in flight.
#[derive(Debug)]
pub struct PendingBatch {
    stage: usize,
    labels: Arc<[u32]>,
    values: PendingUpload,
}

impl PendingBatch {
    /// The examples. Later computation on the GPU is ordered after the upload.
    ///
    /// # Errors
    /// A failure on the GPU.
    pub fn wait(self) -> Result<Activations> {
        let PendingBatch { stage, labels, values } = self;
        Ok(Activations { stage, values: values.wait()?, labels })
    }
}

impl Objective {
    /// Starts to copy examples to the GPU, if [`Objective::keep_on_device`] would keep them there.
    ///
    /// # Errors
    /// Values that cannot be converted to the type of the weights.
    pub(crate) fn start_upload(&self, gpu: &Gpu, examples: Activations) -> Result<PendingBatch> {
        let Activations { stage, values, labels } = examples;
        let bytes = values.elem_count() * self.dtype().size_in_bytes();
        let values = match gpu.has_room_for_examples(bytes as u64) {
            true => gpu.start_upload(&values.to_dtype(self.dtype())?),
            false => PendingUpload::NotStarted(values),
        };
        Ok(PendingBatch { stage, labels, values })
    }

    /// Wraps examples so that micro-batches can be uploaded ahead.
    pub(super) fn prefetching<'a>(&self, of: &'a dyn Examples) -> Prefetcher<'a> {
        Prefetcher { of, dtype: self.dtype(), next: Mutex::default() }
    }
}

impl Prefetcher<'_> {
    /// Runs `work` while the micro-batch `next` is read and uploaded.
    pub fn overlap<T>(&self, gpu: &Gpu, next: Range<usize>, work: impl FnOnce() -> T) -> T {
        let read = || {
            // A failure here happens again when the micro-batch is requested, and is reported
            // there.
            let x = self.of.inputs(next.clone()).ok()?.to_dtype(self.dtype).ok()?;
            Some((next, gpu.start_upload(&x)))
        };
        let (done, read) = overlap(read, work);
        *self.lock() = read.flatten();
        done
    }

    /// Drops the prefetched micro-batch and its memory. Returns whether there was one.
    pub fn discard(&self) -> bool {
        self.lock().take().is_some()
    }

    /// No code under the lock can panic, so a poisoned lock holds valid data.
    fn lock(&self) -> MutexGuard<'_, Option<(Range<usize>, PendingUpload)>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Examples for Prefetcher<'_> {
    fn len(&self) -> usize {
        self.of.len()
    }
    fn stage(&self) -> usize {
        self.of.stage()
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        let pending = self.lock().take_if(|(next, _)| *next == range);
        match pending {
            Some((_, upload)) => Ok(upload.wait()?),
            None => self.of.inputs(range),
        }
    }
    fn prefetch(&self, indices: &[usize]) {
        self.of.prefetch(indices);
    }
    fn labels(&self) -> &[u32] {
        self.of.labels()
    }
}
