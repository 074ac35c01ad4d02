//! Loss, gradient and Hessian-vector product of chosen layers over a set of examples.
//!
//! L(w) = (1/N) Σᵢ ℓᵢ(w), ℓᵢ the cross-entropy of example i in nats. Examples are taken in
//! micro-batches whose sums are added, each example weighted 1/N: the size of a micro-batch is a
//! matter of memory alone. Stages below the lowest chosen layer run without a tape.

mod error;

pub use crate::examples::{Activations, Examples};
pub use error::{Error, Result};

use crate::evaluate::Predictions;
use crate::gather::Gather;
use crate::tape::Value;
use crate::vit::{Config, Layer, Pass, Weights, cost, stages};
use candle_core::{DType, Device, Tensor};
use planish_kernels::{CrossEntropy, DualTensor};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// A model's loss.
#[derive(Clone, Debug)]
pub struct Objective {
    /// The architecture.
    pub config: Arc<Config>,
    /// The weights; f32, or f64 throughout.
    pub weights: Weights,
    /// Examples per micro-batch.
    pub micro_batch: usize,
    /// Label smoothing of the cross-entropy.
    pub smoothing: f64,
}

/// Loss and gradient of a layer, with Hessian-vector products where directions were given.
#[derive(Clone, Debug)]
pub struct Derivatives {
    /// Mean loss, nats.
    pub loss: f64,
    /// Gradient, one tensor for each of the layer's.
    pub gradient: Vec<Tensor>,
    /// H v, one tensor for each of the layer's; empty without a direction.
    pub hvp: Vec<Tensor>,
}

impl Objective {
    /// An objective without label smoothing.
    pub fn new(config: Arc<Config>, weights: Weights) -> Self {
        let micro_batch = micro_batch(&config);
        Self { config, weights, micro_batch, smoothing: 0.0 }
    }

    /// The same objective at other weights.
    pub fn at(&self, weights: Weights) -> Self {
        Self { weights, ..self.clone() }
    }

    /// The type of the weights.
    pub fn dtype(&self) -> DType {
        self.weights.tensor(0).dtype()
    }

    fn chunks(&self, examples: &dyn Examples) -> Result<Vec<Range<usize>>> {
        let n = examples.len();
        if n == 0 {
            return Err(Error::NoExamples);
        }
        let step = self.micro_batch.max(1);
        Ok((0..n).step_by(step).map(|i| i..(i + step).min(n)).collect())
    }

    /// Applies `work` to every micro-batch and hands the results to `take` in order.
    ///
    /// Micro-batches run side by side, one a thread, and the operations inside each run on its
    /// thread alone: nothing waits for anything but the sum at the end. As many results are alive
    /// as there are threads, while images for the next are decoded. The sum's order is that of the
    /// micro-batches, whatever the threads.
    fn each<T: Send>(
        &self,
        examples: &dyn Examples,
        work: impl Fn(Range<usize>) -> Result<T> + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let chunks = self.chunks(examples)?;
        let mut waves = chunks.chunks(rayon::current_num_threads().max(1)).peekable();
        while let Some(wave) = waves.next() {
            if let Some(next) = waves.peek() {
                examples.ahead_at(&next.iter().flat_map(Range::clone).collect::<Vec<_>>());
            }
            if let [range] = wave {
                take(work(range.clone())?)?;
                continue;
            }
            let results: Vec<Result<T>> = wave.par_iter().map(|r| work(r.clone())).collect();
            for result in results {
                take(result?)?;
            }
        }
        Ok(())
    }

    fn input(&self, examples: &dyn Examples, range: Range<usize>) -> Result<DualTensor> {
        Ok(DualTensor::constant(examples.inputs(range)?.to_dtype(self.dtype())?))
    }

    /// Activations at the input of `stage`, computed without a tape.
    pub fn activations(&self, examples: &dyn Examples, stage: usize) -> Result<Activations> {
        let mut parts = Gather::new(examples.len(), self.dtype());
        let forward = |range| {
            let x = self.input(examples, range)?;
            let mut pass = Pass::new(&self.config, &self.weights);
            let y = pass.run(examples.stage(), stage, Value::constant(x))?;
            Ok(y.tensor().value().clone())
        };
        self.each(examples, forward, |part| parts.add(&part))?;
        Ok(Activations { stage, values: parts.finish()?, labels: examples.labels().into() })
    }

    /// Logits of all examples, in order.
    pub fn predict(&self, examples: &dyn Examples) -> Result<Predictions> {
        let logits = self.activations(examples, stages(&self.config))?.values;
        let values = logits.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        Ok(Predictions::new(values, self.config.classes, examples.labels())?)
    }

