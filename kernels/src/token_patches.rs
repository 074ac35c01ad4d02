//! Patches of a grid of tokens. Linear, so tangents are transformed like values.

use crate::cuda::Rearrange;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use crate::parts::{RearrangeImage, rearranged_images};
use crate::registry::Sample;

/// Cuts a grid of tokens into patches: (B, H·W, C) → (B, (H/h)·(W/w), C·h·w). Tokens and patches
/// are in row-major order. Each patch is laid out (C, h, w), like a filter of the weight (O, C, h,
/// w) of a convolution. So a convolution whose stride equals its kernel is this and a linear layer:
/// ConvNeXt's downsampling (Liu et al., CVPR 2022, §2.6).
///
/// VJP: the inverse rearrangement of gy.
#[derive(Clone, Copy, Debug)]
pub struct TokenPatches {
    /// H and W, rows and columns of the grid of tokens.
    pub grid: [usize; 2],
    /// h and w, height and width of a patch in tokens.
    pub size: [usize; 2],
}

/// The patches of one image with `channels` channels, or their inverse.
struct Image {
    patches: TokenPatches,
    channels: usize,
    adjoint: bool,
}

impl RearrangeImage for Image {
    fn rearrange<E: Copy>(&self, from: &[E], to: &mut [E]) {
        let ([height, width], [h, w], c) = (self.patches.grid, self.patches.size, self.channels);
        let (area, cols) = (h * w, width / w.max(1));
        for y in 0..height {
            for x in 0..width {
                let token = (y * width + x) * c;
                let patch = (y / h * cols + x / w) * c * area + y % h * w + x % w;
                for channel in 0..c {
                    let (token, patch) = (token + channel, patch + channel * area);
                    match self.adjoint {
                        false => to[patch] = from[token],
                        true => to[token] = from[patch],
                    }
                }
            }
        }
    }
}

impl TokenPatches {
    fn rearranged(&self, x: &DualTensor, dims: &[usize], adjoint: bool) -> Result<DualTensor> {
        let tokens = self.grid[0] * self.grid[1];
        let channels = x.numel() / (dims[0] * tokens).max(1);
        let how = Rearrange::TokenPatches { adjoint, grid: self.grid, channels, patch: self.size };
        let image = Image { patches: *self, channels, adjoint };
        rearranged_images(self.name(), x, how, dims, &image)
    }
}

impl Op for TokenPatches {
    fn name(&self) -> &'static str {
        "token_patches"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        let ([height, width], [h, w]) = (self.grid, self.size);
        if h == 0 || w == 0 || height % h != 0 || width % w != 0 {
            let expected = format!("a grid that {h}×{w} patches tile");
            return Err(Error::shape(self.name(), expected, format!("{height}×{width}")));
        }
        match *x[0] {
            [images, tokens, c] if tokens == height * width => {
                Ok(vec![images, (height / h) * (width / w), c * h * w])
            }
            _ => {
                let expected = format!("(B, {}, C)", height * width);
                Err(Error::shape(self.name(), expected, format!("{:?}", x[0])))
            }
        }
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        self.rearranged(x[0], &self.shape(&[x[0].dims()])?, false)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let dims = &saved.dims[0];
        if gy.dims() != self.shape(&[dims])? {
            let expected = format!("the patches of {dims:?}");
            return Err(Error::shape(self.name(), expected, format!("{:?}", gy.dims())));
        }
        Ok(vec![Some(self.rearranged(gy, dims, true)?)])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(TokenPatches { grid: [4, 9], size: [2, 3] }, &[&[2, 36, 3]]),
        Sample::new(TokenPatches { grid: [4, 4], size: [2, 2] }, &[&[1, 16, 5]]),
        Sample::new(TokenPatches { grid: [2, 3], size: [1, 1] }, &[&[1, 6, 4]]),
    ]
}
