//! Gradients, and products of a layer's Hessian or Gauss-Newton matrix with vectors.

use super::on_device::to_cpu;
use super::{Error, Examples, LayerVectors, Objective, Result, non_finite};
use crate::engine::Precision;
use crate::models::Layer;
use crate::tape::{Tape, Value, is_finite};
use candle_core::{DType, Tensor};
use planish_kernels::{Accumulator, CrossEntropy, DualTensor};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// The matrix of a matrix-vector product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Matrix {
    /// H: second derivatives of the mean loss with respect to the layer's weights.
    #[default]
    Hessian,
    /// G = (1/N) Σᵢ Jᵢᵀ (diag(pᵢ) − pᵢpᵢᵀ) Jᵢ, where Jᵢ is the Jacobian of example i's logits with
    /// respect to the layer's weights and pᵢ its class probabilities.
    ///
    /// G equals H if the network is linear in the weights. It is positive semidefinite (Schraudolph
    /// 2002, §3).
    #[cfg_attr(feature = "cli", value(name = "ggn"))]
    GaussNewton,
}

impl Matrix {
    /// The tape whose backward pass gives products with this matrix.
    pub(super) fn tape(self, tape: Tape) -> Tape {
        match self {
            Matrix::Hessian => tape,
            Matrix::GaussNewton => tape.linearised(),
        }
    }
}

/// Loss and gradient of a layer, and a Hessian-vector product if a direction was given.
///
/// Tensors stay on the objective's device; [`crate::vector::to_cpu`] copies them to the CPU.
#[derive(Clone, Debug)]
pub struct Derivatives {
    /// Mean loss, nats.
    pub loss: f64,
    /// Gradient, one tensor per parameter of the layer.
    pub gradient: Vec<Tensor>,
    /// H v, one tensor per parameter of the layer. Empty without a direction.
    pub hvp: Vec<Tensor>,
}

/// Loss and gradient of a layer, and matrix products with K vectors. Tensors stay on the
/// objective's device.
#[derive(Clone, Debug)]
pub struct MatrixProducts {
    /// Mean loss, nats.
    pub loss: f64,
    /// Gradient, one tensor per parameter of the layer.
    pub gradient: Vec<Tensor>,
    /// A v₁ … A v_K: one block (K, shape) per parameter of the layer.
    pub products: Vec<Tensor>,
}

/// What one sweep computes.
#[derive(Clone, Copy)]
pub(super) struct DerivativeRequest<'a> {
    pub layer: &'a Layer,
    pub matrix: Matrix,
    /// K vectors: one block (K, shape) per parameter of the layer.
    pub vectors: Option<&'a [Tensor]>,
}

impl Objective {
    /// Loss and its gradient with respect to the layer's weights.
    pub fn gradient(&self, examples: &dyn Examples, layer: &Layer) -> Result<Derivatives> {
        let request = DerivativeRequest { layer, matrix: Matrix::Hessian, vectors: None };
        let (loss, sums) = self.derivatives(examples, request)?;
        let gradient = self.values(layer, &sums)?;
        Ok(Derivatives { loss, gradient, hvp: Vec::new() })
    }

    /// Loss, gradient and H v for one direction v, given as one tensor per parameter of the layer.
    ///
    /// Forward over reverse on dual numbers (Pearlmutter 1994). Exact up to rounding; all other
    /// weights are held fixed.
    pub fn hvp(
        &self,
        examples: &dyn Examples,
        layer: &Layer,
        direction: &[Tensor],
    ) -> Result<Derivatives> {
        let block: Vec<Tensor> =
            direction.iter().map(|v| v.unsqueeze(0)).collect::<candle_core::Result<_>>()?;
        let MatrixProducts { loss, gradient, products } =
            self.products(examples, layer, Matrix::Hessian, &block)?;
        let hvp = products.iter().map(|p| p.squeeze(0)).collect::<candle_core::Result<_>>()?;
        Ok(Derivatives { loss, gradient, hvp })
    }

