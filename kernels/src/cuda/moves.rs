//! Rearrangements as data: what linear operations without arithmetic do on a GPU.

use super::launch::{Address, Launch, Planner};
use crate::error::Result;

/// A rearrangement of every image of a tensor. `back` is its adjoint.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    /// (C, H, W) → (N, C·h·w).
    Patches {
        /// The adjoint.
        back: bool,
        /// C, H, W.
        image: [usize; 3],
        /// h, w.
        patch: [usize; 2],
    },
    /// `count` numbers from number `first` of `len`; the adjoint fills the others with zeros.
    Slice {
        /// The adjoint.
        back: bool,
        /// Numbers of an image.
        len: usize,
        /// The first that is taken.
        first: usize,
        /// How many are.
        count: usize,
    },
    /// (T, D) → (D), the mean over the tokens after the first `skip`.
    Mean {
        /// The adjoint.
        back: bool,
        /// T, D.
        image: [usize; 2],
        /// Tokens left out.
        skip: usize,
    },
}

impl Move {
    /// The launches that move `numel` numbers between two addresses.
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
            Move::Patches { back, image, patch } => {
                let images = images(image.iter().product())?;
                planner.patches(back, at, images, image, patch)
            }
            Move::Slice { back: false, len, first, count } => {
                planner.slice_value(at, images(len)?, len, [first, count])
            }
            Move::Slice { back: true, len, first, count } => {
                planner.slice_vjp(at, images(count)?, len, [first, count])
            }
            Move::Mean { back, image: [tokens, n], skip } => {
                let images = images(if back { n } else { tokens * n })?;
                planner.mean_tokens(back, at, images, [tokens, n], skip)
            }
        }
    }
}
