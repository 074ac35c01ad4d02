//! Linear rearrangements on a GPU, as data.

use super::launch::{Address, Launch, Planner};
use crate::error::Result;

/// A rearrangement of every image of a tensor, or its adjoint.
#[derive(Clone, Copy, Debug)]
pub enum Rearrange {
    /// (C, H, W) → (N, C·h·w).
    Patches {
        /// Whether to apply the adjoint.
        adjoint: bool,
        /// C, H, W.
        image: [usize; 3],
        /// h, w.
        patch: [usize; 2],
    },
    /// (H·W, C) → ((H/h)·(W/w), C·h·w).
    TokenPatches {
        /// Whether to apply the adjoint.
        adjoint: bool,
        /// H, W.
        grid: [usize; 2],
        /// C.
        channels: usize,
        /// h, w.
        patch: [usize; 2],
    },
    /// (T, D) → (D, T).
    Transpose {
        /// T, D.
        image: [usize; 2],
    },
    /// `count` numbers of `len`, from index `first`. The adjoint fills the rest with zeros.
    Slice {
        /// Whether to apply the adjoint.
        adjoint: bool,
        /// Numbers per image.
        len: usize,
        /// Index of the first number.
        first: usize,
        /// Count of numbers.
        count: usize,
    },
    /// (T, D) → (D): mean over the tokens after the first `skip`.
    Mean {
        /// Whether to apply the adjoint.
        adjoint: bool,
        /// T, D.
        image: [usize; 2],
        /// Number of tokens left out.
        skip: usize,
    },
}

impl Rearrange {
    /// The launches that rearrange `numel` numbers from the first address to the second.
    pub fn launches(
        self,
        planner: &Planner,
        op: &'static str,
        at: [Address; 2],
        numel: usize,
    ) -> Result<Vec<Launch>> {
        let images = |each: usize| match each {
            0 => Ok(0),
            each if numel.is_multiple_of(each) => Ok(numel / each),
            each => Err(crate::Error::shape(op, format!("images of {each}"), numel.to_string())),
        };
        match self {
            Rearrange::Patches { adjoint, image, patch } => {
                let images = images(image.iter().product())?;
                planner.patches(adjoint, at, images, image, patch)
            }
            Rearrange::TokenPatches { adjoint, grid: [height, width], channels, patch } => {
                let images = images(height * width * channels)?;
                planner.token_patches(adjoint, at, images, [height, width, channels], patch)
            }
            Rearrange::Transpose { image } => {
                planner.transpose_tokens(at, images(image.iter().product())?, image)
            }
            Rearrange::Slice { adjoint: false, len, first, count } => {
                planner.slice_value(at, images(len)?, len, [first, count])
            }
            Rearrange::Slice { adjoint: true, len, first, count } => {
                planner.slice_vjp(at, images(count)?, len, [first, count])
            }
            Rearrange::Mean { adjoint, image: [tokens, n], skip } => {
                let images = images(if adjoint { n } else { tokens * n })?;
                planner.mean_tokens(adjoint, at, images, [tokens, n], skip)
            }
        }
    }
}
