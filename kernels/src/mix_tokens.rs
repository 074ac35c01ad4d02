//! Fixed linear maps of the tokens. Linear, so tangents are transformed like values.

use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use crate::product::{Products, Target, View, product};
use crate::registry::Sample;
use candle_core::{Device, Tensor};
use std::sync::Arc;

/// y = M x for every image; x: (B, T, D), M: (T', T) without a gradient, y: (B, T', D).
///
/// VJP: gx = Mᵀ gy.
#[derive(Clone, Debug)]
pub struct MixTokens {
    rows: usize,
    matrix: Arc<[f64]>,
}

impl MixTokens {
    /// The map of a row-major matrix with so many rows.
    pub fn new(rows: usize, matrix: Arc<[f64]>) -> Self {
        Self { rows, matrix }
    }

    /// B, T, T' and D for an input of this shape.
    fn sizes(&self, x: &[usize]) -> Result<[usize; 4]> {
        match *x {
            [images, tokens, d] if self.rows * tokens == self.matrix.len() => {
                Ok([images, tokens, self.rows, d])
            }
            _ => {
                let columns = self.matrix.len() / self.rows.max(1);
                Err(Error::shape(self.name(), format!("(B, {columns}, D)"), format!("{x:?}")))
            }
        }
    }

    /// M x, or Mᵀ x, for B images.
    fn mixed(
        &self,
        x: &DualTensor,
        [images, tokens, rows, d]: [usize; 4],
        transposed: bool,
    ) -> Result<DualTensor> {
        let matrix = Tensor::from_slice(&self.matrix, (rows, tokens), &Device::Cpu)?;
        let matrix = matrix.to_dtype(x.value().dtype())?.to_device(x.value().device())?;
        // The same matrix for every image.
        let one = View::matrix(rows, tokens);
        let (one, from, to) = match transposed {
            true => (one.t(), rows, tokens),
            false => (one, tokens, rows),
        };
        product(
            self,
            (&DualTensor::constant(matrix), View { batch: [images, 1], ..one }),
            (x, View::batched(images, 1, from, d)),
            Target {
                dims: &[images, to, d],
                view: View::batched(images, 1, to, d),
                bias: None,
                primal: None,
                products: Products::F32,
            },
            1.0,
        )
    }
}

impl Op for MixTokens {
    fn name(&self) -> &'static str {
        "mix_tokens"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        let [images, _, rows, d] = self.sizes(x[0])?;
        Ok(vec![images, rows, d])
    }

    fn flops(&self, x: &[&[usize]]) -> f64 {
        let sizes = self.sizes(x[0]).map(|sizes| sizes.map(|n| n as f64));
        sizes.map_or(0.0, |sizes| 2.0 * sizes.iter().product::<f64>())
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        self.mixed(x[0], self.sizes(x[0].dims())?, false)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        Ok(vec![Some(self.mixed(gy, self.sizes(&saved.dims[0])?, true)?)])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    let matrix = |count: usize| (0..count).map(|i| (i * i % 7) as f64 * 0.25 - 0.5).collect();
    vec![
        Sample::new(MixTokens::new(2, matrix(6)), &[&[2, 3, 5]]),
        Sample::new(MixTokens::new(5, matrix(20)), &[&[1, 4, 3]]),
    ]
}
