//! Examples whose next micro-batch is read, and sent to a GPU, while that computes.

use super::{Activations, Examples, Objective, Result};
use crate::device::{Coming, Gpu, meanwhile};
use candle_core::{DType, Tensor};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Examples, and the micro-batch of them that was sent ahead of its use.
pub(super) struct Fed<'a> {
    of: &'a dyn Examples,
    dtype: DType,
    next: Mutex<Option<(Range<usize>, Coming)>>,
}

/// Examples that were sent to a GPU, or stayed where they were.
#[derive(Debug)]
pub struct Sent {
    stage: usize,
    labels: Arc<[u32]>,
    values: Coming,
}

impl Sent {
    /// The examples, for what is computed from now on.
    ///
    /// # Errors
    /// What went wrong on the GPU.
    pub fn arrive(self) -> Result<Activations> {
        let Sent { stage, labels, values } = self;
        Ok(Activations { stage, values: values.arrive()?, labels })
    }
}

impl Objective {
    /// Begins to copy examples to the GPU, if [`Objective::hold`] would keep them there.
    ///
    /// # Errors
    /// Values that cannot be brought into the weights' type.
    pub(crate) fn send(&self, gpu: &Gpu, examples: Activations) -> Result<Sent> {
        let Activations { stage, values, labels } = examples;
        let bytes = values.elem_count() * self.dtype().size_in_bytes();
        let values = match gpu.holds(bytes as u64) {
            true => gpu.send(&values.to_dtype(self.dtype())?),
            false => Coming::Stayed(values),
        };
        Ok(Sent { stage, labels, values })
    }

    /// The examples, to be fed to this model.
    pub(super) fn fed<'a>(&self, of: &'a dyn Examples) -> Fed<'a> {
        Fed { of, dtype: self.dtype(), next: Mutex::default() }
    }
}

impl Fed<'_> {
    /// Runs `work` while the micro-batch `next` is read and sent.
    pub fn meanwhile<T>(&self, gpu: &Gpu, next: Range<usize>, work: impl FnOnce() -> T) -> T {
        let read = || {
            // What fails here fails again where it is asked for, and is told there.
            let x = self.of.inputs(next.clone()).ok()?.to_dtype(self.dtype).ok()?;
            Some((next, gpu.send(&x)))
        };
        let (done, read) = meanwhile(read, work);
        *self.lock() = read.flatten();
        done
    }

    /// Gives up what was sent ahead, with its memory; whether there was anything.
    pub fn forget(&self) -> bool {
        self.lock().take().is_some()
    }

    /// No code that can panic runs under the lock, so a poisoned one is sound.
    fn lock(&self) -> MutexGuard<'_, Option<(Range<usize>, Coming)>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Examples for Fed<'_> {
    fn len(&self) -> usize {
        self.of.len()
    }
    fn stage(&self) -> usize {
        self.of.stage()
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        let sent = self.lock().take_if(|(sent, _)| *sent == range);
        match sent {
            Some((_, coming)) => Ok(coming.arrive()?),
            None => self.of.inputs(range),
        }
    }
    fn ahead_at(&self, indices: &[usize]) {
        self.of.ahead_at(indices);
    }
    fn labels(&self) -> &[u32] {
        self.of.labels()
    }
}
