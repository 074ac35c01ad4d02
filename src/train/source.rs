//! Where mini-batches come from: the training images, or their activations at the lowest layer
//! that post-training touches, computed once.

use crate::gather::Gather;
use crate::objective::{Activations, Examples, Objective, Result};
use candle_core::Tensor;
use std::ops::Range;

/// Training examples, drawn by position.
pub enum Source<'a> {
    /// Activations of all examples, in memory: the frozen prefix has been run once for good.
    Cached(Activations),
    /// The prefix is run anew for every mini-batch.
    Fresh {
        /// The model; only its frozen prefix is used.
        prefix: Objective,
        /// The images.
        images: &'a dyn Examples,
        /// The stage whose input is wanted.
        stage: usize,
    },
}

impl<'a> Source<'a> {
    /// Runs the frozen prefix over all images if their activations fit into `budget` bytes, else
    /// leaves it to each mini-batch. `done` hears of images as they pass.
    ///
    /// # Errors
    /// Those of reading and evaluating the images.
    pub fn new(
        prefix: &Objective,
        images: &'a dyn Examples,
        stage: usize,
        budget: usize,
        done: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        if cache_bytes(prefix, images, stage) > budget {
            return Ok(Source::Fresh { prefix: prefix.clone(), images, stage });
        }
        let mut parts = Gather::new(images.len(), prefix.dtype());
        // A micro-batch for every thread, told of as they pass.
        let step = prefix.micro_batch.max(1) * rayon::current_num_threads();
        for start in (0..images.len()).step_by(step) {
            let range = start..(start + step).min(images.len());
            let next = range.end..(range.end + step).min(images.len());
            images.ahead_at(&next.collect::<Vec<_>>());
            let part = Run { images, range: range.clone() };
            parts.add(&prefix.activations(&part, stage)?.values)?;
            done(range.len());
        }
        let (values, labels) = (parts.finish()?, images.labels().into());
        Ok(Source::Cached(Activations { stage, values, labels }))
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        match self {
            Source::Cached(all) => all.len(),
            Source::Fresh { images, .. } => images.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the prefix has been run once for good.
    pub fn is_cached(&self) -> bool {
        matches!(self, Source::Cached(_))
    }

    /// The examples at these positions, at the source's stage.
    ///
    /// # Errors
    /// Those of reading and evaluating the images.
    pub fn batch(&self, indices: &[usize]) -> Result<Activations> {
        match self {
            Source::Cached(all) => all.select(indices),
            Source::Fresh { prefix, images, stage } => {
                prefix.activations(&Chosen::new(*images, indices), *stage)
            }
        }
    }
}

/// Bytes that the activations of all images take at a stage's input.
pub fn cache_bytes(prefix: &Objective, images: &dyn Examples, stage: usize) -> usize {
    let numbers = prefix.config.numbers_at(stage);
    images.len().saturating_mul(numbers * prefix.dtype().size_in_bytes())
}

/// A run of examples.
struct Run<'a> {
    images: &'a dyn Examples,
    range: Range<usize>,
}

impl Examples for Run<'_> {
    fn len(&self) -> usize {
        self.range.len()
    }
    fn stage(&self) -> usize {
        self.images.stage()
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        self.images.inputs(self.range.start + range.start..self.range.start + range.end)
    }
    fn ahead_at(&self, indices: &[usize]) {
        let all: Vec<usize> = indices.iter().map(|i| self.range.start + i).collect();
        self.images.ahead_at(&all);
    }
    fn labels(&self) -> &[u32] {
        &self.images.labels()[self.range.clone()]
    }
}

/// Examples at scattered positions.
struct Chosen<'a> {
    images: &'a dyn Examples,
    indices: &'a [usize],
    labels: Vec<u32>,
}

impl<'a> Chosen<'a> {
    fn new(images: &'a dyn Examples, indices: &'a [usize]) -> Self {
        let labels = indices.iter().map(|&i| images.labels()[i]).collect();
        Self { images, indices, labels }
    }
}

impl Examples for Chosen<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn stage(&self) -> usize {
        self.images.stage()
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        self.images.inputs_at(&self.indices[range])
    }
    fn ahead_at(&self, indices: &[usize]) {
        let all: Vec<usize> = indices.iter().map(|&i| self.indices[i]).collect();
        self.images.ahead_at(&all);
    }
    fn labels(&self) -> &[u32] {
        &self.labels
    }
}
