//! The two products of multi-head self-attention, on the fused query-key-value buffer.
//!
//! Attention is `AttentionScores` → `Softmax` → `AttentionMix` (Vaswani et al. 2017, §3.2): heads
//! are strided views of the buffer that the qkv projection wrote, so nothing is permuted.

use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Keep, Kept, Op};
use crate::product::{Target, View, product};
use crate::registry::Sample;

/// y = q kᵀ/√d for every image and head. x: (B, T, 3·H·d), rows stacked q, k, v, each H heads of
/// d numbers; y: (B, H, T, T).
#[derive(Clone, Copy, Debug)]
pub struct AttentionScores {
    /// H.
    pub heads: usize,
}

/// y = p v for every image and head, heads side by side. p: (B, H, T, T), x as above;
/// y: (B, T, H·d).
#[derive(Clone, Copy, Debug)]
pub struct AttentionMix {
    /// H.
    pub heads: usize,
}

/// Sizes and strided views of a query-key-value buffer.
struct Buffer {
    batch: usize,
    tokens: usize,
    dim: usize,
    heads: usize,
}

impl Buffer {
    fn new(op: &'static str, x: &[usize], heads: usize) -> Result<Self> {
        match *x {
            [batch, tokens, width] if heads > 0 && width % (3 * heads) == 0 => {
                Ok(Self { batch, tokens, dim: width / 3, heads })
            }
            _ => Err(Error::shape(op, format!("(B, T, 3·{heads}·d)"), format!("{x:?}"))),
        }
    }

    /// Queries (0), keys (1) or values (2): (T, d) for every image and head.
    fn part(&self, part: usize) -> View {
        self.heads_of(3 * self.dim, part * self.dim)
    }

    /// The mixed values: (T, d) for every image and head of a (B, T, H·d) buffer.
    fn mixed(&self) -> View {
        self.heads_of(self.dim, 0)
    }

    fn heads_of(&self, width: usize, offset: usize) -> View {
        let d = self.dim / self.heads;
        View {
            offset,
            rows: self.tokens,
            cols: d,
            row_stride: width,
            col_stride: 1,
            batch: [self.batch, self.heads],
            batch_strides: [self.tokens * width, d],
        }
    }

    /// The scores: (T, T) for every image and head.
    fn scores(&self) -> View {
        View::batched(self.batch, self.heads, self.tokens, self.tokens)
    }

    fn score_dims(&self) -> [usize; 4] {
        [self.batch, self.heads, self.tokens, self.tokens]
    }

    fn scale(&self) -> f64 {
        1.0 / ((self.dim / self.heads) as f64).sqrt()
    }
}

impl Op for AttentionScores {
    fn name(&self) -> &'static str {
        "attention_scores"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let x = x[0];
        let buffer = Buffer::new(self.name(), x.dims(), self.heads)?;
        let target = Target { dims: &buffer.score_dims(), view: buffer.scores(), bias: None };
        product(self, (x, buffer.part(0)), (x, buffer.part(1).t()), target, buffer.scale())
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep { inputs: 1, output: false }
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let x = kept.input(self.name(), 0)?;
        let buffer = Buffer::new(self.name(), x.dims(), self.heads)?;
        let (q, k, scores) = (buffer.part(0), buffer.part(1), buffer.scores());
        let into = |view| Target { dims: x.dims(), view, bias: None };
        let gq = product(self, (gy, scores), (x, k), into(q), buffer.scale())?;
        let gk = product(self, (gy, scores.t()), (x, q), into(k), buffer.scale())?;
        Ok(vec![Some(gq.plus(&gk)?)])
    }
}

impl Op for AttentionMix {
    fn name(&self) -> &'static str {
        "attention_mix"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (p, x) = (x[0], x[1]);
        let buffer = Buffer::new(self.name(), x.dims(), self.heads)?;
        let dims = [buffer.batch, buffer.tokens, buffer.dim];
        let target = Target { dims: &dims, view: buffer.mixed(), bias: None };
        product(self, (p, buffer.scores()), (x, buffer.part(2)), target, 1.0)
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
        let buffer = Buffer::new(self.name(), &kept.dims[1], self.heads)?;
        let (v, scores, mixed) = (buffer.part(2), buffer.scores(), buffer.mixed());
        let mut gradients = vec![None, None];
        if wanted[0] {
            let x = kept.input(self.name(), 1)?;
            let target = Target { dims: &buffer.score_dims(), view: scores, bias: None };
            gradients[0] = Some(product(self, (gy, mixed), (x, v.t()), target, 1.0)?);
        }
        if wanted[1] {
            let p = kept.input(self.name(), 0)?;
            let target = Target { dims: &kept.dims[1], view: v, bias: None };
            gradients[1] = Some(product(self, (p, scores.t()), (gy, mixed), target, 1.0)?);
        }
        Ok(gradients)
    }
}

/// Shapes to check [`AttentionScores`] on.
pub fn scores_samples() -> Vec<Sample> {
    vec![
        Sample::new(AttentionScores { heads: 2 }, &[&[2, 5, 18]]),
        Sample::new(AttentionScores { heads: 1 }, &[&[1, 3, 12]]),
    ]
}

/// Shapes to check [`AttentionMix`] on.
pub fn mix_samples() -> Vec<Sample> {
    vec![
        Sample::new(AttentionMix { heads: 2 }, &[&[2, 2, 5, 5], &[2, 5, 18]]),
        Sample::new(AttentionMix { heads: 1 }, &[&[1, 1, 3, 3], &[1, 3, 12]]),
    ]
}
