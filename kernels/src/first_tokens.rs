//! The first few tokens of every image; linear, so a tangent goes the same way as its value.

use crate::cuda::Move;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Keep, Kept, Op};
use crate::registry::Sample;

/// Keeps the first tokens: (B, T, D) → (B, count, D). The VJP fills the others with zeros.
#[derive(Clone, Copy, Debug)]
pub struct FirstTokens {
    /// How many, at most T.
    pub count: usize,
}

impl FirstTokens {
    fn slice(&self, back: bool, tokens: usize, d: usize) -> Move {
        Move::Slice { back, len: tokens * d, first: 0, count: self.count * d }
    }
}

impl Op for FirstTokens {
    fn name(&self) -> &'static str {
        "first_tokens"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        match x[0].dims() {
            &[images, tokens, d] if tokens >= self.count => {
                let how = self.slice(false, tokens, d);
                x[0].moved(self.name(), how, &[images, self.count, d], |x, lead| {
                    x.narrow(lead + 1, 0, self.count)?.contiguous()
                })
            }
            found => {
                let expected = format!("(B, T, D) with T at least {}", self.count);
                Err(Error::shape(self.name(), expected, format!("{found:?}")))
            }
        }
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let (tokens, how) = (kept.dims[0][1], self.slice(true, kept.dims[0][1], gy.columns()));
        let gx = gy.moved(self.name(), how, &kept.dims[0], |g, lead| {
            g.pad_with_zeros(lead + 1, 0, tokens - self.count)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Shapes to check [`FirstTokens`] on.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(FirstTokens { count: 2 }, &[&[3, 4, 5]]),
        Sample::new(FirstTokens { count: 2 }, &[&[1, 2, 3]]),
    ]
}