    /// Loss, gradient, and products of `matrix` with K vectors, given as one block (K, shape) per
    /// parameter of the layer. All products share one pass over the network's values.
    ///
    /// # Errors
    /// [`Error::Direction`] if the vectors do not match the layer; [`Error::NonFiniteProduct`],
    /// which names the operation.
    pub fn products(
        &self,
        examples: &dyn Examples,
        layer: &Layer,
        matrix: Matrix,
        vectors: &[Tensor],
    ) -> Result<MatrixProducts> {
        self.check_vectors(layer, vectors)?;
        let request = DerivativeRequest { layer, matrix, vectors: Some(vectors) };
        let (loss, sums) = self.derivatives(examples, request)?;
        let gradient = self.values(layer, &sums)?;
        let products = self.tangents(examples, LayerVectors { layer, vectors }, matrix, sums)?;
        Ok(MatrixProducts { loss, gradient, products })
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

    /// The tangents of the sums. Zero where nothing depends on the weight.
    pub(super) fn tangents(
        &self,
        examples: &dyn Examples,
        LayerVectors { layer, vectors }: LayerVectors,
        matrix: Matrix,
        sums: Vec<Option<DualTensor>>,
    ) -> Result<Vec<Tensor>> {
        let mut products = Vec::with_capacity(vectors.len());
        for (sum, v) in sums.into_iter().zip(vectors) {
            let product = match sum.and_then(|sum| sum.into_parts().1) {
                Some(tangent) => tangent,
                None => self.to_device(&v.zeros_like()?)?,
            };
            if !is_finite(&product)? {
                let request = DerivativeRequest { layer, matrix, vectors: Some(vectors) };
                return Err(non_finite::locate(self, examples, request)?);
            }
            products.push(product);
        }
        Ok(products)
    }

    /// The values of the sums. Zero where nothing depends on the weight.
    fn values(&self, layer: &Layer, sums: &[Option<DualTensor>]) -> Result<Vec<Tensor>> {
        let one = |(&i, sum): (&usize, &Option<DualTensor>)| match sum {
            Some(sum) => Ok(sum.value().clone()),
            None => Ok(self.to_device(&self.weights.tensor(i).zeros_like()?)?),
        };
        layer.tensors.iter().zip(sums).map(one).collect()
    }

    /// Mean loss, and its derivatives with respect to each parameter of the layer.
    fn derivatives(
        &self,
        examples: &dyn Examples,
        request: DerivativeRequest,
    ) -> Result<(f64, Vec<Option<DualTensor>>)> {
        let mut loss = 0.0;
        let mut sums: Vec<Accumulator> = Vec::new();
        sums.resize_with(request.layer.tensors.len(), Accumulator::default);
        let count = examples.len();
        let (model, examples) = (self.on_device()?, &self.prefetching(examples));
        let vectors = request.vectors.map(|all| self.all_to_device(all)).transpose()?;
        let request = DerivativeRequest { vectors: vectors.as_deref(), ..request };
        let sweep = |range: Range<usize>| match self.checkpointing {
            true => {
                let precision = self.precision_of(request);
                let last = request.layer.first_stage;
                let stage_inputs = model.stage_inputs(examples, range.clone(), last, precision)?;
                model.sweep_checkpointed(examples, request, range, &stage_inputs)
            }
            false => model.sweep(examples, request, range, Tape::new()),
        };
        self.for_each_micro_batch(
            (examples, self.even_chunks(examples)?),
            sweep,
            |(part, gradients)| {
                loss += part;
                add(&mut sums, gradients)
            },
        )?;
        Ok((loss / count as f64, finish(sums)))
    }

    /// Precision of products in a sweep; see [`Objective::precision`].
    pub(super) fn precision_of(&self, request: DerivativeRequest) -> Precision {
        match request.vectors {
            None => self.precision,
            Some(_) => Precision::F32,
        }
    }

    /// One micro-batch: the sum of its losses, and the gradient of that sum divided by the number
    /// of all examples. With vectors, the gradient has tangents.
    ///
    /// The backward pass starts from the gradient of the loss with respect to the logits, whose
    /// tangent is (diag(p) − ppᵀ) J v. A tape with tangents turns it into H v. A tape of values
    /// alone applies Jᵀ and gives G v.
    pub(super) fn sweep(
        &self,
        examples: &dyn Examples,
        request: DerivativeRequest,
        range: Range<usize>,
        tape: Tape,
    ) -> Result<(f64, Vec<Option<DualTensor>>)> {
        let x = self.input(examples, range.clone())?;
        let mut pass = self.pass(self.precision_of(request));
        pass.tape = request.matrix.tape(tape);
        let mut watched = Vec::with_capacity(request.layer.tensors.len());
        for (k, &i) in request.layer.tensors.iter().enumerate() {
            let tangent = request.vectors.map(|v| self.to_device(&v[k])).transpose()?;
            let parameter = DualTensor::new(self.weights.tensor(i).clone(), tangent)?;
            watched.push(pass.watch(i, parameter));
        }
        let logits = pass.run(examples.stage(), self.network.stages(), Value::constant(x))?;
        let labels: Arc<[u32]> = examples.labels()[range.clone()].into();
        let example_weights = self.example_weights(examples.len(), range.len())?;
        let (sum, g_logits) =
            self.loss_gradient(&pass.tape, logits.tensor(), &labels, &example_weights)?;
        if !sum.is_finite() {
            return Err(Error::NonFinite { from: range.start, to: range.end, loss: sum });
        }
        let Some(g_logits) = g_logits else { return Ok((sum, vec![None; watched.len()])) };
        let mut gradients = pass.tape.backward(&logits, g_logits)?;
        Ok((sum, watched.iter().map(|leaf| gradients.take(leaf)).collect()))
    }
}

impl Objective {
    /// The sum of a micro-batch's losses, and the gradient of Σᵢ `example_weights`ᵢ ℓᵢ with respect to the
    /// logits.
    pub(super) fn loss_gradient(
        &self,
        tape: &Tape,
        logits: &DualTensor,
        labels: &Arc<[u32]>,
        example_weights: &DualTensor,
    ) -> Result<(f64, Option<DualTensor>)> {
        let mut top = tape.sibling();
        let at = top.watch(logits.clone());
        let loss = CrossEntropy { labels: labels.clone(), smoothing: self.smoothing };
        let losses = top.apply(loss, &[&at])?;
        let sum = total(losses.tensor().value())?;
        if !sum.is_finite() {
            return Ok((sum, None));
        }
        Ok((sum, top.backward(&losses, example_weights.clone())?.take(&at)))
    }
}

/// Adds a micro-batch's derivatives to the running sums.
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

/// Σ over all numbers, in f64.
fn total(x: &Tensor) -> Result<f64> {
    let x: Vec<f64> = to_cpu(x)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    Ok(x.iter().sum())
}
