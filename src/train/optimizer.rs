//! SGD with momentum and AdamW, as `torch.optim` defines them.

use candle_core::{DType, Device, Tensor};
use planish_kernels::lanes::Element;
use planish_kernels::{Error, Host, Result};
use rayon::prelude::*;

/// Numbers that one thread steps at a time.
const BLOCK: usize = 1 << 14;

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// v ← μ v + g; w ← w − η v, or w − η (g + μ v) with Nesterov's step. The first v is g.
    Sgd {
        /// μ.
        momentum: f64,
        /// Whether to step by g + μ v.
        nesterov: bool,
    },
    /// m, s ← moving averages of g and g²; w ← w − η (m̂/(√ŝ + ε)), bias-corrected (Loshchilov &
    /// Hutter, ICLR 2019).
    AdamW {
        /// Decay of m.
        beta1: f64,
        /// Decay of s.
        beta2: f64,
        /// ε.
        eps: f64,
    },
}

/// An optimizer with its state, one entry for each tensor it steps.
///
/// Weight decay λ is coupled for SGD (g ← g + λ w, as in `torch.optim.SGD`) and decoupled for
/// AdamW (w ← w − η λ w). It applies to every tensor, biases and norms included.
pub struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    steps: i32,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

impl Optimizer {
    /// An optimizer without state.
    pub fn new(rule: Rule, weight_decay: f64) -> Self {
        Self { rule, weight_decay, steps: 0, first: Vec::new(), second: Vec::new() }
    }

    /// The weights after one step at learning rate `rate`. Every call gives the same tensors, in
    /// the same order.
    ///
    /// # Errors
    /// Tensors that differ in number, shape or type from their gradients or from the last call's.
    pub fn step(
        &mut self,
        weights: &[Tensor],
        gradients: &[Tensor],
        rate: f64,
    ) -> Result<Vec<Tensor>> {
        let fresh = self.first.is_empty();
        if weights.len() != gradients.len() || (!fresh && self.first.len() != weights.len()) {
            return Err(Error::shape(
                "optimizer",
                format!("{} tensors", weights.len()),
                format!("{} gradients, {} states", gradients.len(), self.first.len()),
            ));
        }
        if fresh {
            let zeros =
                || weights.iter().map(Tensor::zeros_like).collect::<candle_core::Result<_>>();
            self.first = zeros()?;
            if matches!(self.rule, Rule::AdamW { .. }) {
                self.second = zeros()?;
            }
        }
        self.steps += 1;
        let mut out = Vec::with_capacity(weights.len());
        for (i, (w, g)) in weights.iter().zip(gradients).enumerate() {
            out.push(match w.dtype() {
                DType::F32 => self.step_one::<f32>(i, w, g, rate)?,
                _ => self.step_one::<f64>(i, w, g, rate)?,
            });
        }
        Ok(out)
    }

    fn step_one<E: Element>(
        &mut self,
        i: usize,
        w: &Tensor,
        g: &Tensor,
        rate: f64,
    ) -> Result<Tensor> {
        let held = Host::new("optimizer", g)?;
        let gradient = held.slice::<E>()?;
        let copy = |t: &Tensor| Ok::<_, Error>(Host::new("optimizer", t)?.slice::<E>()?.to_vec());
        let (mut new, mut first) = (copy(w)?, copy(&self.first[i])?);
        if gradient.len() != new.len() || first.len() != new.len() {
            return Err(Error::shape(
                "optimizer",
                format!("{:?}", w.dims()),
                format!("{:?}", g.dims()),
            ));
        }
        let decay = self.weight_decay;
        match self.rule {
            Rule::Sgd { momentum, nesterov } => {
                let start = self.steps == 1;
                zip3(&mut new, &mut first, gradient, |w, v, g| {
                    let g = g + decay * *w;
                    *v = if start { g } else { momentum * *v + g };
                    *w -= rate * if nesterov { g + momentum * *v } else { *v };
                });
            }
            Rule::AdamW { beta1, beta2, eps } => {
                let mut second = copy(&self.second[i])?;
                zip3(&mut first, &mut second, gradient, |m, s, g| {
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *s = beta2 * *s + (1.0 - beta2) * g * g;
                });
                let (c1, c2) = (1.0 - beta1.powi(self.steps), 1.0 - beta2.powi(self.steps));
                new.par_chunks_mut(BLOCK)
                    .zip(first.par_chunks(BLOCK).zip(second.par_chunks(BLOCK)))
                    .for_each(|(w, (m, s))| {
                        for (w, (m, s)) in w.iter_mut().zip(m.iter().zip(s)) {
                            let step = m.wide() / c1 / ((s.wide() / c2).sqrt() + eps);
                            *w = E::narrow(w.wide() * (1.0 - rate * decay) - rate * step);
                        }
                    });
                self.second[i] = Tensor::from_vec(second, w.dims(), &Device::Cpu)?;
            }
        }
        self.first[i] = Tensor::from_vec(first, w.dims(), &Device::Cpu)?;
        Ok(Tensor::from_vec(new, w.dims(), &Device::Cpu)?)
    }
}

/// Applies `f` to triples, in f64 registers, over threads.
fn zip3<E: Element>(a: &mut [E], b: &mut [E], c: &[E], f: impl Fn(&mut f64, &mut f64, f64) + Sync) {
    a.par_chunks_mut(BLOCK).zip(b.par_chunks_mut(BLOCK).zip(c.par_chunks(BLOCK))).for_each(
        |(a, (b, c))| {
            for (a, (b, c)) in a.iter_mut().zip(b.iter_mut().zip(c)) {
                let (mut x, mut y) = (a.wide(), b.wide());
                f(&mut x, &mut y, c.wide());
                (*a, *b) = (E::narrow(x), E::narrow(y));
            }
        },
    );
}

/// Scales gradients to a joint Euclidean norm of at most `max_norm`; also returns the norm before.
///
/// # Errors
/// Gradients that no inner product can be taken of.
pub fn clip(gradients: &[Tensor], max_norm: f64) -> Result<(Vec<Tensor>, f64)> {
    let norm = crate::vector::norm(gradients)?;
    if norm <= max_norm {
        return Ok((gradients.to_vec(), norm));
    }
    let factor = max_norm / norm;
    let scaled = gradients.iter().map(|g| g * factor).collect::<candle_core::Result<_>>()?;
    Ok((scaled, norm))
}
