//! A layer's Hessian or Gauss-Newton matrix as a [`LinearOperator`].

use super::{Error, LinearOperator, Result};
use crate::data::order::{stream, unit};
use crate::examples::Part;
use crate::objective::{Examples, Matrix, Objective};
use crate::vector;
use crate::vit::Layer;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

const MIB: f64 = (1 << 20) as f64;
/// Most vectors at once unless told otherwise: more share no more work that counts.
const BLOCK: usize = 8;

/// v ↦ A v for the second derivatives of the mean loss in one layer, or in several joined with
/// their cross-terms.
///
/// A vector is the layer's tensors one after the other, in the order of [`Layer::tensors`], each in
/// row-major order. Products are computed in the type of the model's weights, by micro-batches whose
/// sums are added in a fixed order: equal vectors give equal bits, whatever the threads.
#[derive(Clone, Copy)]
pub struct LayerOperator<'a> {
    objective: &'a Objective,
    examples: &'a dyn Examples,
    layer: &'a Layer,
    matrix: Matrix,
    block: usize,
}

/// Two evaluations of one product, compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Examples that it was computed on, twice.
    pub examples: usize,
    /// Whether all numbers had equal bits.
    pub identical: bool,
}

impl<'a> LayerOperator<'a> {
    /// The operator of a layer over examples that start at or below it.
    pub fn new(
        objective: &'a Objective,
        examples: &'a dyn Examples,
        layer: &'a Layer,
        matrix: Matrix,
    ) -> Self {
        Self { objective, examples, layer, matrix, block: BLOCK }
    }

    /// Takes at most as many vectors at once as fit in `room` MiB; at least one.
    pub fn within(self, room: f64) -> Self {
        let fits = (1..=BLOCK).rev().find(|&k| self.mib(k) <= room);
        Self { block: fits.unwrap_or(1), ..self }
    }

    /// Memory that a product with k vectors takes beside the model, MiB: on every thread the tape
    /// with its tangents, as much again for what operations hold meanwhile, and the gradients of the
    /// layer; the vectors, and their products.
    pub fn mib(&self, k: usize) -> f64 {
        let config = &self.objective.config;
        let threads = rayon::current_num_threads();
        let depth = (2 * config.depth + 3).max(1);
        let above = (depth - self.layer.first_stage.min(depth)) as f64 / depth as f64;
        let tape = self.objective.kept();
        let numbers =
            threads as f64 * (1 + k) as f64 * (2.0 * above * tape as f64 + self.numbers());
        let bytes = self.objective.dtype().size_in_bytes() as f64;
        numbers * bytes / MIB + self.held_mib(2 * k)
    }

    /// Memory of `count` vectors, MiB.
    pub fn held_mib(&self, count: usize) -> f64 {
        count as f64 * self.numbers() * 8.0 / MIB
    }

    fn numbers(&self) -> f64 {
        self.dimension() as f64
    }

    /// Compares two products with one random vector on the first micro-batches, as many as there are
    /// threads; it costs that many examples' products, twice.
    ///
    /// # Errors
    /// Those of evaluating the product.
    pub fn probe(&self, seed: u64) -> Result<Probe> {
        let n = self.objective.micro_batch.max(1) * rayon::current_num_threads();
        let n = n.min(self.examples.len());
        let few = Part::first(self.examples, n);
        let few = LayerOperator { examples: &few, ..*self };
        let mut rng = stream(seed, "determinism probe");
        let v: Vec<f64> = (0..self.dimension()).map(|_| unit(&mut rng) - 0.5).collect();
        let v = [v];
        let (a, b) = (few.apply(&v)?, few.apply(&v)?);
        let bits = |x: &[Vec<f64>]| x.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        Ok(Probe { examples: n, identical: bits(&a) == bits(&b) })
    }

    /// Mean loss in nats, and its gradient in the layer.
    ///
    /// # Errors
    /// Those of evaluating the model.
    pub fn gradient(&self) -> Result<(f64, Vec<f64>)> {
        let found = self.objective.gradient(self.examples, self.layer)?;
        Ok((found.loss, flatten(&found.gradient)?))
    }

    /// Vectors as blocks (K, shape), one for each of the layer's tensors.
    fn blocks(&self, vectors: &[Vec<f64>]) -> Result<Vec<Tensor>> {
        let mut start = 0;
        let mut out = Vec::with_capacity(self.layer.tensors.len());
        for &i in &self.layer.tensors {
            let weight = self.objective.weights.tensor(i);
            let range = start..start + weight.elem_count();
            start = range.end;
            let shape: Vec<usize> =
                std::iter::once(vectors.len()).chain(weight.dims().iter().copied()).collect();
            let parts = vectors.iter().flat_map(|v| &v[range.clone()]);
            let block = match self.objective.dtype() {
                DType::F32 => {
                    let numbers: Vec<f32> = parts.map(|&x| x as f32).collect();
                    Tensor::from_vec(numbers, shape, &Device::Cpu)
                }
                _ => Tensor::from_vec(parts.copied().collect::<Vec<f64>>(), shape, &Device::Cpu),
            };
            out.push(block.map_err(crate::objective::Error::from)?);
        }
        Ok(out)
    }
}

impl LinearOperator for LayerOperator<'_> {
    fn dimension(&self) -> usize {
        let weights = self.layer.tensors.iter().map(|&i| self.objective.weights.tensor(i));
        weights.map(Tensor::elem_count).sum()
    }

    fn apply(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let n = self.dimension();
        if let Some(v) = vectors.iter().find(|v| v.len() != n) {
            return Err(Error::Length { expected: n, found: v.len() });
        }
        let mut out = Vec::with_capacity(vectors.len());
        for few in vectors.chunks(self.block.max(1)) {
            let block = self.blocks(few)?;
            let found = self.objective.products(self.examples, self.layer, self.matrix, &block)?;
            let found = vector::back(&found.products).map_err(crate::objective::Error::from)?;
            for k in 0..few.len() {
                let one: Vec<Tensor> = found
                    .iter()
                    .map(|p| p.get(k))
                    .collect::<candle_core::Result<_>>()
                    .map_err(crate::objective::Error::from)?;
                out.push(flatten(&one)?);
            }
        }
        Ok(out)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn precision(&self) -> f64 {
        // What products of networks were found to be off by: a digit and a half.
        64.0 * match self.objective.dtype() {
            DType::F32 => f64::from(f32::EPSILON),
            _ => f64::EPSILON,
        }
    }
}

/// A layer's tensors as one vector.
///
/// # Errors
/// Tensors that are not of real numbers.
pub fn flatten(tensors: &[Tensor]) -> Result<Vec<f64>> {
    let mut out = Vec::with_capacity(tensors.iter().map(Tensor::elem_count).sum());
    let mut add = |t: &Tensor| -> candle_core::Result<()> {
        let t = t.to_device(&Device::Cpu)?;
        out.extend(t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?);
        Ok(())
    };
    tensors.iter().try_for_each(&mut add).map_err(crate::objective::Error::from)?;
    Ok(out)
}
