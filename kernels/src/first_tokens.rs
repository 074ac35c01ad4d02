//! The first tokens of every image. Linear, so tangents are transformed like values.

use crate::cuda::Rearrange;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use crate::registry::Sample;

/// Keeps the first tokens: (B, T, D) → (B, count, D). The VJP fills the rest with zeros.
#[derive(Clone, Copy, Debug)]
pub struct FirstTokens {
    /// Number of tokens, at most T.
    pub count: usize,
}

impl FirstTokens {
    fn slice(&self, adjoint: bool, tokens: usize, d: usize) -> Rearrange {
        Rearrange::Slice { adjoint, len: tokens * d, first: 0, count: self.count * d }
    }
}

impl Op for FirstTokens {
    fn name(&self) -> &'static str {
        "first_tokens"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match *x[0] {
            [images, tokens, d] if tokens >= self.count => Ok(vec![images, self.count, d]),
            _ => {
                let expected = format!("(B, T, D) with T at least {}", self.count);
                Err(Error::shape(self.name(), expected, format!("{:?}", x[0])))
            }
        }
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let dims = self.shape(&[x[0].dims()])?;
        let how = self.slice(false, x[0].dims()[1], x[0].columns());
        x[0].rearranged(self.name(), how, &dims, |x, lead| {
            x.narrow(lead + 1, 0, self.count)?.contiguous()
        })
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let (tokens, how) = (saved.dims[0][1], self.slice(true, saved.dims[0][1], gy.columns()));
        let gx = gy.rearranged(self.name(), how, &saved.dims[0], |g, lead| {
            g.pad_with_zeros(lead + 1, 0, tokens - self.count)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Test shapes of [`FirstTokens`].
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(FirstTokens { count: 2 }, &[&[3, 4, 5]]),
        Sample::new(FirstTokens { count: 2 }, &[&[1, 2, 3]]),
    ]
}
