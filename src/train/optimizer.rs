//! Optimizers: compute new weights from gradients.

use super::{Error, Result};
use crate::vector;
use candle_core::{DType, Device, Tensor};
use planish_kernels::Host;
use planish_kernels::lanes::Element;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Elements that one thread handles at a time: large enough to amortise scheduling, small enough
/// for its cache.
const CHUNK: usize = 1 << 14;

/// The update rule at learning rate η.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OptimizerRule {
    /// b ← μ b + g (b = g at the first step); w ← w − η b, or w − η (g + μ b) with Nesterov
    /// momentum, as in `torch.optim.SGD` without dampening. Weight decay λ is coupled: g + λ w
    /// replaces g.
    Sgd {
        /// μ.
        momentum: f64,
        /// Whether to use Nesterov momentum (Sutskever et al., ICML 2013).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        nesterov: bool,
    },
    /// m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; w ← w − η m̂ / (√v̂ + ε) with
    /// m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ), as in `torch.optim.AdamW`. Weight decay λ is
    /// decoupled: w ← (1 − η λ) w first (Loshchilov and Hutter, ICLR 2019).
    AdamW {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
        /// ε.
        eps: f64,
    },
}

/// An optimizer: an update rule with its state per tensor. It computes in the weights' type and on
/// their device.
///
/// Weight decay applies to all tensors, including biases and norms, as torch's optimizers do by
/// default.
#[derive(Debug)]
pub struct Optimizer {
    rule: OptimizerRule,
    weight_decay: f64,
    steps: f64,
    state: Vec<Moments>,
    #[cfg(feature = "cuda")]
    on_gpu: super::on_gpu::State,
}

/// Momentum and second moment of a tensor. Only AdamW writes the second moment; zeroed pages that
/// are never written take no memory.
#[derive(Clone, Debug)]
enum Moments {
    F32([Vec<f32>; 2]),
    F64([Vec<f64>; 2]),
}

impl Moments {
    /// Zeros for a tensor; `None` if it is neither f32 nor f64.
    fn zeros(of: &Tensor) -> Option<Self> {
        let n = of.elem_count();
        match of.dtype() {
            DType::F32 => Some(Moments::F32([vec![0.0; n], vec![0.0; n]])),
            DType::F64 => Some(Moments::F64([vec![0.0; n], vec![0.0; n]])),
            _ => None,
        }
    }

    fn kind(&self) -> (DType, usize) {
        match self {
            Moments::F32([first, _]) => (DType::F32, first.len()),
            Moments::F64([first, _]) => (DType::F64, first.len()),
        }
    }
}

impl Optimizer {
    /// An optimizer before its first step.
    pub fn new(rule: OptimizerRule, weight_decay: f64) -> Self {
        Self {
            rule,
            weight_decay,
            steps: 0.0,
            state: Vec::new(),
            #[cfg(feature = "cuda")]
            on_gpu: super::on_gpu::State::default(),
        }
    }

    /// The update rule.
    pub fn rule(&self) -> OptimizerRule {
        self.rule
    }

    /// λ.
    pub fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    /// The weights after one step at learning rate `rate`. State is stored by position: every step
    /// must pass the same tensors in the same order.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if counts, shapes or types differ from those of the gradients or of the
    /// first step, or if a tensor is neither f32 nor f64.
    pub fn step(
        &mut self,
        weights: &[Tensor],
        gradients: &[Tensor],
        rate: f64,
    ) -> Result<Vec<Tensor>> {
        let made = self.steps + 1.0;
        let step = Update { rule: self.rule, decay: self.weight_decay, steps: made, rate };
        #[cfg(feature = "cuda")]
        if vector::on_gpu(weights) {
            let next = self.on_gpu.step(&step, weights, gradients)?;
            self.steps = made;
            return Ok(next);
        }
        self.check(weights, gradients)?;
        self.steps = made;
        let pairs = weights.iter().zip(gradients).zip(&mut self.state);
        pairs
            .map(|((weight, gradient), moments)| match moments {
                Moments::F32(moments) => step.tensor(weight, gradient, moments),
                Moments::F64(moments) => step.tensor(weight, gradient, moments),
            })
            .collect()
    }

