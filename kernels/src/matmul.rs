//! Batched matrix multiplication.

use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Keep, Kept, Op};
use crate::product::{Precision, Target, View, product};
use crate::registry::Sample;

/// y = a b for every matrix of the batch; a: (…, M, K), b: (…, K, N), y: (…, M, N).
///
/// ga = gy bᵀ; gb = aᵀ gy.
#[derive(Clone, Copy, Debug, Default)]
pub struct MatMul {
    /// How the operands of its products are taken.
    pub precision: Precision,
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

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (va, vb, vy, dims) = self.views(x[0].dims(), x[1].dims())?;
        let target =
            Target { dims: &dims, view: vy, bias: None, known: None, precision: self.precision };
        product(self, (x[0], va), (x[1], vb), target, 1.0)
    }

    fn keep(&self, wanted: &[bool]) -> Keep {
        Keep { inputs: u32::from(wanted[1]) | u32::from(wanted[0]) << 1, output: false }
    }

    fn vjp(
        &self,
        kept: &Kept,
        gy: &DualTensor,
        wanted: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let (va, vb, vy, _) = self.views(&kept.dims[0], &kept.dims[1])?;
        let mut gradients = vec![None, None];
        if wanted[0] {
            let b = kept.input(self.name(), 1)?;
            let target = Target {
                dims: &kept.dims[0],
                view: va,
                bias: None,
                known: None,
                precision: self.precision,
            };
            gradients[0] = Some(product(self, (gy, vy), (b, vb.t()), target, 1.0)?);
        }
        if wanted[1] {
            let a = kept.input(self.name(), 0)?;
            let target = Target {
                dims: &kept.dims[1],
                view: vb,
                bias: None,
                known: None,
                precision: self.precision,
            };
            gradients[1] = Some(product(self, (a, va.t()), (gy, vy), target, 1.0)?);
        }
        Ok(gradients)
    }
}

/// Shapes to check it on.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(MatMul::default(), &[&[3, 4], &[4, 5]]),
        Sample::new(MatMul::default(), &[&[2, 3, 4, 5], &[2, 3, 5, 2]]),
    ]
}
