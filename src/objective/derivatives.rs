//! Gradients, and products of a layer's Hessian or Gauss-Newton matrix with vectors.

use super::placed::back;
use super::{Asked, Error, Examples, Objective, Result, flaw};
use crate::tape::{Tape, Value, is_finite};
use crate::vit::{Layer, Pass, stages};
use candle_core::{DType, Tensor};
use planish_kernels::{Accumulator, CrossEntropy, DualTensor, Precision};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// The matrix whose products with vectors are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Matrix {
    /// H, the second derivatives of the mean loss in the layer's weights.
    #[default]
    Hessian,
    /// G = (1/N) Σᵢ Jᵢᵀ (diag(pᵢ) − pᵢpᵢᵀ) Jᵢ, Jᵢ the derivatives of example i's logits in the
    /// layer's weights and pᵢ its probabilities: what is left of H when the network is taken as
    /// linear in the weights; positive semidefinite (Schraudolph 2002, §3).
    #[cfg_attr(feature = "cli", value(name = "ggn"))]
    GaussNewton,
}

impl Matrix {
    /// The tape whose way back gives its products.
    pub(super) fn tape(self, tape: Tape) -> Tape {
        match self {
            Matrix::Hessian => tape,
            Matrix::GaussNewton => tape.linearised(),
        }
    }
}

/// Loss and gradient of a layer, with a Hessian-vector product where a direction was given; tensors lie
/// where the arithmetic runs ([`crate::vector::back`] copies them to the CPU).
#[derive(Clone, Debug)]
pub struct Derivatives {
    /// Mean loss, nats.
    pub loss: f64,
    /// Gradient, one tensor for each of the layer's.
    pub gradient: Vec<Tensor>,
    /// H v, one tensor for each of the layer's; empty without a direction.
    pub hvp: Vec<Tensor>,
}

/// Loss and gradient of a layer, and products with K vectors; tensors lie where the arithmetic runs.
#[derive(Clone, Debug)]
pub struct Products {
    /// Mean loss, nats.
    pub loss: f64,
    /// Gradient, one tensor for each of the layer's.
    pub gradient: Vec<Tensor>,
    /// A v₁ … A v_K: for each of the layer's tensors a block (K, shape).
    pub products: Vec<Tensor>,
}

/// What one sweep is asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub layer: &'a Layer,
    pub matrix: Matrix,
    /// K vectors: for each of the layer's tensors a block (K, shape).
    pub vectors: Option<&'a [Tensor]>,
}

impl Objective {
    /// Loss and gradient in the layer's weights.
    pub fn gradient(&self, examples: &dyn Examples, layer: &Layer) -> Result<Derivatives> {
        let wanted = Wanted { layer, matrix: Matrix::Hessian, vectors: None };
        let (loss, sums) = self.derivatives(examples, wanted)?;
        let gradient = self.values(layer, &sums)?;
        Ok(Derivatives { loss, gradient, hvp: Vec::new() })
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
        let block: Vec<Tensor> =
            direction.iter().map(|v| v.unsqueeze(0)).collect::<candle_core::Result<_>>()?;
        let Products { loss, gradient, products } =
            self.products(examples, layer, Matrix::Hessian, &block)?;
        let hvp = products.iter().map(|p| p.squeeze(0)).collect::<candle_core::Result<_>>()?;
        Ok(Derivatives { loss, gradient, hvp })
    }

    /// Loss, gradient and the products of a matrix with K vectors, given for each of the layer's
    /// tensors as a block (K, shape). All share one pass through the network's values.
    ///
    /// # Errors
    /// Vectors that do not fit the layer; [`Error::NonFiniteProduct`] naming the operation.
    pub fn products(
        &self,
        examples: &dyn Examples,
        layer: &Layer,
        matrix: Matrix,
        vectors: &[Tensor],
    ) -> Result<Products> {
        self.check_vectors(layer, vectors)?;
        let wanted = Wanted { layer, matrix, vectors: Some(vectors) };
        let (loss, sums) = self.derivatives(examples, wanted)?;
        let gradient = self.values(layer, &sums)?;
        let products = self.tangents(examples, Asked { layer, vectors }, matrix, sums)?;
        Ok(Products { loss, gradient, products })
    }

    pub(super) fn check_vectors(&self, layer: &Layer, vectors: &[Tensor]) -> Result<()> {
        if vectors.len() == layer.tensors.len() {
            return Ok(());
        }
        Err(Error::Direction {
            layer: layer.name.clone(),
            expected: layer.tensors.len(),
            found: vectors.len(),
        })
    }

    /// The tangents of sums, 0 where nothing depends on the weight.
    pub(super) fn tangents(
        &self,
        examples: &dyn Examples,
        Asked { layer, vectors }: Asked,
        matrix: Matrix,
        sums: Vec<Option<DualTensor>>,
    ) -> Result<Vec<Tensor>> {
        let mut products = Vec::with_capacity(vectors.len());
        for (sum, v) in sums.into_iter().zip(vectors) {
            let product = match sum.and_then(|sum| sum.into_parts().1) {
                Some(tangent) => tangent,
                None => self.here(&v.zeros_like()?)?,
            };
            if !is_finite(&product)? {
                let wanted = Wanted { layer, matrix, vectors: Some(vectors) };
                return Err(flaw::locate(self, examples, wanted)?);
            }
            products.push(product);
        }
        Ok(products)
    }

