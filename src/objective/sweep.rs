//! Products of many layers' matrices with vectors of their own, in one sweep over the examples.
//!
//! The way up and the way back of the values are the same for every layer: they are taken once and
//! noted. Layer ℓ's tangents then start at ℓ, climb along the noted values, and end at ℓ. With F
//! the operations of a forward pass, that is about 2 F for the values and, of L blocks, (L + 6) F for
//! the tangents and the gradients beside them: for twelve blocks 20 F, where twelve products on their
//! own, from their layers' inputs, take 29 F.

use super::derivatives::{Wanted, add, finish};
use super::{Error, Examples, Matrix, Objective, Result, flaw};
use crate::tape::{Record, Tape, Value};
use crate::vector;
use crate::vit::{Layer, Pass, stages};
use candle_core::Tensor;
use planish_kernels::{Accumulator, DualTensor, Precision};
use std::ops::Range;
use std::sync::Arc;

/// A layer and K vectors: for each of its tensors a block (K, shape).
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The layer.
    pub layer: &'a Layer,
    /// The vectors.
    pub vectors: &'a [Tensor],
}

/// Derivatives in each of a layer's tensors.
type Derivative = Vec<Option<DualTensor>>;

/// A micro-batch whose values are known.
struct Recorded {
    values: Arc<Record>,
    labels: Arc<[u32]>,
    /// Weight of each example.
    each: DualTensor,
}

impl Objective {
    /// For each layer the products of its matrix with its vectors, for each of its tensors a block
    /// (K, shape): to the bit what [`Objective::products`] gives with the same micro-batches.
    ///
    /// # Errors
    /// As those of [`Objective::products`].
    pub fn products_of_layers(
        &self,
        examples: &dyn Examples,
        asked: &[Asked],
        matrix: Matrix,
    ) -> Result<Vec<Vec<Tensor>>> {
        let empty = |a: &Asked| a.layer.tensors.iter().map(|_| Accumulator::default()).collect();
        let mut sums: Vec<Vec<Accumulator>> = asked.iter().map(empty).collect();
        let keep = |_: Asked, part: Derivative| Ok(part);
        self.layers(examples, asked, matrix, keep, |i, part| add(&mut sums[i], part))?;
        let one = |(a, sums): (&Asked, Vec<Accumulator>)| {
            self.tangents(examples, *a, matrix, finish(sums))
        };
        asked.iter().zip(sums).map(one).collect()
    }

