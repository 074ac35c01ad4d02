//! Rearrangements of tokens: images into patches, pooling. All are linear, so a
//! tangent goes the same way as its value.

use crate::cuda::Move;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Keep, Kept, Op};
use crate::registry::Sample;
use candle_core::D;

/// Cuts images into patches: (B, C, H, W) → (B, N, C·h·w), patches row by row, each laid out
/// (C, h, w) like the weight of the projection, which makes patch embedding a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Patches {
    /// Height and width of a patch.
    pub size: [usize; 2],
}

impl Op for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let [h, w] = self.size;
        let &[images, c, height, width] = x[0].dims() else {
            return Err(Error::shape(self.name(), "(B, C, H, W)", format!("{:?}", x[0].dims())));
        };
        if h == 0 || w == 0 || height % h != 0 || width % w != 0 {
            return Err(Error::shape(
                self.name(),
                format!("a size that {h}×{w} patches tile"),
                format!("{height}×{width}"),
            ));
        }
        let (rows, cols) = (height / h, width / w);
        let dims = [images, rows * cols, c * h * w];
        let how = Move::Patches { back: false, image: [c, height, width], patch: self.size };
        x[0].moved(self.name(), how, &dims, |x, _| {
            // (lead·B, C, rows, h, cols, w) → (lead·B, rows, cols, C, h, w)
            let lead = &x.dims()[..x.rank() - 3];
            let images: usize = lead.iter().product();
            let shape = lead.iter().chain(&[rows * cols, c * h * w]).copied().collect::<Vec<_>>();
            x.reshape(&[images, c, rows, h, cols, w])?
                .permute([0, 2, 4, 1, 3, 5])?
                .contiguous()?
                .reshape(shape)
        })
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let [h, w] = self.size;
        let &[b, c, height, width] = &kept.dims[0][..] else {
            return Err(Error::shape(self.name(), "(B, C, H, W)", format!("{:?}", kept.dims[0])));
        };
        let how = Move::Patches { back: true, image: [c, height, width], patch: self.size };
        let gx = gy.moved(self.name(), how, &kept.dims[0], |g, lead| {
            let images = b * g.dims()[..lead].iter().product::<usize>();
            let shape = g.dims()[..lead].iter().chain(&kept.dims[0]).copied().collect::<Vec<_>>();
            g.reshape(&[images, height / h, width / w, c, h, w])?
                .permute([0, 3, 1, 4, 2, 5])?
                .contiguous()?
                .reshape(shape)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// The same numbers as a matrix, all dimensions but the first flattened: (D, C, h, w) → (D, C·h·w).
#[derive(Clone, Copy, Debug)]
pub struct Flatten;

impl Op for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let x = x[0];
        let first = x.dims().first().copied().unwrap_or(1).max(1);
        x.reshape(&[first, x.numel() / first])
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        Ok(vec![Some(gy.reshape(&kept.dims[0])?)])
    }
}

/// Picks one token: (B, T, D) → (B, D).
#[derive(Clone, Copy, Debug)]
pub struct PickToken {
    /// Its position.
    pub index: usize,
}

impl PickToken {
    fn slice(&self, back: bool, tokens: usize, d: usize) -> Move {
        Move::Slice { back, len: tokens * d, first: self.index * d, count: d }
    }
}

impl Op for PickToken {
    fn name(&self) -> &'static str {
        "pick_token"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let &[images, tokens, d] = x[0].dims() else {
            return Err(Error::shape(self.name(), "(B, T, D)", format!("{:?}", x[0].dims())));
        };
        let how = self.slice(false, tokens, d);
        x[0].moved(self.name(), how, &[images, d], |x, lead| {
            x.narrow(lead + 1, self.index, 1)?.squeeze(lead + 1)
        })
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let after = kept.dims[0][1] - self.index - 1;
        let how = self.slice(true, kept.dims[0][1], gy.columns());
        let gx = gy.moved(self.name(), how, &kept.dims[0], |g, lead| {
            g.unsqueeze(lead + 1)?.pad_with_zeros(lead + 1, self.index, after)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Mean over the tokens after the first `skip`: (B, T, D) → (B, D).
#[derive(Clone, Copy, Debug)]
pub struct MeanTokens {
    /// Prefix tokens left out.
    pub skip: usize,
}

impl Op for MeanTokens {
    fn name(&self) -> &'static str {
        "mean_tokens"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let tokens = x[0].dims().get(1).copied().unwrap_or(0);
        if tokens <= self.skip {
            return Err(Error::shape(
                self.name(),
                format!("more than {} tokens", self.skip),
                format!("{:?}", x[0].dims()),
            ));
        }
        let (dims, d) = (x[0].dims(), x[0].columns());
        let how = Move::Mean { back: false, image: [tokens, d], skip: self.skip };
        x[0].moved(self.name(), how, &[dims[0], d], |x, lead| {
            x.narrow(lead + 1, self.skip, tokens - self.skip)?.contiguous()?.mean(lead + 1)
        })
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let tokens = kept.dims[0][1] - self.skip;
        let image = [kept.dims[0][1], gy.columns()];
        let how = Move::Mean { back: true, image, skip: self.skip };
        let gx = gy.moved(self.name(), how, &kept.dims[0], |g, lead| {
            let dims = g.dims();
            let (width, mut shape) = (g.dim(D::Minus1)?, dims.to_vec());
            shape.insert(lead + 1, tokens);
            debug_assert_eq!(shape.last(), Some(&width));
            (g.unsqueeze(lead + 1)?.broadcast_as(shape)?.contiguous()? / tokens as f64)?
                .pad_with_zeros(lead + 1, self.skip, 0)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Shapes to check [`Patches`] on.
pub fn patches_samples() -> Vec<Sample> {
    vec![
        Sample::new(Patches { size: [2, 3] }, &[&[2, 3, 4, 9]]),
        Sample::new(Patches { size: [4, 4] }, &[&[1, 1, 8, 8]]),
    ]
}

/// Shapes to check [`Flatten`] on.
pub fn flatten_samples() -> Vec<Sample> {
    vec![Sample::new(Flatten, &[&[3, 2, 2, 5]])]
}

/// Shapes to check [`PickToken`] on.
pub fn pick_samples() -> Vec<Sample> {
    vec![Sample::new(PickToken { index: 1 }, &[&[2, 3, 5]])]
}

/// Shapes to check [`MeanTokens`] on.
pub fn mean_samples() -> Vec<Sample> {
    vec![
        Sample::new(MeanTokens { skip: 1 }, &[&[2, 4, 5]]),
        Sample::new(MeanTokens { skip: 0 }, &[&[3, 2, 5]]),
    ]
}
