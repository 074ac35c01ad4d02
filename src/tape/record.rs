//! Primal values of one pass, reused by later passes that only differ in tangents.

use candle_core::Tensor;
use planish_kernels::DualTensor;

/// Primal values of one pass, one entry per operation.
#[derive(Default)]
pub struct Record {
    operations: Vec<Primals>,
    /// Per stage: index of its first operation, and its input.
    stages: Vec<Option<(usize, DualTensor)>>,
}

/// Primal values that save an operation work in a replay.
#[derive(Clone, Default)]
pub struct Primals {
    /// Value of y.
    pub output: Option<Tensor>,
    /// Value of gx₀.
    pub gradient: Option<Tensor>,
}

impl Record {
    /// Appends an operation and returns its index.
    pub(super) fn push(&mut self, output: Option<Tensor>) -> usize {
        self.operations.push(Primals { output, gradient: None });
        self.operations.len() - 1
    }

    pub(super) fn enter(&mut self, stage: usize, x: &DualTensor) {
        if self.stages.len() <= stage {
            self.stages.resize(stage + 1, None);
        }
        self.stages[stage] = Some((self.operations.len(), x.clone()));
    }

    pub(super) fn set_gradient(&mut self, operation: usize, gradient: Option<&DualTensor>) {
        if let (Some(primals), Some(g)) = (self.operations.get_mut(operation), gradient) {
            primals.gradient = Some(g.value().clone());
        }
    }

    pub(super) fn primals(&self, operation: usize) -> Option<&Primals> {
        self.operations.get(operation)
    }

    pub(super) fn first_operation(&self, stage: usize) -> usize {
        self.stages.get(stage).and_then(Option::as_ref).map_or(usize::MAX, |s| s.0)
    }

    /// The recorded input of a stage. `None` if the pass did not run that stage.
    pub fn stage_input(&self, stage: usize) -> Option<&DualTensor> {
        self.stages.get(stage)?.as_ref().map(|s| &s.1)
    }
}
