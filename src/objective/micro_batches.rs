//! Micro-batches: their size, and the loop over them.
//!
//! Large ones amortise the packing of weights; small ones save memory and
//! give every thread work.

use super::on_device::is_out_of_memory;
use super::prefetch::Prefetcher;
use super::{Error, Examples, Objective, Result};
use crate::device::Gpu;
use crate::models::{Network, cost};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;

/// The number of micro-batches of a gradient is a multiple of this.
const WAVE: usize = 4;
/// Micro-batches passed to a GPU in one call. All but the first are uploaded while the previous one
/// is computed.
pub(crate) const AT_ONCE_ON_GPU: usize = 4;

impl Objective {
    /// The same objective, with the micro-batch size for batches of `batch` examples that enter at
    /// `stage`.
    ///
    /// Fewer activations are saved above `stage`, so micro-batches can be larger in the same
    /// memory. On the CPU a batch is still cut into at least sixteen, to give that many threads
    /// work. The size must not depend on the actual number of threads, because rounding depends on
    /// how sums are split. Larger micro-batches are faster: each one packs the weights and adds
    /// their gradient once.
    pub fn for_stage(&self, stage: usize, batch: usize) -> Self {
        let whole = cost::saved_per_image(&self.network) * self.micro_batch;
        let room = whole / cost::saved_above(&self.network, stage).max(1);
        let largest = match self.engine.gpu() {
            None => (batch / 16).min(max_micro_batch(None)),
            gpu => max_micro_batch(gpu),
        };
        let micro_batch = room.min(largest).max(self.micro_batch);
        Self { micro_batch, ..self.clone() }
    }

    /// Count of numbers that the backward pass of a micro-batch needs saved.
    pub fn saved_len(&self) -> usize {
        let image = match self.checkpointing {
            true => cost::saved_checkpointed(&self.network),
            false => cost::saved_per_image(&self.network),
        };
        image * self.micro_batch.max(1)
    }

    /// How many examples fill whole micro-batches without leaving a thread idle. On a GPU: enough
    /// that the next micro-batch is decoded and uploaded while one is computed.
    pub fn even_examples(&self) -> usize {
        let threads = rayon::current_num_threads();
        let count = match self.engine.gpu() {
            Some(_) => AT_ONCE_ON_GPU,
            None => (1..=WAVE).map(|k| k * threads).find(|n| n % WAVE == 0).unwrap_or(threads),
        };
        self.micro_batch.max(1) * count
    }

    /// Micro-batches of exactly the configured size; the last one takes the rest.
    pub(super) fn whole_chunks(&self, examples: &dyn Examples) -> Result<Vec<Range<usize>>> {
        let n = examples.len();
        if n == 0 {
            return Err(Error::NoExamples);
        }
        let step = self.micro_batch.max(1);
        Ok((0..n).step_by(step).map(|i| i..(i + step).min(n)).collect())
    }

    /// Micro-batches of nearly equal size, none above the configured size. Their number is a
    /// multiple of [`WAVE`], so that common numbers of threads finish together. It must not depend
    /// on the actual number of threads, because rounding depends on how sums are split.
    pub(super) fn even_chunks(&self, examples: &dyn Examples) -> Result<Vec<Range<usize>>> {
        let n = examples.len();
        if n == 0 {
            return Err(Error::NoExamples);
        }
        let wave = if self.engine.gpu().is_some() { 1 } else { WAVE };
        let count = n.div_ceil(self.micro_batch.max(1)).next_multiple_of(wave).min(n);
        Ok((0..count).map(|i| i * n / count..(i + 1) * n / count).collect())
    }

    /// Applies `work` to every micro-batch and passes the results to `take` in order.
    ///
    /// On the CPU micro-batches run in parallel, one per thread, and the operations inside each
    /// stay on its thread. At most one result per thread is alive, while the images of the next
    /// wave are decoded. Results are added in the order of the micro-batches, whatever the number
    /// of threads. On a GPU micro-batches run one after the other.
    pub(super) fn for_each_micro_batch<T: Send>(
        &self,
        (examples, chunks): (&Prefetcher, Vec<Range<usize>>),
        work: impl Fn(Range<usize>) -> Result<T> + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        if let Some(gpu) = self.engine.gpu() {
            return run_in_sequence(gpu, (examples, chunks), work, take);
        }
        let mut waves = chunks.chunks(rayon::current_num_threads().max(1)).peekable();
        while let Some(wave) = waves.next() {
            if let Some(next) = waves.peek() {
                examples.prefetch(&next.iter().flat_map(Range::clone).collect::<Vec<_>>());
            }
            if let [range] = wave {
                take(work(range.clone())?)?;
                continue;
            }
            let results: Vec<Result<T>> = wave.par_iter().map(|r| work(r.clone())).collect();
            for result in results {
                take(result?)?;
            }
        }
        Ok(())
    }
}

