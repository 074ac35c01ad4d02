//! Prefix tokens. Linear, so tangents are transformed like values.

use crate::cpu::Output;
use crate::cuda::Rearrange;
#[cfg(feature = "cuda")]
use crate::cuda::gpu;
use crate::dual_tensor::DualTensor;
#[cfg(feature = "cuda")]
use crate::dual_tensor::common_dtype;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved, rows_of_len, run_rows};
use crate::pointwise::SumRows;
use crate::registry::Sample;
use candle_core::Tensor;

/// Puts the same tokens in front of every image's tokens: t: (1, P, D), x: (B, T, D) → (B, P+T, D).
#[derive(Clone, Copy, Debug)]
pub struct Prepend;

impl Op for Prepend {
    fn name(&self) -> &'static str {
        "prepend"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match (x[0], x[1]) {
            (&[1, p, d], &[b, t, width]) if d == width => Ok(vec![b, p + t, d]),
            (tokens, x) => {
                let found = format!("{tokens:?} and {x:?}");
                Err(Error::shape(self.name(), "(1, P, D) and (B, T, D)", found))
            }
        }
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (t, x) = (x[0], x[1]);
        self.shape(&[t.dims(), x.dims()])?;
        let (b, p, d) = (x.dims()[0], t.dims()[1], x.columns());
        #[cfg(feature = "cuda")]
        if t.on_gpu() || x.on_gpu() {
            common_dtype(self.name(), &[t, x])?;
            return gpu::prepend(self.name(), t, x, [b, p + x.dims()[1], d]);
        }
        let value = Tensor::cat(&[&t.value().broadcast_as((b, p, d))?, x.value()], 1)?;
        let k = t.tangents().max(x.tangents());
        if k == 0 {
            return Ok(DualTensor::constant(value));
        }
        let t_tangent = match t.tangent() {
            Some(tangent) => tangent.broadcast_as((k, b, p, d))?.contiguous()?,
            None => Tensor::zeros((k, b, p, d), value.dtype(), value.device())?,
        };
        let x_tangent = match x.tangent() {
            Some(tangent) => tangent.clone(),
            None => {
                let dims: Vec<usize> = std::iter::once(k).chain(x.dims().iter().copied()).collect();
                Tensor::zeros(dims, value.dtype(), value.device())?
            }
        };
        DualTensor::new(value, Some(Tensor::cat(&[&t_tangent, &x_tangent], 2)?))
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
        let (p, t) = (saved.dims[0][1], saved.dims[1][1]);
        let mut gradients = vec![None, None];
        let (b, d) = (saved.dims[1][0], saved.dims[1][2]);
        let slice = |first: usize, count: usize| {
            let how = Rearrange::Slice {
                adjoint: false,
                len: (p + t) * d,
                first: first * d,
                count: count * d,
            };
            gy.rearranged(self.name(), how, &[b, count, d], |g, lead| {
                g.narrow(lead + 1, first, count)
            })
        };
        if needs_grad[0] && gy.on_gpu() {
            let (own, dims) = (slice(0, p)?, [&saved.dims[0][..]]);
            let rows = [rows_of_len(&own, p * d)];
            let [gt] = run_rows(self.name(), &SumRows, b, rows, [Output::Summed(p * d)], dims)?;
            gradients[0] = Some(gt);
        } else if needs_grad[0] {
            gradients[0] =
                Some(gy.rearrange(|g, lead| {
                    g.narrow(lead + 1, 0, p)?.contiguous()?.sum_keepdim(lead)
                })?);
        }
        if needs_grad[1] {
            gradients[1] = Some(slice(p, t)?);
        }
        Ok(gradients)
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    vec![Sample::new(Prepend, &[&[1, 2, 5], &[3, 4, 5]])]
}
