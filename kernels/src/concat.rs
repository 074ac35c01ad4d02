//! Two tensors side by side. Linear, so tangents are transformed like values.

use crate::cuda::Rearrange;
#[cfg(feature = "cuda")]
use crate::cuda::gpu;
use crate::dual_tensor::{DualTensor, common_dtype};
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved, most_tangents, same_tangents};
use crate::registry::Sample;
use candle_core::{D, Tensor};

/// Joins two tensors along the last dimension: (…, N) and (…, M) → (…, N+M).
#[derive(Clone, Copy, Debug)]
pub struct Concat;

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match (x[0].split_last(), x[1].split_last()) {
            (Some((n, lead)), Some((m, same))) if lead == same && !lead.is_empty() => {
                Ok(lead.iter().copied().chain([n + m]).collect())
            }
            _ => {
                let found = format!("{:?} and {:?}", x[0], x[1]);
                Err(Error::shape(self.name(), "(…, N) and (…, M)", found))
            }
        }
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (a, b) = (x[0], x[1]);
        let dims = self.shape(&[a.dims(), b.dims()])?;
        same_tangents(self.name(), x)?;
        #[cfg(feature = "cuda")]
        if a.on_gpu() || b.on_gpu() {
            return gpu::side_by_side(self.name(), a, b, &dims);
        }
        common_dtype(self.name(), x)?;
        let value = Tensor::cat(&[a.value(), b.value()], D::Minus1)?;
        debug_assert_eq!(value.dims(), dims);
        let k = most_tangents(x);
        if k == 0 {
            return Ok(DualTensor::constant(value));
        }
        let tangent = |x: &DualTensor| match x.tangent() {
            Some(tangent) => Ok(tangent.clone()),
            None => {
                let dims: Vec<usize> = std::iter::once(k).chain(x.dims().iter().copied()).collect();
                Tensor::zeros(dims, value.dtype(), value.device())
            }
        };
        let tangent = Tensor::cat(&[tangent(a)?, tangent(b)?], D::Minus1)?;
        DualTensor::new(value, Some(tangent))
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let columns = |i: usize| saved.dims[i].last().copied().unwrap_or(0);
        let (n, m) = (columns(0), columns(1));
        let slice = |i: usize, first: usize, count: usize| {
            let how = Rearrange::Slice { adjoint: false, len: n + m, first, count };
            gy.rearranged(self.name(), how, &saved.dims[i], |g, _| {
                g.narrow(D::Minus1, first, count)?.contiguous()
            })
        };
        Ok(vec![
            needs_grad[0].then(|| slice(0, 0, n)).transpose()?,
            needs_grad[1].then(|| slice(1, n, m)).transpose()?,
        ])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    vec![Sample::new(Concat, &[&[3, 4], &[3, 6]]), Sample::new(Concat, &[&[2, 3, 5], &[2, 3, 1]])]
}
