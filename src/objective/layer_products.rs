//! Matrix-vector products for many layers in one sweep over the examples.
//!
//! The forward and backward passes over primal values are the same for every layer, so they run
//! once and are recorded. The tangents of layer ℓ then enter at ℓ, propagate forward along the
//! recorded values, and come back to ℓ.
//!
//! Cost, in units of F, the operations of one forward pass, for L blocks: about 2 F for the values,
//! and (L + 6) F for tangents and the gradients computed with them. For twelve blocks this is 20 F.
//! Twelve separate products, each from its own layer's input, cost 29 F.

use super::derivatives::{DerivativeRequest, add, finish};
use super::{Error, Examples, Matrix, Objective, Result, non_finite};
use crate::engine::Precision;
use crate::models::Layer;
use crate::tape::{Record, Tape, Value};
use crate::vector;
use candle_core::Tensor;
use planish_kernels::{Accumulator, DualTensor};
use std::ops::Range;
use std::sync::Arc;

/// A layer and K vectors: one block (K, shape) per parameter of the layer.
#[derive(Clone, Copy)]
pub struct LayerVectors<'a> {
    /// The layer.
    pub layer: &'a Layer,
    /// The vectors.
    pub vectors: &'a [Tensor],
}

/// Derivatives with respect to each parameter of a layer.
type Derivative = Vec<Option<DualTensor>>;

/// A micro-batch with recorded primal values.
struct Recorded {
    values: Arc<Record>,
    labels: Arc<[u32]>,
    /// Weight of each example.
    example_weights: DualTensor,
}

impl Objective {
    /// Products of each layer's matrix with that layer's vectors: one block (K, shape) per
    /// parameter. Equal, bit for bit, to [`Objective::products`] with the same micro-batches.
    ///
    /// # Errors
    /// Those of [`Objective::products`].
    pub fn products_of_layers(
        &self,
        examples: &dyn Examples,
        requests: &[LayerVectors],
        matrix: Matrix,
    ) -> Result<Vec<Vec<Tensor>>> {
        let empty =
            |a: &LayerVectors| a.layer.tensors.iter().map(|_| Accumulator::default()).collect();
        let mut sums: Vec<Vec<Accumulator>> = requests.iter().map(empty).collect();
        let keep = |_: LayerVectors, part: Derivative| Ok(part);
        self.layers(examples, requests, matrix, keep, |i, part| add(&mut sums[i], part))?;
        let one = |(a, sums): (&LayerVectors, Vec<Accumulator>)| {
            self.tangents(examples, *a, matrix, finish(sums))
        };
        requests.iter().zip(sums).map(one).collect()
    }

