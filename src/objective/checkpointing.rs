//! Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): derivatives in less memory.
//!
//! The forward pass saves only the input of each block. The backward pass recomputes a block's
//! activations on a tape of its own before it differentiates the block. This costs one more forward
//! pass. Operations run in the same order, so the results have the same bits.

use super::derivatives::DerivativeRequest;
use super::{Error, Examples, Objective, Result};
use crate::engine::Precision;
use crate::models::{Pass, cost};
use crate::tape::{Tape, Value};
use planish_kernels::DualTensor;
use std::ops::Range;
use std::sync::Arc;

/// A range of stages that is recomputed as a unit, and its input.
pub(super) type StageInput = (Range<usize>, DualTensor);

impl Objective {
    /// Inputs of all units up to the one that contains stage `last`, without tangents. The sweeps
    /// of all layers up to `last` can start from these.
    pub(super) fn stage_inputs(
        &self,
        examples: &dyn Examples,
        range: Range<usize>,
        last: usize,
        precision: Precision,
    ) -> Result<Vec<StageInput>> {
        let mut x = self.input(examples, range)?;
        let mut stage_inputs: Vec<StageInput> = Vec::new();
        for part in cost::units(&self.network, examples.stage()) {
            if let Some((below, stage_input)) = stage_inputs.last() {
                if below.end > last {
                    break;
                }
                let mut pass = self.pass(precision);
                let stage_input = Value::constant(stage_input.clone());
                x = pass.run(below.start, below.end, stage_input)?.tensor().clone();
            }
            stage_inputs.push((part, x.clone()));
        }
        Ok(stage_inputs)
    }

    /// Same as [`Objective::sweep`], bit for bit, starting from the stage inputs `below`.
    pub(super) fn sweep_checkpointed(
        &self,
        examples: &dyn Examples,
        request: DerivativeRequest,
        range: Range<usize>,
        below: &[StageInput],
    ) -> Result<(f64, Vec<Option<DualTensor>>)> {
        let lowest = request.layer.first_stage;
        let first = below.iter().find(|(part, _)| part.end > lowest).or(below.last());
        let Some((first, stage_input)) = first else {
            return Err(Error::NoExamples);
        };
        let mut stage_inputs: Vec<StageInput> = Vec::new();
        let mut x = stage_input.clone();
        for part in cost::units(&self.network, first.start) {
            stage_inputs.push((part.clone(), x.clone()));
            let (mut pass, parameters) = self.pass_of_layer(request)?;
            for (&i, parameter) in request.layer.tensors.iter().zip(parameters) {
                pass.perturb(i, parameter);
            }
            x = pass.run(part.start, part.end, Value::constant(x))?.tensor().clone();
        }
        let labels: Arc<[u32]> = examples.labels()[range.clone()].into();
        let example_weights = self.example_weights(examples.len(), range.len())?;
        let (sum, mut gy) = self.loss_gradient(&Tape::new(), &x, &labels, &example_weights)?;
        if !sum.is_finite() {
            return Err(Error::NonFinite { from: range.start, to: range.end, loss: sum });
        }
        let mut found: Vec<Option<DualTensor>> = vec![None; request.layer.tensors.len()];
        while let (Some((part, stage_input)), Some(cotangent)) = (stage_inputs.pop(), gy.take()) {
            let (mut pass, parameters) = self.pass_of_layer(request)?;
            let indices = request.layer.tensors.iter();
            let watched: Vec<Value> =
                indices.zip(parameters).map(|(&i, parameter)| pass.watch(i, parameter)).collect();
            let stage_input = match stage_inputs.is_empty() {
                true => Value::constant(stage_input),
                false => pass.tape.watch(stage_input),
            };
            let y = pass.run(part.start, part.end, stage_input.clone())?;
            let mut gradients = pass.tape.backward(&y, cotangent)?;
            for (sum, leaf) in found.iter_mut().zip(&watched) {
                if let Some(g) = gradients.take(leaf) {
                    *sum = Some(match sum.take() {
                        Some(sum) => sum.plus(&g)?,
                        None => g,
                    });
                }
            }
            gy = gradients.take(&stage_input);
        }
        Ok((sum, found))
    }

    /// A pass with an empty tape, and the layer's parameters with their tangents.
    fn pass_of_layer(&self, request: DerivativeRequest) -> Result<(Pass<'_>, Vec<DualTensor>)> {
        let mut pass = self.pass(self.precision_of(request));
        pass.tape = request.matrix.tape(Tape::new());
        let parameter = |(k, &i): (usize, &usize)| -> planish_kernels::Result<DualTensor> {
            let tangent = request.vectors.map(|v| self.to_device(&v[k])).transpose()?;
            DualTensor::new(self.weights.tensor(i).clone(), tangent)
        };
        let parameters = request.layer.tensors.iter().enumerate().map(parameter);
        let parameters = parameters.collect::<planish_kernels::Result<_>>()?;
        Ok((pass, parameters))
    }
}
