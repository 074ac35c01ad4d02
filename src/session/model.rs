//! A checkpoint as a model for evaluation.

use crate::checkpoint::{AdapterInfo, Checkpoint, CheckpointInfo, Error as CheckpointError};
use crate::engine::Engine;
use crate::objective::{Examples, Objective, Result as ObjectiveResult};
use crate::observe::Task;
use candle_core::{DType, Tensor};
use std::ops::Range;

/// The checkpoint's loss, computed in f32 or f64.
///
/// # Errors
/// Weights that are not finite; a file that cannot be read in the requested precision.
pub fn objective(
    checkpoint: &Checkpoint,
    dtype: DType,
    engine: &Engine,
) -> Result<Objective, CheckpointError> {
    checkpoint.check_finite()?;
    let weights = match dtype {
        DType::F32 => checkpoint.weights.clone(),
        other => checkpoint.weights_as(other)?,
    };
    Ok(Objective::new(checkpoint.network.clone(), weights, engine))
}

/// The report's information on a checkpoint.
pub fn checkpoint_info(checkpoint: &Checkpoint) -> CheckpointInfo {
    CheckpointInfo {
        path: checkpoint.path.display().to_string(),
        digest: checkpoint.digest.clone(),
        layout: checkpoint.layout.name().into(),
        architecture: checkpoint.architecture.clone(),
        parameters: checkpoint.weights.parameters(),
        preprocessing: checkpoint.preprocess.clone(),
        adapter: checkpoint.adapter().map(|adapter| AdapterInfo {
            path: adapter.path.display().to_string(),
            digest: adapter.digest.clone(),
        }),
    }
}

/// Examples that advance a task when they are read.
pub struct Counted<'a> {
    /// The examples.
    pub examples: &'a dyn Examples,
    /// The task.
    pub task: &'a Task<'a>,
}

impl Examples for Counted<'_> {
    fn len(&self) -> usize {
        self.examples.len()
    }
    fn stage(&self) -> usize {
        self.examples.stage()
    }
    fn inputs(&self, range: Range<usize>) -> ObjectiveResult<Tensor> {
        let steps = range.len() as u64;
        let inputs = self.examples.inputs(range);
        self.task.advance(steps);
        inputs
    }
    fn prefetch(&self, indices: &[usize]) {
        self.examples.prefetch(indices);
    }
    fn labels(&self) -> &[u32] {
        self.examples.labels()
    }
}