    fn check(&mut self, weights: &[Tensor], gradients: &[Tensor]) -> Result<()> {
        let fail = |place: String, expected: String, found: String| {
            Err(Error::Mismatch { place, expected, found })
        };
        let expected = if self.steps == 0.0 { weights.len() } else { self.state.len() };
        for found in [weights.len(), gradients.len()] {
            if found != expected {
                let place = "number of tensors".into();
                return fail(place, expected.to_string(), found.to_string());
            }
        }
        let mut fresh = Vec::new();
        for (i, (w, g)) in weights.iter().zip(gradients).enumerate() {
            if w.dims() != g.dims() {
                let place = format!("gradient {i}");
                return fail(place, format!("{:?}", w.dims()), format!("{:?}", g.dims()));
            }
            let alike = w.dtype() == g.dtype();
            let words = |(dtype, n): (DType, usize)| format!("{n} numbers of {dtype:?}");
            let own = (w.dtype(), w.elem_count());
            match self.state.get(i).map(Moments::kind) {
                Some(kept) if !alike || kept != own => {
                    let found = format!("{}, gradient {:?}", words(own), g.dtype());
                    return fail(format!("tensor {i}"), words(kept), found);
                }
                Some(_) => {}
                None => match Moments::zeros(w).filter(|_| alike) {
                    Some(zeros) => fresh.push(zeros),
                    None => {
                        let found = format!("{:?}, gradient {:?}", w.dtype(), g.dtype());
                        return fail(
                            format!("tensor {i}"),
                            "F32 or F64, the same for both".into(),
                            found,
                        );
                    }
                },
            }
        }
        self.state.extend(fresh);
        Ok(())
    }
}

/// Parameters of one step, computed in f64 and rounded once to the weights' type.
pub(super) struct Update {
    pub rule: OptimizerRule,
    pub decay: f64,
    pub steps: f64,
    pub rate: f64,
}

impl Update {
    /// Updates one tensor, in chunks over the threads. Elements are independent, so the result does
    /// not depend on the threads.
    fn tensor<E: Element>(
        &self,
        weight: &Tensor,
        gradient: &Tensor,
        [first, second]: &mut [Vec<E>; 2],
    ) -> Result<Tensor> {
        let mut w: Vec<E> = weight.flatten_all()?.to_vec1()?;
        let gradient = gradient.contiguous()?;
        let host = Host::new("optimizer", &gradient)?;
        w.par_chunks_mut(CHUNK)
            .zip(host.slice::<E>()?.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK))
            .for_each(|(((w, g), first), second)| self.run(w, g, first, second));
        Ok(Tensor::from_vec(w, weight.shape(), &Device::Cpu)?)
    }

    fn run<E: Element>(&self, w: &mut [E], g: &[E], first: &mut [E], second: &mut [E]) {
        match self.rule {
            OptimizerRule::Sgd { momentum, nesterov } => {
                let [rate, decay, momentum] = [self.rate, self.decay, momentum].map(E::narrow);
                // With a zero buffer, the first step's b is g.
                for ((w, &g), b) in w.iter_mut().zip(g).zip(first) {
                    let g = g + decay * *w;
                    *b = momentum * *b + g;
                    *w -= rate * if nesterov { g + momentum * *b } else { *b };
                }
            }
            OptimizerRule::AdamW { beta1, beta2, eps } => {
                let [a1, a2, b2] = [1.0 - beta1, 1.0 - beta2, beta2].map(E::narrow);
                let [keep, eps] = [1.0 - self.rate * self.decay, eps].map(E::narrow);
                let scale = E::narrow(self.rate / (1.0 - libm::pow(beta1, self.steps)));
                let root = E::narrow((1.0 - libm::pow(beta2, self.steps)).sqrt());
                for (((w, &g), m), v) in w.iter_mut().zip(g).zip(first).zip(second) {
                    *m += a1 * (g - *m);
                    *v = b2 * *v + a2 * g * g;
                    *w = keep * *w - scale * *m / (v.sqrt() / root + eps);
                }
            }
        }
    }
}

/// Gradients scaled by min(1, `max_norm` / (‖g‖ + 10⁻⁶)), as in torch's `clip_grad_norm_`, and ‖g‖
/// before scaling. ‖g‖ is the Euclidean norm over all tensors together, summed in f64 in a fixed
/// order. A non-finite norm is returned for the caller to handle.
///
/// # Errors
/// Gradients that are neither f32 nor f64.
pub fn clip(gradients: Vec<Tensor>, max_norm: f64) -> Result<(Vec<Tensor>, f64)> {
    let norm = vector::norm(&gradients)?;
    let factor = max_norm / (norm + 1e-6);
    if factor >= 1.0 || !norm.is_finite() {
        return Ok((gradients, norm));
    }
    Ok((vector::scaled(&gradients, factor)?, norm))
}

#[cfg(test)]
#[path = "optimizer_tests.rs"]
mod tests;
