//! What one pass over values leaves for passes of tangents along the same values.

use candle_core::Tensor;
use planish_kernels::DualTensor;

/// Values of one pass, operation by operation.
#[derive(Default)]
pub struct Record {
    operations: Vec<Known>,
    /// For each stage passed, the first of its operations and the input.
    stages: Vec<Option<(usize, DualTensor)>>,
}

/// Values that spare an operation work.
#[derive(Clone, Default)]
pub struct Known {
    /// y.
    pub output: Option<Tensor>,
    /// gx₀.
    pub gradient: Option<Tensor>,
}

impl Record {
    /// An operation is next; its place.
    pub(super) fn push(&mut self, output: Option<Tensor>) -> usize {
        self.operations.push(Known { output, gradient: None });
        self.operations.len() - 1
    }

    pub(super) fn enter(&mut self, stage: usize, x: &DualTensor) {
        if self.stages.len() <= stage {
            self.stages.resize(stage + 1, None);
        }
        self.stages[stage] = Some((self.operations.len(), x.clone()));
    }

    pub(super) fn set_gradient(&mut self, operation: usize, gradient: Option<&DualTensor>) {
        if let (Some(known), Some(g)) = (self.operations.get_mut(operation), gradient) {
            known.gradient = Some(g.value().clone());
        }
    }

    pub(super) fn known(&self, operation: usize) -> Option<&Known> {
        self.operations.get(operation)
    }

    pub(super) fn first_of(&self, stage: usize) -> usize {
        self.stages.get(stage).and_then(Option::as_ref).map_or(usize::MAX, |s| s.0)
    }

    /// The input of a stage that was passed.
    pub fn door(&self, stage: usize) -> Option<&DualTensor> {
        self.stages.get(stage)?.as_ref().map(|s| &s.1)
    }
}
