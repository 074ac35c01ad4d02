//! What the model is evaluated on: labelled inputs of one of its stages.

use crate::cache;
use crate::objective::Result;
use crate::vector;
use candle_core::{Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Labelled inputs of the model, at the door of one of its stages.
pub trait Examples: Sync {
    /// How many.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The stage whose input these are; 0 means pixels.
    fn stage(&self) -> usize;
    /// Inputs of a run of examples: (n, C, H, W), (n, T, D) or (n, D).
    fn inputs(&self, range: Range<usize>) -> Result<Tensor>;
    /// Inputs of the examples at these positions, in the order given.
    fn inputs_at(&self, indices: &[usize]) -> Result<Tensor> {
        let rows: Vec<Tensor> =
            indices.iter().map(|&i| self.inputs(i..i + 1)).collect::<Result<_>>()?;
        Ok(Tensor::cat(&rows, 0)?)
    }
    /// Hears that the inputs of these examples will be asked for next, in this order, so that
    /// their images can be decoded meanwhile. Nothing but time depends on it.
    fn prefetch(&self, _indices: &[usize]) {}
    /// Their labels.
    fn labels(&self) -> &[u32];
    /// What tells these inputs from all others, in whatever run: a digest of the data and all that
    /// is done to it. Nothing where they cannot be told apart; then nothing computed from them
    /// outlives the run.
    ///
    /// # Errors
    /// Inputs that cannot be digested.
    fn fingerprint(&self) -> cache::Result<Option<String>> {
        Ok(None)
    }
}

/// Activations held in memory, the CPU's or a GPU's.
#[derive(Clone, Debug)]
pub struct Activations {
    /// The stage whose input they are.
    pub stage: usize,
    /// One row of the first dimension for each example.
    pub values: Tensor,
    /// One label for each.
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
    /// Some of the examples, in the order given.
    pub fn select(&self, indices: &[usize]) -> Result<Activations> {
        let labels: Vec<u32> = indices.iter().map(|&i| self.labels[i]).collect();
        let values = match self.values.device() {
            Device::Cpu => {
                let rows = Tensor::from_iter(indices.iter().map(|&i| i as u32), &Device::Cpu)?;
                self.values.index_select(&rows, 0)?
            }
            // Row by row, which is a copy each and takes no kernel.
            _ => {
                let rows = indices.iter().map(|&i| self.values.narrow(0, i, 1));
                vector::concat(&rows.collect::<candle_core::Result<Vec<_>>>()?)?
            }
        };
        Ok(Self { stage: self.stage, values, labels: labels.into() })
    }
}

/// The first of some examples.
pub struct Part<'a> {
    of: &'a dyn Examples,
    len: usize,
}

impl<'a> Part<'a> {
    /// The first `len`, or all if there are fewer.
    pub fn first(of: &'a dyn Examples, len: usize) -> Self {
        Self { of, len: len.min(of.len()) }
    }
}

impl Examples for Part<'_> {
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
