//! Loss, gradient and Hessian-vector product of chosen layers over a set of examples.
//!
//! L(w) = (1/N) Σᵢ ℓᵢ(w), ℓᵢ the cross-entropy of example i in nats. Examples are taken in
//! micro-batches whose sums are added, each example weighted 1/N: the size of a micro-batch is a
//! matter of memory alone. Stages below the lowest chosen layer run without a tape.

mod derivatives;
mod error;
mod fed;
mod flaw;
mod micro_batches;
mod placed;
mod recompute;
mod sweep;

pub use crate::examples::{Activations, Examples};
pub use derivatives::{Derivatives, Matrix, Products};
pub use error::{Error, Result};
pub use sweep::Asked;

use crate::device::{self, Gpu};
use crate::evaluate::Predictions;
use crate::gather::Gather;
use crate::tape::Value;
use crate::vit::{Config, Layer, Pass, Weights, stages};
use candle_core::{DType, Tensor};
use fed::Fed;
pub use fed::Sent;
pub(crate) use micro_batches::AT_ONCE_ON_GPU;
use micro_batches::micro_batch;
pub(crate) use placed::no_room;
use placed::{all_back, back, one_by_one};
use planish_kernels::{Cast, DualTensor, Op, Precision};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// A model's loss.
#[derive(Clone, Debug)]
pub struct Objective {
    /// The architecture.
    pub config: Arc<Config>,
    /// The weights; f32, or f64 throughout. On a GPU those that were computed there stay there, and
    /// the others are copied to it once.
    pub weights: Weights,
    /// Examples per micro-batch.
    pub micro_batch: usize,
    /// Whether derivatives keep the input of every block alone and compute the rest of it again
    /// on the way back: the same numbers in less memory, for one forward pass more.
    pub recompute: bool,
    /// Label smoothing of the cross-entropy.
    pub smoothing: f64,
    /// How products of values and gradients take their operands. Derivatives along directions, and
    /// with them products of curvature, are always taken as the weights are.
    pub precision: Precision,
    /// Where the arithmetic runs, if not on the CPU. Derivatives lie where it runs.
    pub gpu: Option<Arc<Gpu>>,
}

impl Objective {
    /// An objective without label smoothing, on the device that was chosen (see [`crate::device`]).
    pub fn new(config: Arc<Config>, weights: Weights) -> Self {
        let gpu = device::gpu();
        let micro_batch = micro_batch(&config, gpu.as_deref());
        let (recompute, smoothing, precision) = (false, 0.0, Precision::F32);
        Self { config, weights, micro_batch, recompute, smoothing, precision, gpu }
    }

    /// The same objective at other weights.
    pub fn at(&self, weights: Weights) -> Self {
        Self { weights, ..self.clone() }
    }

    /// The same objective with operands taken as they are.
    pub fn exact(&self) -> Self {
        Self { precision: Precision::F32, ..self.clone() }
    }

    /// The type of the weights.
    pub fn dtype(&self) -> DType {
        self.weights.tensor(0).dtype()
    }

    /// Applies `work` to every micro-batch and hands the results to `take` in order.
    ///
    /// Micro-batches run side by side, one a thread, and the operations inside each run on its
    /// thread alone: nothing waits for anything but the sum at the end. As many results are alive
    /// as there are threads, while images for the next are decoded. The sum's order is that of the
    /// micro-batches, whatever the threads. On a GPU they run one after the other.
    fn each<T: Send>(
        &self,
        (examples, chunks): (&Fed, Vec<Range<usize>>),
        work: impl Fn(Range<usize>) -> Result<T> + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        if let Some(gpu) = &self.gpu {
            return one_by_one(gpu, (examples, chunks), work, take);
        }
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
        let inputs = examples.inputs(range)?.to_dtype(self.dtype())?;
        Ok(DualTensor::constant(self.here(&inputs)?))
    }

    /// Activations at the input of `stage`, computed without a tape.
    pub fn activations(&self, examples: &dyn Examples, stage: usize) -> Result<Activations> {
        self.activations_of((examples, self.even_chunks(examples)?), stage)
    }

    /// As [`Objective::activations`], in micro-batches of the size that is set and no other but
    /// the last: what an image gives then has the same bits in any company.
    pub fn activations_in_whole_micro_batches(
        &self,
        examples: &dyn Examples,
        stage: usize,
    ) -> Result<Activations> {
        self.activations_of((examples, self.whole_chunks(examples)?), stage)
    }

    fn activations_of(
        &self,
        (examples, chunks): (&dyn Examples, Vec<Range<usize>>),
        stage: usize,
    ) -> Result<Activations> {
        let mut parts = Gather::new(examples.len(), self.dtype());
        self.forward((examples, chunks), stage, |part| parts.add(&back(&part)?))?;
        Ok(Activations { stage, values: parts.finish()?, labels: examples.labels().into() })
    }

    /// Hands `take` the inputs of `stage` of one micro-batch after the other, where they were
    /// computed.
    fn forward(
        &self,
        (examples, chunks): (&dyn Examples, Vec<Range<usize>>),
        stage: usize,
        take: impl FnMut(Tensor) -> Result<()>,
    ) -> Result<()> {
        let (model, examples) = (self.placed()?, &self.fed(examples));
        let forward = |range| {
            let x = model.input(examples, range)?;
            let mut pass = Pass::new(&model.config, &model.weights);
            pass.precision = self.precision;
            let y = pass.run(examples.stage(), stage, Value::constant(x))?;
            widened(y.tensor().value())
        };
        self.each((examples, chunks), forward, take)
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
        let (model, direction) = (self.placed()?, self.all_here(direction)?);
        let examples = &self.fed(examples);
        let forward = |range| {
            let x = model.input(examples, range)?;
            let mut pass = Pass::new(&model.config, &model.weights);
            for (&i, d) in layer.tensors.iter().zip(&direction) {
                let tangent = Some(d.unsqueeze(0)?);
                pass.perturb(i, DualTensor::new(model.weights.tensor(i).clone(), tangent)?);
            }
            let y = pass.run(examples.stage(), stages(&self.config), Value::constant(x))?;
            let (value, tangent) = all_back(y.tensor().clone())?.into_parts();
            let slope = match tangent {
                Some(t) => t.squeeze(0)?,
                None => value.zeros_like()?,
            };
            Ok((value, slope))
        };
        self.each((examples, self.even_chunks(examples)?), forward, |(value, slope)| {
            logits.push(value);
            slopes.push(slope);
            Ok(())
        })?;
        Ok((Tensor::cat(&logits, 0)?, Tensor::cat(&slopes, 0)?))
    }
}

/// Activations that a GPU stores in bf16, in f32.
fn widened(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        from @ DType::BF16 => {
            let x = DualTensor::constant(x.clone());
            Ok(Cast { from, to: DType::F32 }.value(&[&x])?.into_parts().0)
        }
        _ => Ok(x.clone()),
    }
}