    /// vᵀA v in nats for each layer, where v is the first of the layer's vectors.
    ///
    /// Summed per micro-batch, so each thread holds at most one layer's product at a time.
    ///
    /// # Errors
    /// Those of [`Objective::products`].
    pub fn quadratic_forms(
        &self,
        examples: &dyn Examples,
        requests: &[LayerVectors],
        matrix: Matrix,
    ) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; requests.len()];
        let along = |a: LayerVectors, part: Derivative| {
            let (mut products, mut vectors) = (Vec::new(), Vec::new());
            for (found, v) in part.into_iter().zip(a.vectors) {
                if let Some(product) = found.and_then(|found| found.into_parts().1) {
                    products.push(product.get(0)?);
                    vectors.push(self.to_device(&v.get(0)?)?);
                }
            }
            Ok(vector::dot(&products, &vectors)?)
        };
        self.layers(examples, requests, matrix, along, |i, part: f64| {
            sums[i] += part;
            Ok(())
        })?;
        if let Some((a, _)) = requests.iter().zip(&sums).find(|(_, sum)| !sum.is_finite()) {
            let request = DerivativeRequest { layer: a.layer, matrix, vectors: Some(a.vectors) };
            return Err(non_finite::locate(self, examples, request)?);
        }
        Ok(sums)
    }

    /// Runs the sweep. `map` reduces a layer's derivatives over one micro-batch; `take` receives
    /// the results in order of micro-batches, then of layers.
    fn layers<T: Send>(
        &self,
        examples: &dyn Examples,
        requests: &[LayerVectors],
        matrix: Matrix,
        map: impl Fn(LayerVectors, Derivative) -> Result<T> + Sync,
        mut take: impl FnMut(usize, T) -> Result<()>,
    ) -> Result<()> {
        for a in requests {
            self.check_vectors(a.layer, a.vectors)?;
        }
        let Some(lowest) = requests.iter().min_by_key(|a| a.layer.first_stage) else {
            return Ok(());
        };
        let (model, examples) = (self.on_device()?, &self.prefetching(examples));
        let part = |range: Range<usize>| -> Result<Vec<T>> {
            if self.checkpointing {
                // Checkpointing leaves memory only for the blocks' inputs, so nothing else is
                // shared.
                let last = requests.iter().map(|a| a.layer.first_stage).max().unwrap_or(0);
                let stage_inputs =
                    model.stage_inputs(examples, range.clone(), last, Precision::F32)?;
                let one = |&LayerVectors { layer, vectors }: &LayerVectors| {
                    let request = DerivativeRequest { layer, matrix, vectors: Some(vectors) };
                    model.sweep_checkpointed(examples, request, range.clone(), &stage_inputs)
                };
                return requests.iter().map(|a| map(*a, one(a)?.1)).collect();
            }
            let recorded = model.record(examples, lowest.layer, range)?;
            requests.iter().map(|a| map(*a, model.replay(&recorded, *a, matrix)?)).collect()
        };
        self.for_each_micro_batch((examples, self.even_chunks(examples)?), part, |parts| {
            parts.into_iter().enumerate().try_for_each(|(i, part)| take(i, part))
        })
    }

    /// Records one micro-batch: forward from the lowest layer, and backward to it.
    fn record(
        &self,
        examples: &dyn Examples,
        lowest: &Layer,
        range: Range<usize>,
    ) -> Result<Recorded> {
        let x = self.input(examples, range.clone())?;
        let below = examples.stage().max(lowest.first_stage);
        let mut pass = self.pass(Precision::F32);
        let stage_input = pass.run(examples.stage(), below, Value::constant(x))?;
        pass.tape = Tape::recording();
        for &i in &lowest.tensors {
            pass.watch(i, DualTensor::constant(self.weights.tensor(i).clone()));
        }
        let logits = pass.run(below, self.network.stages(), stage_input)?;
        let labels: Arc<[u32]> = examples.labels()[range.clone()].into();
        let example_weights = self.example_weights(examples.len(), range.len())?;
        let (loss, g_logits) =
            self.loss_gradient(&pass.tape, logits.tensor(), &labels, &example_weights)?;
        if !loss.is_finite() {
            return Err(Error::NonFinite { from: range.start, to: range.end, loss });
        }
        let values = match g_logits {
            Some(g) => Arc::new(pass.tape.backward_recording(&logits, g)?.1),
            None => Arc::default(),
        };
        Ok(Recorded { values, labels, example_weights })
    }

    /// One layer's products over a recorded micro-batch.
    fn replay(
        &self,
        Recorded { values, labels, example_weights }: &Recorded,
        LayerVectors { layer, vectors }: LayerVectors,
        matrix: Matrix,
    ) -> Result<Derivative> {
        let mut pass = self.pass(Precision::F32);
        pass.tape = matrix.tape(Tape::replaying(values.clone()));
        let Some(stage_input) = values.stage_input(layer.first_stage) else {
            return Ok(vec![None; layer.tensors.len()]);
        };
        let mut watched = Vec::with_capacity(layer.tensors.len());
        for (&i, v) in layer.tensors.iter().zip(vectors) {
            let parameter =
                DualTensor::new(self.weights.tensor(i).clone(), Some(self.to_device(v)?))?;
            watched.push(pass.watch(i, parameter));
        }
        let stage_input = Value::constant(stage_input.clone());
        let logits = pass.run(layer.first_stage, self.network.stages(), stage_input)?;
        let (_, g_logits) =
            self.loss_gradient(&pass.tape, logits.tensor(), labels, example_weights)?;
        let Some(g_logits) = g_logits else { return Ok(vec![None; watched.len()]) };
        let mut gradients = pass.tape.backward(&logits, g_logits)?;
        Ok(watched.iter().map(|leaf| gradients.take(leaf)).collect())
    }
}
