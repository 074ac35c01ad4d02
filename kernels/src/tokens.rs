//! Token rearrangements: images to patches, heads, pooling. Linear, so tangents are transformed like
//! values.

use crate::cuda::Rearrange;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use crate::registry::Sample;
use candle_core::D;

/// Cuts images into patches: (B, C, H, W) → (B, N, C·h·w). Patches are in row-major order, each
/// laid out (C, h, w) like the weight of the projection. So patch embedding is a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Patches {
    /// h and w, height and width of a patch.
    pub size: [usize; 2],
}

impl Op for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        let [h, w] = self.size;
        let &[images, c, height, width] = x[0] else {
            return Err(Error::shape(self.name(), "(B, C, H, W)", format!("{:?}", x[0])));
        };
        if h == 0 || w == 0 || height % h != 0 || width % w != 0 {
            let expected = format!("an image size that {h}×{w} patches tile");
            return Err(Error::shape(self.name(), expected, format!("{height}×{width}")));
        }
        Ok(vec![images, (height / h) * (width / w), c * h * w])
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let dims = self.shape(&[x[0].dims()])?;
        let ([h, w], &[_, c, height, width]) = (self.size, x[0].dims()) else {
            return Err(Error::shape(self.name(), "(B, C, H, W)", format!("{:?}", x[0].dims())));
        };
        let (rows, cols) = (height / h, width / w);
        let how =
            Rearrange::Patches { adjoint: false, image: [c, height, width], patch: self.size };
        x[0].rearranged(self.name(), how, &dims, |x, _| {
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

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let [h, w] = self.size;
        let &[b, c, height, width] = &saved.dims[0][..] else {
            return Err(Error::shape(self.name(), "(B, C, H, W)", format!("{:?}", saved.dims[0])));
        };
        let how = Rearrange::Patches { adjoint: true, image: [c, height, width], patch: self.size };
        let gx = gy.rearranged(self.name(), how, &saved.dims[0], |g, lead| {
            let images = b * g.dims()[..lead].iter().product::<usize>();
            let shape = g.dims()[..lead].iter().chain(&saved.dims[0]).copied().collect::<Vec<_>>();
            g.reshape(&[images, height / h, width / w, c, h, w])?
                .permute([0, 3, 1, 4, 2, 5])?
                .contiguous()?
                .reshape(shape)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Flattens all dimensions but the first: (D, C, h, w) → (D, C·h·w).
#[derive(Clone, Copy, Debug)]
pub struct Flatten;

impl Op for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        let first = x[0].first().copied().unwrap_or(1).max(1);
        Ok(vec![first, x[0].iter().product::<usize>() / first])
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        x[0].reshape(&self.shape(&[x[0].dims()])?)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        Ok(vec![Some(gy.reshape(&saved.dims[0])?)])
    }
}

/// Cuts each token into tokens of `columns` numbers, or joins that many numbers to one: (B, T, D) → (B,
/// T·D/columns, columns). So an operation on the last dimension acts on each head alone.
#[derive(Clone, Copy, Debug)]
pub struct Regroup {
    /// Numbers per token of the result.
    pub columns: usize,
}

impl Op for Regroup {
    fn name(&self) -> &'static str {
        "regroup"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match *x[0] {
            [images, tokens, d] if self.columns > 0 && (tokens * d) % self.columns == 0 => {
                Ok(vec![images, tokens * d / self.columns, self.columns])
            }
            _ => {
                let expected = format!("(B, T, D) with T·D a multiple of {}", self.columns);
                Err(Error::shape(self.name(), expected, format!("{:?}", x[0])))
            }
        }
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        x[0].reshape(&self.shape(&[x[0].dims()])?)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        Ok(vec![Some(gy.reshape(&saved.dims[0])?)])
    }
}

/// Selects one token: (B, T, D) → (B, D).
#[derive(Clone, Copy, Debug)]
pub struct PickToken {
    /// Index of the token.
    pub index: usize,
}

impl PickToken {
    fn slice(&self, adjoint: bool, tokens: usize, d: usize) -> Rearrange {
        Rearrange::Slice { adjoint, len: tokens * d, first: self.index * d, count: d }
    }
}

impl Op for PickToken {
    fn name(&self) -> &'static str {
        "pick_token"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match *x[0] {
            [images, tokens, d] if tokens > self.index => Ok(vec![images, d]),
            _ => {
                let expected = format!("(B, T, D) with T above {}", self.index);
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
            x.narrow(lead + 1, self.index, 1)?.squeeze(lead + 1)
        })
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let after = saved.dims[0][1] - self.index - 1;
        let how = self.slice(true, saved.dims[0][1], gy.columns());
        let gx = gy.rearranged(self.name(), how, &saved.dims[0], |g, lead| {
            g.unsqueeze(lead + 1)?.pad_with_zeros(lead + 1, self.index, after)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Mean over the tokens after the first `skip`: (B, T, D) → (B, D).
#[derive(Clone, Copy, Debug)]
pub struct MeanTokens {
    /// Number of prefix tokens left out.
    pub skip: usize,
}

impl Op for MeanTokens {
    fn name(&self) -> &'static str {
        "mean_tokens"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match *x[0] {
            [images, tokens, d] if tokens > self.skip => Ok(vec![images, d]),
            _ => {
                let expected = format!("(B, T, D) with T above {}", self.skip);
                Err(Error::shape(self.name(), expected, format!("{:?}", x[0])))
            }
        }
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let dims = self.shape(&[x[0].dims()])?;
        let (tokens, d) = (x[0].dims()[1], x[0].columns());
        let how = Rearrange::Mean { adjoint: false, image: [tokens, d], skip: self.skip };
        x[0].rearranged(self.name(), how, &dims, |x, lead| {
            x.narrow(lead + 1, self.skip, tokens - self.skip)?.contiguous()?.mean(lead + 1)
        })
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let tokens = saved.dims[0][1] - self.skip;
        let image = [saved.dims[0][1], gy.columns()];
        let how = Rearrange::Mean { adjoint: true, image, skip: self.skip };
        let gx = gy.rearranged(self.name(), how, &saved.dims[0], |g, lead| {
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

/// Test shapes of [`Patches`].
pub fn patches_samples() -> Vec<Sample> {
    vec![
        Sample::new(Patches { size: [2, 3] }, &[&[2, 3, 4, 9]]),
        Sample::new(Patches { size: [4, 4] }, &[&[1, 1, 8, 8]]),
    ]
}

/// Test shapes of [`Flatten`].
pub fn flatten_samples() -> Vec<Sample> {
    vec![Sample::new(Flatten, &[&[3, 2, 2, 5]])]
}

/// Test shapes of [`Regroup`].
pub fn regroup_samples() -> Vec<Sample> {
    vec![
        Sample::new(Regroup { columns: 3 }, &[&[2, 4, 6]]),
        Sample::new(Regroup { columns: 6 }, &[&[2, 4, 3]]),
    ]
}

/// Test shapes of [`PickToken`].
pub fn pick_samples() -> Vec<Sample> {
    vec![Sample::new(PickToken { index: 1 }, &[&[2, 3, 5]])]
}

/// Test shapes of [`MeanTokens`].
pub fn mean_samples() -> Vec<Sample> {
    vec![
        Sample::new(MeanTokens { skip: 1 }, &[&[2, 4, 5]]),
        Sample::new(MeanTokens { skip: 0 }, &[&[3, 2, 5]]),
    ]
}
