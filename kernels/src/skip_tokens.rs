//! All but the first tokens of every image. Linear, so tangents are transformed like values.

use crate::cuda::Rearrange;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use crate::registry::Sample;

/// Leaves out the first tokens: (B, T, D) → (B, T − count, D). The VJP fills their place with zeros.
#[derive(Clone, Copy, Debug)]
pub struct SkipTokens {
    /// Number of tokens left out, less than T.
    pub count: usize,
}

impl SkipTokens {
    fn slice(&self, adjoint: bool, tokens: usize, d: usize) -> Rearrange {
        let (first, count) = (self.count * d, (tokens - self.count) * d);
        Rearrange::Slice { adjoint, len: tokens * d, first, count }
    }
}

impl Op for SkipTokens {
    fn name(&self) -> &'static str {
        "skip_tokens"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match *x[0] {
            [images, tokens, d] if tokens > self.count => Ok(vec![images, tokens - self.count, d]),
            _ => {
                let expected = format!("(B, T, D) with T above {}", self.count);
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
            x.narrow(lead + 1, self.count, dims[1])?.contiguous()
        })
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let how = self.slice(true, saved.dims[0][1], gy.columns());
        let gx = gy.rearranged(self.name(), how, &saved.dims[0], |g, lead| {
            g.pad_with_zeros(lead + 1, self.count, 0)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(SkipTokens { count: 1 }, &[&[3, 4, 5]]),
        Sample::new(SkipTokens { count: 2 }, &[&[1, 3, 4]]),
    ]
}
