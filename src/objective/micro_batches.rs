//! How many examples a micro-batch has: enough that packing weights pays, few enough for memory and for
//! every thread.

use super::{Error, Examples, Objective, Result};
use crate::device::Gpu;
use crate::vit::{Config, cost};
use std::ops::Range;

/// What the number of micro-batches of a gradient is a multiple of.
const WAVE: usize = 4;
/// Micro-batches that are handed to a GPU at once: most are sent there while the one before is computed.
pub(crate) const AT_ONCE_ON_GPU: usize = 4;

impl Objective {
    /// The same objective for batches that enter at `stage`: micro-batches as much larger as less is
    /// kept from there up, but on the CPU sixteen of a batch, for as many threads; the number of
    /// threads itself must not decide, for bits depend on how sums are cut. Weights are packed, and their
    /// gradient added, once a micro-batch.
    pub fn above(&self, stage: usize, batch: usize) -> Self {
        let whole = cost::kept_per_image(&self.config) * self.micro_batch;
        let room = whole / cost::kept_above(&self.config, stage).max(1);
        let largest = match self.gpu.as_deref() {
            None => (batch / 16).min(most(None)),
            gpu => most(gpu),
        };
        let micro_batch = room.min(largest).max(self.micro_batch);
        Self { micro_batch, ..self.clone() }
    }

    /// Numbers that the gradient of a micro-batch keeps for the way back.
    pub fn kept(&self) -> usize {
        let image = match self.recompute {
            true => cost::kept_recomputing(&self.config),
            false => cost::kept_per_image(&self.config),
        };
        image * self.micro_batch.max(1)
    }

    /// How many examples make whole micro-batches that leave no thread idle; on a GPU, that let the
    /// next be decoded and sent while one is computed.
    pub fn even_examples(&self) -> usize {
        let threads = rayon::current_num_threads();
        let count = match self.gpu {
            Some(_) => AT_ONCE_ON_GPU,
            None => (1..=WAVE).map(|k| k * threads).find(|n| n % WAVE == 0).unwrap_or(threads),
        };
        self.micro_batch.max(1) * count
    }

    /// Micro-batches of the size that is set, the last with what is left.
    pub(super) fn whole_chunks(&self, examples: &dyn Examples) -> Result<Vec<Range<usize>>> {
        let n = examples.len();
        if n == 0 {
            return Err(Error::NoExamples);
        }
        let step = self.micro_batch.max(1);
        Ok((0..n).step_by(step).map(|i| i..(i + step).min(n)).collect())
    }

    /// Micro-batches, none larger than the limit: as even as can be, and a multiple
    /// of [`WAVE`] of them, so that the usual numbers of threads all have work to the end. The
    /// number of threads itself must not decide, for bits depend on how sums are cut.
    pub(super) fn even_chunks(&self, examples: &dyn Examples) -> Result<Vec<Range<usize>>> {
        let n = examples.len();
        if n == 0 {
            return Err(Error::NoExamples);
        }
        let wave = if self.gpu.is_some() { 1 } else { WAVE };
        let count = n.div_ceil(self.micro_batch.max(1)).next_multiple_of(wave).min(n);
        Ok((0..count).map(|i| i * n / count..(i + 1) * n / count).collect())
    }
}

/// A micro-batch whose tape stays below 400 MB, and small enough that the usual mini-batch gives
/// every thread several. More than one image of a large model: its weights are packed, and its
/// gradient added, once a micro-batch. On a GPU a quarter of its memory in f32, which leaves as much
/// for a tangent and the rest for weights and what operations hold meanwhile, and up to 128 images:
/// what runs one after the other should fill it.
pub(super) fn micro_batch(config: &Config, gpu: Option<&Gpu>) -> usize {
    let numbers = match gpu {
        Some(gpu) => usize::try_from(gpu.bytes() / 16).unwrap_or(usize::MAX),
        None => 100_000_000,
    };
    (numbers / cost::kept_per_image(config).max(1)).clamp(1, most(gpu))
}

/// The largest micro-batch.
fn most(gpu: Option<&Gpu>) -> usize {
    if gpu.is_some() { 128 } else { 16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vit::{Weights, arch, stages};
    use std::sync::Arc;

    #[test]
    fn above_frozen_layers_micro_batches_are_larger_within_the_same_memory() {
        let config = Arc::new(arch::named("vit_small_patch16_224", 10, 3).unwrap());
        let weights = Weights::random(&config, 0).unwrap();
        let whole = Objective { gpu: None, ..Objective::new(config.clone(), weights) };
        for batch in [1, 32, 128, 4096] {
            for recompute in [false, true] {
                let whole = Objective { recompute, ..whole.clone() };
                let sizes: Vec<usize> =
                    (0..stages(&config)).map(|s| whole.above(s, batch).micro_batch).collect();
                assert!(sizes[..3].iter().all(|&n| n == whole.micro_batch), "{sizes:?}");
                assert!(sizes.is_sorted() && sizes.iter().all(|&n| n <= 16), "{sizes:?}");
                for (stage, n) in sizes.into_iter().enumerate() {
                    let kept = n * cost::kept_above(&config, stage);
                    assert!(kept <= whole.micro_batch * cost::kept_per_image(&config));
                }
            }
        }
        let last = whole.above(2 * config.depth, 128).micro_batch;
        assert!(last > whole.micro_batch && last == 128 / 16, "{last}");
        assert_eq!(whole.above(2 * config.depth, 4096).micro_batch, 16);
    }

    #[test]
    fn even_examples_leave_no_thread_idle() {
        let config = Arc::new(arch::named("vit_nano_patch7_28", 10, 1).unwrap());
        let weights = Weights::random(&config, 0).unwrap();
        let model = Objective { gpu: None, micro_batch: 3, ..Objective::new(config, weights) };
        for threads in 1..8 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let n = pool.install(|| model.even_examples());
            let count = n / 3;
            assert!(count % threads == 0 && count % WAVE == 0 && count <= 4 * threads, "{count}");
        }
    }
}