    /// The values of sums, 0 where nothing depends on the weight.
    fn values(&self, layer: &Layer, sums: &[Option<DualTensor>]) -> Result<Vec<Tensor>> {
        let one = |(&i, sum): (&usize, &Option<DualTensor>)| match sum {
            Some(sum) => Ok(sum.value().clone()),
            None => Ok(self.here(&self.weights.tensor(i).zeros_like()?)?),
        };
        layer.tensors.iter().zip(sums).map(one).collect()
    }

    /// Mean loss, and its derivatives in each of the layer's tensors.
    fn derivatives(
        &self,
        examples: &dyn Examples,
        wanted: Wanted,
    ) -> Result<(f64, Vec<Option<DualTensor>>)> {
        let mut loss = 0.0;
        let mut sums: Vec<Accumulator> = Vec::new();
        sums.resize_with(wanted.layer.tensors.len(), Accumulator::default);
        let count = examples.len();
        let (model, examples) = (self.placed()?, &self.fed(examples));
        let vectors = wanted.vectors.map(|all| self.all_here(all)).transpose()?;
        let wanted = Wanted { vectors: vectors.as_deref(), ..wanted };
        let sweep = |range: Range<usize>| match self.recompute {
            true => {
                let precision = match wanted.vectors {
                    None => self.precision,
                    Some(_) => Precision::F32,
                };
                let last = wanted.layer.first_stage;
                let doors = model.doors(examples, range.clone(), last, precision)?;
                model.sweep_recomputing(examples, wanted, range, &doors)
            }
            false => model.sweep(examples, wanted, range, Tape::new()),
        };
        self.each((examples, self.even_chunks(examples)?), sweep, |(part, gradients)| {
            loss += part;
            add(&mut sums, gradients)
        })?;
        Ok((loss / count as f64, finish(sums)))
    }

    /// One micro-batch: the sum of its losses, and the gradient of that sum over the number of all
    /// examples, with tangents if vectors are given.
    ///
    /// The seed of the way back, the loss's gradient in the logits, has the tangent
    /// (diag(p) − ppᵀ) J v. From there a tape with tangents gives H v, and a tape of values alone,
    /// which is Jᵀ, gives G v.
    pub(super) fn sweep(
        &self,
        examples: &dyn Examples,
        wanted: Wanted,
        range: Range<usize>,
        tape: Tape,
    ) -> Result<(f64, Vec<Option<DualTensor>>)> {
        let x = self.input(examples, range.clone())?;
        let mut pass = Pass::new(&self.config, &self.weights);
        if wanted.vectors.is_none() {
            pass.precision = self.precision;
        }
        pass.tape = wanted.matrix.tape(tape);
        let mut watched = Vec::with_capacity(wanted.layer.tensors.len());
        for (k, &i) in wanted.layer.tensors.iter().enumerate() {
            let tangent = wanted.vectors.map(|v| self.here(&v[k])).transpose()?;
            let parameter = DualTensor::new(self.weights.tensor(i).clone(), tangent)?;
            watched.push(pass.watch(i, parameter));
        }
        let logits = pass.run(examples.stage(), stages(&self.config), Value::constant(x))?;
        let labels: Arc<[u32]> = examples.labels()[range.clone()].into();
        let each = self.shares(examples.len(), range.len())?;
        let (sum, seed) = self.seed(&pass.tape, logits.tensor(), &labels, &each)?;
        if !sum.is_finite() {
            return Err(Error::NonFinite { from: range.start, to: range.end, loss: sum });
        }
        let Some(seed) = seed else { return Ok((sum, vec![None; watched.len()])) };
        let mut gradients = pass.tape.backward(&logits, seed)?;
        Ok((sum, watched.iter().map(|leaf| gradients.take(leaf)).collect()))
    }
}

impl Objective {
    /// The sum of a micro-batch's losses, and the gradient in its logits of the sum weighted by
    /// `each`.
    pub(super) fn seed(
        &self,
        tape: &Tape,
        logits: &DualTensor,
        labels: &Arc<[u32]>,
        each: &DualTensor,
    ) -> Result<(f64, Option<DualTensor>)> {
        let mut top = tape.beside();
        let at = top.watch(logits.clone());
        let loss = CrossEntropy { labels: labels.clone(), smoothing: self.smoothing };
        let losses = top.apply(loss, &[&at])?;
        let sum = total(losses.tensor().value())?;
        if !sum.is_finite() {
            return Ok((sum, None));
        }
        Ok((sum, top.backward(&losses, each.clone())?.take(&at)))
    }
}

/// Adds a micro-batch's derivatives to those so far.
pub(super) fn add(sums: &mut [Accumulator], part: Vec<Option<DualTensor>>) -> Result<()> {
    for (sum, g) in sums.iter_mut().zip(part) {
        if let Some(g) = g {
            sum.add(g)?;
        }
    }
    Ok(())
}

/// The sums over all micro-batches.
pub(super) fn finish(sums: Vec<Accumulator>) -> Vec<Option<DualTensor>> {
    sums.into_iter().map(Accumulator::finish).collect()
}

/// Σ of all numbers, in f64.
fn total(x: &Tensor) -> Result<f64> {
    let x: Vec<f64> = back(x)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    Ok(x.iter().sum())
}
