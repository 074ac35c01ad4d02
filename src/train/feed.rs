//! Mini-batches in a seeded order. On a GPU, the next batch is read and uploaded while the current
//! one is computed.

use crate::data::order::Batches;
use crate::device::overlap;
use crate::objective::{Activations, Objective, PendingBatch, Result};

/// Mini-batches of one order. Their contents do not depend on when they are read.
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

    /// Mini-batches drawn with replacement, from the start.
    pub fn with_replacement(self) -> Self {
        Self::new(self.batches.with_replacement())
    }

    /// The next mini-batch, as `read` returns it, on the model's device if it fits there.
    ///
    /// # Errors
    /// Those of `read`; too little GPU memory.
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

    /// Runs `work` on the model's device while the next mini-batch is read and uploaded.
    pub fn overlap<T>(
        &mut self,
        model: &Objective,
        read: impl Fn(&mut Batches) -> Result<Activations> + Send,
        work: impl FnOnce() -> T,
    ) -> T {
        let Some(gpu) = model.engine.gpu().filter(|_| self.next.is_none()) else {
            return work();
        };
        let batches = &mut self.batches;
        let (done, next) = overlap(move || model.start_upload(gpu, read(batches)?), work);
        self.next = next;
        done
    }
}