/// Applies `work` to one micro-batch after the other on a GPU, while the next one is read, decoded
/// and uploaded.
///
/// If a micro-batch does not fit, the upload of the next one is dropped first. If it still does not
/// fit, it and all later ones are halved. If a single image does not fit, the error is
/// [`NoRoomForOneImage`](crate::device::Error::NoRoomForOneImage).
fn run_in_sequence<T>(
    gpu: &Gpu,
    (examples, chunks): (&Prefetcher, Vec<Range<usize>>),
    work: impl Fn(Range<usize>) -> Result<T>,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut queue: VecDeque<Range<usize>> = chunks.into();
    let mut room_for_two = true;
    while let Some(range) = queue.pop_front() {
        if range.len() > gpu.max_images() {
            let middle = range.start + range.len() / 2;
            queue.push_front(middle..range.end);
            queue.push_front(range.start..middle);
            continue;
        }
        let next = queue.front().cloned();
        if let Some(next) = &next {
            examples.prefetch(&next.clone().collect::<Vec<_>>());
        }
        let found = match next.filter(|next| room_for_two && next.len() <= gpu.max_images()) {
            Some(next) => examples.overlap(gpu, next, || work(range.clone())),
            None => work(range.clone()),
        };
        match found {
            Err(error) if is_out_of_memory(&error) && examples.discard() => {
                room_for_two = false;
                queue.push_front(range);
            }
            Err(error) if range.len() > 1 && is_out_of_memory(&error) => {
                gpu.halve_limit(range.len());
                queue.push_front(range);
            }
            Err(error) if is_out_of_memory(&error) => {
                return Err(gpu.no_room_for_one_image().into());
            }
            found => take(found?)?,
        }
    }
    Ok(())
}

/// The default micro-batch size.
///
/// On the CPU: the tape stays below 400 MB, and a typical mini-batch gives every thread several
/// micro-batches. Large models still get more than one image, because each micro-batch packs the
/// weights and adds their gradient once.
///
/// On a GPU: a quarter of its memory in f32, at most 128 images. That leaves a quarter for one
/// tangent and the rest for weights and temporaries. Micro-batches run one after the other there,
/// so each should fill the GPU.
pub(super) fn micro_batch(network: &Network, gpu: Option<&Gpu>) -> usize {
    let numbers = match gpu {
        Some(gpu) => usize::try_from(gpu.bytes() / 16).unwrap_or(usize::MAX),
        None => 100_000_000,
    };
    (numbers / cost::saved_per_image(network).max(1)).clamp(1, max_micro_batch(gpu))
}

/// The largest micro-batch size.
fn max_micro_batch(gpu: Option<&Gpu>) -> usize {
    if gpu.is_some() { 128 } else { 16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::models::{Weights, arch};
    use std::sync::Arc;

    #[test]
    fn micro_batches_above_frozen_layers_are_larger_within_the_same_memory() {
        let network = arch::named("vit_small_patch16_224", 10, 3).unwrap().network().unwrap();
        let network = Arc::new(network);
        let weights = Weights::random(&network, 0).unwrap();
        let whole = Objective::new(network.clone(), weights, &Engine::cpu());
        for batch in [1, 32, 128, 4096] {
            for checkpointing in [false, true] {
                let whole = Objective { checkpointing, ..whole.clone() };
                let sizes: Vec<usize> =
                    (0..network.stages()).map(|s| whole.for_stage(s, batch).micro_batch).collect();
                assert!(sizes[..3].iter().all(|&n| n == whole.micro_batch), "{sizes:?}");
                assert!(sizes.is_sorted() && sizes.iter().all(|&n| n <= 16), "{sizes:?}");
                for (stage, n) in sizes.into_iter().enumerate() {
                    let kept = n * cost::saved_above(&network, stage);
                    assert!(kept <= whole.micro_batch * cost::saved_per_image(&network));
                }
            }
        }
        let mlp = network.last_block().last_stage;
        let last = whole.for_stage(mlp, 128).micro_batch;
        assert!(last > whole.micro_batch && last == 128 / 16, "{last}");
        assert_eq!(whole.for_stage(mlp, 4096).micro_batch, 16);
    }

    #[test]
    fn even_examples_leave_no_thread_idle() {
        let network = arch::named("vit_nano_patch7_28", 10, 1).unwrap().network().unwrap();
        let weights = Weights::random(&network, 0).unwrap();
        let network = Arc::new(network);
        let model =
            Objective { micro_batch: 3, ..Objective::new(network, weights, &Engine::cpu()) };
        for threads in 1..8 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let n = pool.install(|| model.even_examples());
            let count = n / 3;
            assert!(count % threads == 0 && count % WAVE == 0 && count <= 4 * threads, "{count}");
        }
    }
}
