//! Rearrangements of tokens: images into patches, prefix tokens, pooling. All are linear, so a
//! tangent goes the same way as its value.

use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Keep, Kept, Op};
use crate::registry::Sample;
use candle_core::{D, Tensor};

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
        let &[_, c, height, width] = x[0].dims() else {
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
        x[0].rearrange(|x, _| {
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
        let gx = gy.rearrange(|g, lead| {
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

/// Puts the same tokens before those of every image: t: (1, P, D), x: (B, T, D) → (B, P+T, D).
#[derive(Clone, Copy, Debug)]
pub struct Prepend;

impl Op for Prepend {
    fn name(&self) -> &'static str {
        "prepend"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (t, x) = (x[0], x[1]);
        let (&[1, p, d], &[b, _, dx]) = (t.dims(), x.dims()) else {
            return Err(Error::shape(
                self.name(),
                "(1, P, D) and (B, T, D)",
                format!("{:?} and {:?}", t.dims(), x.dims()),
            ));
        };
        if d != dx {
            return Err(Error::shape(self.name(), format!("width {dx}"), format!("{d}")));
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

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(
        &self,
        kept: &Kept,
        gy: &DualTensor,
        wanted: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let (p, t) = (kept.dims[0][1], kept.dims[1][1]);
        let mut gradients = vec![None, None];
        if wanted[0] {
            gradients[0] =
                Some(gy.rearrange(|g, lead| {
                    g.narrow(lead + 1, 0, p)?.contiguous()?.sum_keepdim(lead)
                })?);
        }
        if wanted[1] {
            gradients[1] = Some(gy.rearrange(|g, lead| g.narrow(lead + 1, p, t))?);
        }
        Ok(gradients)
    }
}

/// Picks one token: (B, T, D) → (B, D).
#[derive(Clone, Copy, Debug)]
pub struct PickToken {
    /// Its position.
    pub index: usize,
}

impl Op for PickToken {
    fn name(&self) -> &'static str {
        "pick_token"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        x[0].rearrange(|x, lead| x.narrow(lead + 1, self.index, 1)?.squeeze(lead + 1))
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let after = kept.dims[0][1] - self.index - 1;
        let gx = gy.rearrange(|g, lead| {
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
        x[0].rearrange(|x, lead| {
            x.narrow(lead + 1, self.skip, tokens - self.skip)?.contiguous()?.mean(lead + 1)
        })
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let tokens = kept.dims[0][1] - self.skip;
        let gx = gy.rearrange(|g, lead| {
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

/// Shapes to check [`Prepend`] on.
pub fn prepend_samples() -> Vec<Sample> {
    vec![Sample::new(Prepend, &[&[1, 2, 5], &[3, 4, 5]])]
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
