//! Batched matrix multiplication.

use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use crate::product::{Products, Target, View, product};
use crate::registry::Sample;

/// y = a b for every matrix of the batch; a: (…, M, K), b: (…, K, N), y: (…, M, N).
///
/// ga = gy bᵀ; gb = aᵀ gy.
#[derive(Clone, Copy, Debug, Default)]
pub struct MatMul {
    /// How matrix products are computed.
    pub products: Products,
}

impl MatMul {
    fn views(&self, a: &[usize], b: &[usize]) -> Result<(View, View, View, Vec<usize>)> {
        match (a, b) {
            ([lead @ .., m, k], [lead_b @ .., kb, n]) if lead == lead_b && k == kb => {
                let batch = lead.iter().product();
                let dims = lead.iter().chain([m, n]).copied().collect();
                let view = |rows: usize, cols: usize| View::batched(batch, 1, rows, cols);
                Ok((view(*m, *k), view(*k, *n), view(*m, *n), dims))
            }
            _ => Err(Error::shape(
                self.name(),
                "(…, M, K) and (…, K, N)",
                format!("{a:?} and {b:?}"),
            )),
        }
    }
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.views(x[0], x[1])?.3)
    }

    fn flops(&self, x: &[&[usize]]) -> f64 {
        let columns = x[1].last().copied().unwrap_or(0);
        2.0 * x[0].iter().product::<usize>() as f64 * columns as f64
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !(inputs[0] && inputs[1])
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (va, vb, vy, dims) = self.views(x[0].dims(), x[1].dims())?;
        let target =
            Target { dims: &dims, view: vy, bias: None, primal: None, products: self.products };
        product(self, (x[0], va), (x[1], vb), target, 1.0)
    }

    fn save_set(&self, needs_grad: &[bool]) -> SaveSet {
        SaveSet { inputs: u32::from(needs_grad[1]) | u32::from(needs_grad[0]) << 1, output: false }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let (va, vb, vy, _) = self.views(&saved.dims[0], &saved.dims[1])?;
        let mut gradients = vec![None, None];
        if needs_grad[0] {
            let b = saved.input(self.name(), 1)?;
            let target = Target {
                dims: &saved.dims[0],
                view: va,
                bias: None,
                primal: None,
                products: self.products,
            };
            gradients[0] = Some(product(self, (gy, vy), (b, vb.t()), target, 1.0)?);
        }
        if needs_grad[1] {
            let a = saved.input(self.name(), 0)?;
            let target = Target {
                dims: &saved.dims[1],
                view: vb,
                bias: None,
                primal: None,
                products: self.products,
            };
            gradients[1] = Some(product(self, (a, va.t()), (gy, vy), target, 1.0)?);
        }
        Ok(gradients)
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(MatMul::default(), &[&[3, 4], &[4, 5]]),
        Sample::new(MatMul::default(), &[&[2, 3, 4, 5], &[2, 3, 5, 2]]),
    ]
}