    /// For each layer vᵀA v, nats, v being the first of its vectors: summed micro-batch by
    /// micro-batch, so that no more than a thread's own product is ever held.
    ///
    /// # Errors
    /// As those of [`Objective::products`].
    pub fn curvatures_of_layers(
        &self,
        examples: &dyn Examples,
        asked: &[Asked],
        matrix: Matrix,
    ) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; asked.len()];
        let along = |a: Asked, part: Derivative| {
            let (mut products, mut vectors) = (Vec::new(), Vec::new());
            for (found, v) in part.into_iter().zip(a.vectors) {
                if let Some(product) = found.and_then(|found| found.into_parts().1) {
                    products.push(product.get(0)?);
                    vectors.push(self.here(&v.get(0)?)?);
                }
            }
            Ok(vector::dot(&products, &vectors)?)
        };
        self.layers(examples, asked, matrix, along, |i, part: f64| {
            sums[i] += part;
            Ok(())
        })?;
        if let Some((a, _)) = asked.iter().zip(&sums).find(|(_, sum)| !sum.is_finite()) {
            let wanted = Wanted { layer: a.layer, matrix, vectors: Some(a.vectors) };
            return Err(flaw::locate(self, examples, wanted)?);
        }
        Ok(sums)
    }

    /// Runs the sweep; `map` makes of a layer's derivatives over a micro-batch what `take` is
    /// handed, layer by layer and micro-batch by micro-batch in their order.
    fn layers<T: Send>(
        &self,
        examples: &dyn Examples,
        asked: &[Asked],
        matrix: Matrix,
        map: impl Fn(Asked, Derivative) -> Result<T> + Sync,
        mut take: impl FnMut(usize, T) -> Result<()>,
    ) -> Result<()> {
        for a in asked {
            self.check_vectors(a.layer, a.vectors)?;
        }
        let Some(lowest) = asked.iter().min_by_key(|a| a.layer.first_stage) else {
            return Ok(());
        };
        let (model, examples) = (self.placed()?, &self.fed(examples));
        let part = |range: Range<usize>| -> Result<Vec<T>> {
            if self.recompute {
                // Of what a sweep shares there is room for the blocks' inputs alone.
                let last = asked.iter().map(|a| a.layer.first_stage).max().unwrap_or(0);
                let doors = model.doors(examples, range.clone(), last, Precision::F32)?;
                let one = |&Asked { layer, vectors }: &Asked| {
                    let wanted = Wanted { layer, matrix, vectors: Some(vectors) };
                    model.sweep_recomputing(examples, wanted, range.clone(), &doors)
                };
                return asked.iter().map(|a| map(*a, one(a)?.1)).collect();
            }
            let recorded = model.record(examples, lowest.layer, range)?;
            asked.iter().map(|a| map(*a, model.replay(&recorded, *a, matrix)?)).collect()
        };
        self.each((examples, self.even_chunks(examples)?), part, |parts| {
            parts.into_iter().enumerate().try_for_each(|(i, part)| take(i, part))
        })
    }

    /// One micro-batch's values from the lowest layer up and back to it.
    fn record(
        &self,
        examples: &dyn Examples,
        lowest: &Layer,
        range: Range<usize>,
    ) -> Result<Recorded> {
        let x = self.input(examples, range.clone())?;
        let below = examples.stage().max(lowest.first_stage);
        let mut pass = Pass::new(&self.config, &self.weights);
        let door = pass.run(examples.stage(), below, Value::constant(x))?;
        pass.tape = Tape::recording();
        for &i in &lowest.tensors {
            pass.watch(i, DualTensor::constant(self.weights.tensor(i).clone()));
        }
        let logits = pass.run(below, stages(&self.config), door)?;
        let labels: Arc<[u32]> = examples.labels()[range.clone()].into();
        let each = self.shares(examples.len(), range.len())?;
        let (loss, seed) = self.seed(&pass.tape, logits.tensor(), &labels, &each)?;
        if !loss.is_finite() {
            return Err(Error::NonFinite { from: range.start, to: range.end, loss });
        }
        let values = match seed {
            Some(seed) => Arc::new(pass.tape.backward_noting(&logits, seed)?.1),
            None => Arc::default(),
        };
        Ok(Recorded { values, labels, each })
    }

    /// One layer's products over a recorded micro-batch.
    fn replay(
        &self,
        Recorded { values, labels, each }: &Recorded,
        Asked { layer, vectors }: Asked,
        matrix: Matrix,
    ) -> Result<Derivative> {
        let mut pass = Pass::new(&self.config, &self.weights);
        pass.tape = matrix.tape(Tape::replaying(values.clone()));
        let Some(door) = values.door(layer.first_stage) else {
            return Ok(vec![None; layer.tensors.len()]);
        };
        let mut watched = Vec::with_capacity(layer.tensors.len());
        for (&i, v) in layer.tensors.iter().zip(vectors) {
            let parameter = DualTensor::new(self.weights.tensor(i).clone(), Some(self.here(v)?))?;
            watched.push(pass.watch(i, parameter));
        }
        let door = Value::constant(door.clone());
        let logits = pass.run(layer.first_stage, stages(&self.config), door)?;
        let (_, seed) = self.seed(&pass.tape, logits.tensor(), labels, each)?;
        let Some(seed) = seed else { return Ok(vec![None; watched.len()]) };
        let mut gradients = pass.tape.backward(&logits, seed)?;
        Ok(watched.iter().map(|leaf| gradients.take(leaf)).collect())
    }
}
