//! A layer's Hessian or Gauss-Newton matrix as a [`LinearOperator`].

use super::{Error, LinearOperator, Result};

use crate::models::Layer;
use crate::objective::{ExampleSubset, Examples, Matrix, Objective};
use crate::random::{stream, unit};
use crate::vector;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

const MIB: f64 = (1 << 20) as f64;
/// Default maximum number of vectors per block. Larger blocks save little more.
const BLOCK: usize = 8;

/// v ↦ A v, where A holds the second derivatives of the mean loss with respect to one layer, or to
/// several joined layers including their cross terms.
///
/// A vector is the concatenation of the layer's parameters in the order of [`Layer::tensors`], each
/// in row-major order. Products are computed in the type of the model's weights. Micro-batches are
/// summed in a fixed order: equal vectors give equal bits, whatever the number of threads.
#[derive(Clone, Copy)]
pub struct LayerOperator<'a> {
    objective: &'a Objective,
    examples: &'a dyn Examples,
    layer: &'a Layer,
    matrix: Matrix,
    block: usize,
}

/// Comparison of two evaluations of the same product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Number of examples of the product.
    pub examples: usize,
    /// Whether all numbers have equal bits.
    pub identical: bool,
}

impl<'a> LayerOperator<'a> {
    /// The operator of a layer over examples that enter at or below that layer.
    pub fn new(
        objective: &'a Objective,
        examples: &'a dyn Examples,
        layer: &'a Layer,
        matrix: Matrix,
    ) -> Self {
        Self { objective, examples, layer, matrix, block: BLOCK }
    }

    /// Limits the block size so that a product uses at most `room` MiB; at least one vector.
    pub fn within(self, room: f64) -> Self {
        let fits = (1..=BLOCK).rev().find(|&k| self.mib(k) <= room);
        Self { block: fits.unwrap_or(1), ..self }
    }

    /// Memory of a product with k vectors besides the model, in MiB. Per thread: the tape with its
    /// tangents, the same again for temporaries, and the gradients of the layer. In addition: the
    /// vectors and their products.
    pub fn mib(&self, k: usize) -> f64 {
        let network = &self.objective.network;
        let threads = rayon::current_num_threads();
        let stages = network.stages().max(1);
        let above = (stages - self.layer.first_stage.min(stages)) as f64 / stages as f64;
        let tape = self.objective.saved_len();
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

    /// Computes one product with a random vector twice and compares the bits. Uses the first
    /// micro-batches, as many as there are threads.
    ///
    /// # Errors
    /// Those of computing the product.
    pub fn probe(&self, seed: u64) -> Result<Probe> {
        let n = self.objective.micro_batch.max(1) * rayon::current_num_threads();
        let n = n.min(self.examples.len());
        let few = ExampleSubset::first(self.examples, n);
        let few = LayerOperator { examples: &few, ..*self };
        let mut rng = stream(seed, "determinism probe");
        let v: Vec<f64> = (0..self.dimension()).map(|_| unit(&mut rng) - 0.5).collect();
        let v = [v];
        let (a, b) = (few.apply(&v)?, few.apply(&v)?);
        let bits = |x: &[Vec<f64>]| x.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        Ok(Probe { examples: n, identical: bits(&a) == bits(&b) })
    }

    /// Mean loss in nats and its gradient with respect to the layer.
    ///
    /// # Errors
    /// Those of evaluating the model.
    pub fn gradient(&self) -> Result<(f64, Vec<f64>)> {
        let found = self.objective.gradient(self.examples, self.layer)?;
        Ok((found.loss, flatten(&found.gradient)?))
    }

    /// Vectors as blocks (K, shape), one per parameter of the layer.
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
            let found = vector::to_cpu(&found.products).map_err(crate::objective::Error::from)?;
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
        // Measured errors of network products are about one and a half digits above rounding.
        64.0 * match self.objective.dtype() {
            DType::F32 => f64::from(f32::EPSILON),
            _ => f64::EPSILON,
        }
    }
}

/// A layer's parameters as one vector.
///
/// # Errors
/// Tensors that do not convert to f64.
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
