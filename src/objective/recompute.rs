//! Derivatives with little memory: every block computed again on the way back (Chen et al. 2016).
//!
//! Of the way up only the input of every block is kept. On the way back a block's values are
//! computed once more, on a tape that holds this block alone. That is one forward pass more, the
//! same operations in the same order, and so the same bits.

use super::derivatives::Wanted;
use super::{Error, Examples, Objective, Result};
use crate::tape::{Tape, Value};
use crate::vit::{Pass, stages};
use planish_kernels::{DualTensor, Precision};
use std::ops::Range;
use std::sync::Arc;

/// Stages that are computed together, and their input.
pub(super) type Door = (Range<usize>, DualTensor);

impl Objective {
    /// The doors of a micro-batch up to the part that stage `last` belongs to, without tangents:
    /// what the sweeps of all layers up to there may start from.
    pub(super) fn doors(
        &self,
        examples: &dyn Examples,
        range: Range<usize>,
        last: usize,
        precision: Precision,
    ) -> Result<Vec<Door>> {
        let mut x = self.input(examples, range)?;
        let mut doors: Vec<Door> = Vec::new();
        for part in self.parts(examples.stage()) {
            if let Some((below, door)) = doors.last() {
                if below.end > last {
                    break;
                }
                let mut pass = Pass::new(&self.config, &self.weights);
                pass.precision = precision;
                let door = Value::constant(door.clone());
                x = pass.run(below.start, below.end, door)?.tensor().clone();
            }
            doors.push((part, x.clone()));
        }
        Ok(doors)
    }

    /// As [`Objective::sweep`], to the bit, from the doors below.
    pub(super) fn sweep_recomputing(
        &self,
        examples: &dyn Examples,
        wanted: Wanted,
        range: Range<usize>,
        below: &[Door],
    ) -> Result<(f64, Vec<Option<DualTensor>>)> {
        let lowest = wanted.layer.first_stage;
        let first = below.iter().find(|(part, _)| part.end > lowest).or(below.last());
        let Some((first, door)) = first else {
            return Err(Error::NoExamples);
        };
        let mut doors: Vec<Door> = Vec::new();
        let mut x = door.clone();
        for part in self.parts(first.start) {
            doors.push((part.clone(), x.clone()));
            let (mut pass, parameters) = self.pass(wanted)?;
            for (&i, parameter) in wanted.layer.tensors.iter().zip(parameters) {
                pass.perturb(i, parameter);
            }
            x = pass.run(part.start, part.end, Value::constant(x))?.tensor().clone();
        }
        let labels: Arc<[u32]> = examples.labels()[range.clone()].into();
        let each = self.shares(examples.len(), range.len())?;
        let (sum, mut gy) = self.seed(&Tape::new(), &x, &labels, &each)?;
        if !sum.is_finite() {
            return Err(Error::NonFinite { from: range.start, to: range.end, loss: sum });
        }
        let mut found: Vec<Option<DualTensor>> = vec![None; wanted.layer.tensors.len()];
        while let (Some((part, door)), Some(cotangent)) = (doors.pop(), gy.take()) {
            let (mut pass, parameters) = self.pass(wanted)?;
            let indices = wanted.layer.tensors.iter();
            let watched: Vec<Value> =
                indices.zip(parameters).map(|(&i, parameter)| pass.watch(i, parameter)).collect();
            let door = match doors.is_empty() {
                true => Value::constant(door),
                false => pass.tape.watch(door),
            };
            let y = pass.run(part.start, part.end, door.clone())?;
            let mut gradients = pass.tape.backward(&y, cotangent)?;
            for (sum, leaf) in found.iter_mut().zip(&watched) {
                if let Some(g) = gradients.take(leaf) {
                    *sum = Some(match sum.take() {
                        Some(sum) => sum.plus(&g)?,
                        None => g,
                    });
                }
            }
            gy = gradients.take(&door);
        }
        Ok((sum, found))
    }

    /// The stages from one on: the embedding, the blocks, and all that follows them.
    fn parts(&self, from: usize) -> Vec<Range<usize>> {
        let (depth, end) = (self.config.depth, stages(&self.config));
        let ends = std::iter::once(1).chain((1..=depth).map(|b| 2 * b + 1)).chain([end]);
        let mut start = from;
        let mut parts = Vec::new();
        for end in ends.filter(|&end| end > from) {
            parts.push(start..end);
            start = end;
        }
        parts
    }

    /// A pass with an empty tape, and the layer's parameters with their tangents.
    fn pass(&self, wanted: Wanted) -> Result<(Pass<'_>, Vec<DualTensor>)> {
        let mut pass = Pass::new(&self.config, &self.weights);
        pass.precision = match wanted.vectors {
            None => self.precision,
            Some(_) => Precision::F32,
        };
        pass.tape = wanted.matrix.tape(Tape::new());
        let parameter = |(k, &i): (usize, &usize)| -> planish_kernels::Result<DualTensor> {
            let tangent = wanted.vectors.map(|v| self.here(&v[k])).transpose()?;
            DualTensor::new(self.weights.tensor(i).clone(), tangent)
        };
        let parameters = wanted.layer.tensors.iter().enumerate().map(parameter);
        let parameters = parameters.collect::<planish_kernels::Result<_>>()?;
        Ok((pass, parameters))
    }
}
