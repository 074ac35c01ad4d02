//! Labelled inputs of one of the model's stages.

use super::Result;
use crate::cache;
use crate::vector;
use candle_core::{Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Labelled inputs of one of the model's stages.
pub trait Examples: Sync {
    /// Number of examples.
    fn len(&self) -> usize;
    /// Whether there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The stage whose inputs these are; 0 means pixels.
    fn stage(&self) -> usize;
    /// Inputs of a range of examples: (n, C, H, W), (n, T, D) or (n, D).
    fn inputs(&self, range: Range<usize>) -> Result<Tensor>;
    /// Inputs of the examples at these indices, in this order.
    fn inputs_at(&self, indices: &[usize]) -> Result<Tensor> {
        let rows: Vec<Tensor> =
            indices.iter().map(|&i| self.inputs(i..i + 1)).collect::<Result<_>>()?;
        Ok(Tensor::cat(&rows, 0)?)
    }
    /// Prefetch hint: the inputs of these examples are requested next, in this order, so their
    /// images can be decoded meanwhile. Does not affect results.
    fn prefetch(&self, _indices: &[usize]) {}
    /// Their labels.
    fn labels(&self) -> &[u32];
    /// Stable fingerprint of the data and its transforms, the same in every run. `None` if there is
    /// none; then nothing computed from these inputs is cached beyond the run.
    ///
    /// # Errors
    /// Inputs that cannot be read.
    fn fingerprint(&self) -> cache::Result<Option<String>> {
        Ok(None)
    }
}

/// Activations in CPU or GPU memory.
#[derive(Clone, Debug)]
pub struct Activations {
    /// The stage whose inputs they are.
    pub stage: usize,
    /// (N, …): one entry of the first dimension per example.
    pub values: Tensor,
    /// One label per example.
    pub labels: Arc<[u32]>,
}

impl Examples for Activations {
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn stage(&self) -> usize {
        self.stage
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        Ok(self.values.narrow(0, range.start, range.len())?)
    }
    fn labels(&self) -> &[u32] {
        &self.labels
    }
    fn fingerprint(&self) -> cache::Result<Option<String>> {
        Ok(Some(format!("stage {}: {}", self.stage, cache::digest(&self.values)?)))
    }
}

impl Activations {
    /// The examples at these indices, in this order.
    pub fn select(&self, indices: &[usize]) -> Result<Activations> {
        let labels: Vec<u32> = indices.iter().map(|&i| self.labels[i]).collect();
        let values = match self.values.device() {
            Device::Cpu => {
                let rows = Tensor::from_iter(indices.iter().map(|&i| i as u32), &Device::Cpu)?;
                self.values.index_select(&rows, 0)?
            }
            // One device copy per row; needs no kernel.
            _ => {
                let rows = indices.iter().map(|&i| self.values.narrow(0, i, 1));
                vector::concat(&rows.collect::<candle_core::Result<Vec<_>>>()?)?
            }
        };
        Ok(Self { stage: self.stage, values, labels: labels.into() })
    }
}

/// The first examples of a set.
pub struct ExampleSubset<'a> {
    of: &'a dyn Examples,
    len: usize,
}

impl<'a> ExampleSubset<'a> {
    /// The first `len` examples, or all if there are fewer.
    pub fn first(of: &'a dyn Examples, len: usize) -> Self {
        Self { of, len: len.min(of.len()) }
    }
}

impl Examples for ExampleSubset<'_> {
    fn len(&self) -> usize {
        self.len
    }
    fn stage(&self) -> usize {
        self.of.stage()
    }
    fn inputs(&self, range: Range<usize>) -> Result<Tensor> {
        self.of.inputs(range)
    }
    fn inputs_at(&self, indices: &[usize]) -> Result<Tensor> {
        self.of.inputs_at(indices)
    }
    fn prefetch(&self, indices: &[usize]) {
        self.of.prefetch(indices);
    }
    fn labels(&self) -> &[u32] {
        &self.of.labels()[..self.len]
    }
}
