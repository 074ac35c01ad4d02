//! Loss, gradient and Hessian-vector products of selected layers over a set of examples.
//!
//! L(w) = (1/N) Σᵢ ℓᵢ(w), where ℓᵢ is the cross-entropy of example i in nats. Examples are
//! processed in micro-batches whose sums are added; each example has weight 1/N, so the micro-batch
//! size only affects memory and rounding. Stages below the lowest selected layer run without a
//! tape.

mod checkpointing;
mod derivatives;
mod error;
mod examples;
mod layer_products;
mod micro_batches;
mod non_finite;
mod on_device;
mod prefetch;
mod row_buffer;

pub use derivatives::{Derivatives, Matrix, MatrixProducts};
pub use error::{Error, Result};
pub use examples::{Activations, ExampleSubset, Examples};
pub use layer_products::LayerVectors;

use crate::engine::{Engine, Precision};
use crate::models::{Layer, Network, Pass, Weights};
use crate::predictions::Predictions;
use crate::tape::Value;
use candle_core::{DType, Tensor};
pub(crate) use micro_batches::AT_ONCE_ON_GPU;
use micro_batches::micro_batch;
pub(crate) use on_device::is_out_of_memory;
use on_device::{dual_to_cpu, to_cpu};
use planish_kernels::{Cast, DualTensor, Op};
pub use prefetch::PendingBatch;
use row_buffer::RowBuffer;
use std::ops::Range;
use std::sync::Arc;

/// The loss of a model.
#[derive(Clone, Debug)]
pub struct Objective {
    /// The network.
    pub network: Arc<Network>,
    /// The weights: f32, or f64 throughout. On a GPU, weights computed there stay there; others are
    /// uploaded once.
    pub weights: Weights,
    /// Examples per micro-batch.
    pub micro_batch: usize,
    /// Activation checkpointing: save only the input of every block and recompute the rest in the
    /// backward pass. Same bits, less memory, one more forward pass.
    pub checkpointing: bool,
    /// Label smoothing of the cross-entropy.
    pub smoothing: f64,
    /// Operand precision of matrix products in values and gradients. Directional derivatives, and
    /// therefore curvature products, always use the precision of the weights.
    pub precision: Precision,
    /// The device to compute on, and how. Derivatives stay on that device.
    pub engine: Engine,
}

impl Objective {
    /// An objective without label smoothing.
    pub fn new(network: Arc<Network>, weights: Weights, engine: &Engine) -> Self {
        let micro_batch = micro_batch(&network, engine.gpu());
        let (checkpointing, smoothing, precision) = (false, 0.0, Precision::F32);
        let engine = engine.clone();
        Self { network, weights, micro_batch, checkpointing, smoothing, precision, engine }
    }

    /// The same objective at other weights.
    pub fn at(&self, weights: Weights) -> Self {
        Self { weights, ..self.clone() }
    }

    /// The same objective without rounding of operands to bf16.
    pub fn exact(&self) -> Self {
        Self { precision: Precision::F32, ..self.clone() }
    }

    /// Type of the weights.
    pub fn dtype(&self) -> DType {
        self.weights.tensor(0).dtype()
    }

    /// A pass with plain weights that records nothing.
    fn pass(&self, precision: Precision) -> Pass<'_> {
        Pass::new(&self.network, &self.weights, self.engine.products(precision))
    }

    fn input(&self, examples: &dyn Examples, range: Range<usize>) -> Result<DualTensor> {
        let inputs = examples.inputs(range)?.to_dtype(self.dtype())?;
        Ok(DualTensor::constant(self.to_device(&inputs)?))
    }

    /// Activations at the input of `stage`, computed without a tape.
    pub fn activations(&self, examples: &dyn Examples, stage: usize) -> Result<Activations> {
        self.activations_of((examples, self.even_chunks(examples)?), stage)
    }

    /// Same as [`Objective::activations`], but all micro-batches except the last have exactly the
    /// configured size. An image then gives the same bits whatever other images are in the set.
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
        let mut parts = RowBuffer::new(examples.len(), self.dtype());
        self.forward((examples, chunks), stage, |part| parts.add(&to_cpu(&part)?))?;
        Ok(Activations { stage, values: parts.finish()?, labels: examples.labels().into() })
    }

    /// Passes the inputs of `stage` to `take`, one micro-batch at a time, on the device that
    /// computed them.
    fn forward(
        &self,
        (examples, chunks): (&dyn Examples, Vec<Range<usize>>),
        stage: usize,
        take: impl FnMut(Tensor) -> Result<()>,
    ) -> Result<()> {
        let (model, examples) = (self.on_device()?, &self.prefetching(examples));
        let forward = |range| {
            let x = model.input(examples, range)?;
            let mut pass = model.pass(self.precision);
            let y = pass.run(examples.stage(), stage, Value::constant(x))?;
            to_f32(y.tensor().value())
        };
        self.for_each_micro_batch((examples, chunks), forward, take)
    }

    /// Logits of all examples, in order.
    pub fn predict(&self, examples: &dyn Examples) -> Result<Predictions> {
        let logits = self.activations(examples, self.network.stages())?.values;
        let values = logits.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        Ok(Predictions::new(values, self.network.classes(), examples.labels())?)
    }

    /// Logits, and their derivative along `direction`, given as one tensor per parameter of the
    /// layer.
    ///
    /// If the logits are linear in the layer's weights (the head, and the norm before it), the two
    /// determine the logits everywhere on the line.
    pub fn predict_along(
        &self,
        examples: &dyn Examples,
        layer: &Layer,
        direction: &[Tensor],
    ) -> Result<(Tensor, Tensor)> {
        let (mut logits, mut slopes) = (Vec::new(), Vec::new());
        let (model, direction) = (self.on_device()?, self.all_to_device(direction)?);
        let examples = &self.prefetching(examples);
        let forward = |range| {
            let x = model.input(examples, range)?;
            let mut pass = model.pass(Precision::F32);
            for (&i, d) in layer.tensors.iter().zip(&direction) {
                let tangent = Some(d.unsqueeze(0)?);
                pass.perturb(i, DualTensor::new(model.weights.tensor(i).clone(), tangent)?);
            }
            let y = pass.run(examples.stage(), self.network.stages(), Value::constant(x))?;
            let (value, tangent) = dual_to_cpu(y.tensor().clone())?.into_parts();
            let slope = match tangent {
                Some(t) => t.squeeze(0)?,
                None => value.zeros_like()?,
            };
            Ok((value, slope))
        };
        self.for_each_micro_batch(
            (examples, self.even_chunks(examples)?),
            forward,
            |(value, slope)| {
                logits.push(value);
                slopes.push(slope);
                Ok(())
            },
        )?;
        Ok((Tensor::cat(&logits, 0)?, Tensor::cat(&slopes, 0)?))
    }
}

/// Converts activations stored in bf16 to f32.
fn to_f32(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        from @ DType::BF16 => {
            let x = DualTensor::constant(x.clone());
            Ok(Cast { from, to: DType::F32 }.value(&[&x])?.into_parts().0)
        }
        _ => Ok(x.clone()),
    }
}