    /// Logits and their derivative along `direction`, a tensor for each of the layer's.
    ///
    /// Where the logits are linear in the layer's weights (the head, and the norm before it),
    /// the two give the logits everywhere on the line.
    pub fn predict_along(
        &self,
        examples: &dyn Examples,
        layer: &Layer,
        direction: &[Tensor],
    ) -> Result<(Tensor, Tensor)> {
        let (mut logits, mut slopes) = (Vec::new(), Vec::new());
        let forward = |range| {
            let x = self.input(examples, range)?;
            let mut pass = Pass::new(&self.config, &self.weights);
            for (&i, d) in layer.tensors.iter().zip(direction) {
                let tangent = Some(d.unsqueeze(0)?);
                pass.perturb(i, DualTensor::new(self.weights.tensor(i).clone(), tangent)?);
            }
            let y = pass.run(examples.stage(), stages(&self.config), Value::constant(x))?;
            let (value, tangent) = y.tensor().clone().into_parts();
            let slope = match tangent {
                Some(t) => t.squeeze(0)?,
                None => value.zeros_like()?,
            };
            Ok((value, slope))
        };
        self.each(examples, forward, |(value, slope)| {
            logits.push(value);
            slopes.push(slope);
            Ok(())
        })?;
        Ok((Tensor::cat(&logits, 0)?, Tensor::cat(&slopes, 0)?))
    }

    /// Loss and gradient in the layer's weights.
    pub fn gradient(&self, examples: &dyn Examples, layer: &Layer) -> Result<Derivatives> {
        self.derivatives(examples, layer, None)
    }

    /// Loss, gradient and H v for one direction v, a tensor for each of the layer's.
    ///
    /// Forward over reverse on dual numbers (Pearlmutter 1994): exact to rounding, all other
    /// weights held fixed.
    pub fn hvp(
        &self,
        examples: &dyn Examples,
        layer: &Layer,
        direction: &[Tensor],
    ) -> Result<Derivatives> {
        if direction.len() != layer.tensors.len() {
            return Err(Error::Direction {
                layer: layer.name.clone(),
                expected: layer.tensors.len(),
                found: direction.len(),
            });
        }
        self.derivatives(examples, layer, Some(direction))
    }

    fn derivatives(
        &self,
        examples: &dyn Examples,
        layer: &Layer,
        direction: Option<&[Tensor]>,
    ) -> Result<Derivatives> {
        let mut loss = 0.0;
        let mut sums: Vec<Option<DualTensor>> = vec![None; layer.tensors.len()];
        let count = examples.len();
        let sweep = |range| self.sweep(examples, layer, direction, range, count);
        self.each(examples, sweep, |(part, gradients)| {
            loss += part;
            for (sum, g) in sums.iter_mut().zip(gradients) {
                if let Some(g) = g {
                    *sum = Some(match sum.take() {
                        Some(so_far) => so_far.plus(&g)?,
                        None => g,
                    });
                }
            }
            Ok(())
        })?;
        let (mut gradient, mut hvp) = (Vec::new(), Vec::new());
        for (&i, sum) in layer.tensors.iter().zip(sums) {
            let zero = || self.weights.tensor(i).zeros_like();
            let (value, tangent) = match sum {
                Some(sum) => sum.into_parts(),
                None => (zero()?, None),
            };
            if direction.is_some() {
                hvp.push(match tangent {
                    Some(t) => t.squeeze(0)?,
                    None => zero()?,
                });
            }
            gradient.push(value);
        }
        Ok(Derivatives { loss: loss / count as f64, gradient, hvp })
    }

    /// One micro-batch: the sum of its losses, and the gradient of that sum over `count`.
    fn sweep(
        &self,
        examples: &dyn Examples,
        layer: &Layer,
        direction: Option<&[Tensor]>,
        range: Range<usize>,
        count: usize,
    ) -> Result<(f64, Vec<Option<DualTensor>>)> {
        let x = self.input(examples, range.clone())?;
        let mut pass = Pass::new(&self.config, &self.weights);
        let mut watched = Vec::with_capacity(layer.tensors.len());
        for (k, &i) in layer.tensors.iter().enumerate() {
            let tangent = direction.map(|v| v[k].unsqueeze(0)).transpose()?;
            let parameter = DualTensor::new(self.weights.tensor(i).clone(), tangent)?;
            watched.push(pass.watch(i, parameter));
        }
        let logits = pass.run(examples.stage(), stages(&self.config), Value::constant(x))?;
        let labels: Arc<[u32]> = examples.labels()[range.clone()].into();
        let op = CrossEntropy { labels, smoothing: self.smoothing };
        let losses = pass.tape.apply(op, &[&logits])?;
        let sum = total(losses.tensor().value())?;
        if !sum.is_finite() {
            return Err(Error::NonFinite { from: range.start, to: range.end, loss: sum });
        }
        let seed = Tensor::full(1.0 / count as f64, range.len(), &Device::Cpu)?;
        let seed = DualTensor::constant(seed.to_dtype(self.dtype())?);
        let mut gradients = pass.tape.backward(&losses, seed)?;
        Ok((sum, watched.iter().map(|leaf| gradients.take(leaf)).collect()))
    }
}

/// Σ of all numbers, in f64.
fn total(x: &Tensor) -> Result<f64> {
    let x: Vec<f64> = x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    Ok(x.iter().sum())
}

/// A micro-batch whose tape stays near 100 MB, and small enough that the usual mini-batch gives
/// every thread several.
fn micro_batch(config: &Config) -> usize {
    (25_000_000 / cost::kept_per_image(config).max(1)).clamp(1, 16)
}
