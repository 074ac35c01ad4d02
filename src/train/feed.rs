//! Mini-batches in a seeded order; on a GPU the next one is read, and sent there, while it computes
//! with the one before.

use crate::data::order::Batches;
use crate::device::overlap;
use crate::objective::{Activations, Objective, PendingBatch, Result};

/// Mini-batches of one order. Which come, and their numbers, do not depend on when they are read.
#[derive(Debug)]
pub(super) struct Feed {
    batches: Batches,
    next: Option<Result<PendingBatch>>,
}

impl Feed {
    /// Mini-batches of this order.
    pub fn new(batches: Batches) -> Self {
        Self { batches, next: None }
    }

    /// The next mini-batch, as `read` gives it, on the model's device if it fits there.
    ///
    /// # Errors
    /// Those of `read`; the GPU has no room.
    pub fn next(
        &mut self,
        model: &Objective,
        read: impl Fn(&mut Batches) -> Result<Activations>,
    ) -> Result<Activations> {
        match self.next.take() {
            Some(sent) => model.keep_on_device(sent?.wait()?),
            None => model.keep_on_device(read(&mut self.batches)?),
        }
    }

    /// Runs `work` on the model's device while the mini-batch after the last one is read and sent.
    pub fn meanwhile<T>(
        &mut self,
        model: &Objective,
        read: impl Fn(&mut Batches) -> Result<Activations> + Send,
        work: impl FnOnce() -> T,
    ) -> T {
        let Some(gpu) = model.gpu.as_deref().filter(|_| self.next.is_none()) else {
            return work();
        };
        let batches = &mut self.batches;
        let (done, next) = overlap(move || model.start_upload(gpu, read(batches)?), work);
        self.next = next;
        done
    }
}
