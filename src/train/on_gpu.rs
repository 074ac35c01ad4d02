//! Optimizer steps on a GPU: all tensors of a layer in one kernel launch.

use super::optimizer::{OptimizerRule, Update};
use super::{Error, Result};
use crate::device::allocate;
use candle_core::{DType, Tensor};
use planish_kernels::cuda::gpu::{Moments, adamw_step, sgd_step};
use planish_kernels::cuda::{AdamW, Sgd};

/// What to do if a step needs too much memory.
const FEWER: &str = "update fewer layers";

/// The optimizer state.
#[derive(Debug, Default)]
pub(super) struct State(Option<Remembered>);

#[derive(Debug)]
struct Remembered {
    kinds: Vec<(DType, Vec<usize>)>,
    moments: Moments,
}

impl State {
    /// The weights after one step.
    pub fn step(
        &mut self,
        update: &Update,
        weights: &[Tensor],
        gradients: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let lists = match update.rule {
            OptimizerRule::Sgd { .. } => 1,
            OptimizerRule::AdamW { .. } => 2,
        };
        let kind = |x: &Tensor| (x.dtype(), x.dims().to_vec());
        let kinds = |list: &[Tensor]| list.iter().map(kind).collect::<Vec<_>>();
        let now = kinds(weights);
        let same = |place: &str, expected: &[(DType, Vec<usize>)], found: &[_]| {
            let text = |kinds: &[(DType, Vec<usize>)]| format!("{kinds:?}");
            match expected == found {
                true => Ok(()),
                false => Err(Error::Mismatch {
                    place: place.into(),
                    expected: text(expected),
                    found: text(found),
                }),
            }
        };
        same("gradients", &now, &kinds(gradients))?;
        if let Some(known) = &self.0 {
            same("weights", &known.kinds, &now)?;
        }
        let Some(device) = weights.first().map(Tensor::device) else { return Ok(Vec::new()) };
        let bytes = weights.iter().map(|x| x.elem_count() * x.dtype().size_in_bytes());
        let bytes = bytes.sum::<usize>() as u64;
        let known = match self.0.take() {
            Some(known) => known,
            None => {
                let what = ("the optimizer state", lists as u64 * bytes, FEWER);
                Remembered {
                    moments: allocate(device, what, || Moments::zeros(weights, lists))?,
                    kinds: now,
                }
            }
        };
        let moments = &mut self.0.insert(known).moments;
        let Update { decay, rate, steps, .. } = *update;
        let what = ("the weights after a step", bytes, FEWER);
        // Allocate before anything changes, so that a failed step can be retried.
        Ok(match update.rule {
            OptimizerRule::Sgd { momentum, nesterov } => {
                let by = Sgd { rate, momentum, decay, nesterov };
                allocate(device, what, || sgd_step(weights, gradients, moments, by))?
            }
            OptimizerRule::AdamW { beta1, beta2, eps } => {
                let by = AdamW {
                    beta1,
                    beta2,
                    eps,
                    keep: 1.0 - rate * decay,
                    scale: rate / (1.0 - libm::pow(beta1, steps)),
                    root: (1.0 - libm::pow(beta2, steps)).sqrt(),
                };
                allocate(device, what, || adamw_step(weights, gradients, moments, by))?
            }
        })
    }
}
