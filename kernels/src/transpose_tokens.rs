//! Transposition of tokens and channels. Linear, so tangents are transformed like values.

use crate::cuda::Rearrange;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use crate::parts::{RearrangeImage, rearranged_images};
use crate::registry::Sample;

/// Swaps tokens and channels: (B, T, D) → (B, D, T). So a linear layer after it mixes tokens, as in
/// MLP-Mixer (Tolstikhin et al., NeurIPS 2021, §2).
///
/// VJP: the same transposition of gy.
#[derive(Clone, Copy, Debug)]
pub struct TransposeTokens;

/// Rows and columns of the square that is transposed at a time. A square of f64 takes 2 KiB, and
/// each of its rows is a whole cache line or two.
const SIDE: usize = 16;

/// (T, D) → (D, T).
struct Transpose([usize; 2]);

impl RearrangeImage for Transpose {
    fn rearrange<E: Copy>(&self, from: &[E], to: &mut [E]) {
        let [rows, cols] = self.0;
        for r in (0..rows).step_by(SIDE) {
            let end = rows.min(r + SIDE);
            for c in (0..cols).step_by(SIDE) {
                for j in c..cols.min(c + SIDE) {
                    for (i, y) in (r..end).zip(&mut to[j * rows + r..j * rows + end]) {
                        *y = from[i * cols + j];
                    }
                }
            }
        }
    }
}

impl TransposeTokens {
    fn transposed(&self, x: &DualTensor) -> Result<DualTensor> {
        let dims = self.shape(&[x.dims()])?;
        let image = [dims[2], dims[1]];
        rearranged_images(self.name(), x, Rearrange::Transpose { image }, &dims, &Transpose(image))
    }
}

impl Op for TransposeTokens {
    fn name(&self) -> &'static str {
        "transpose_tokens"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match *x[0] {
            [images, tokens, d] => Ok(vec![images, d, tokens]),
            _ => Err(Error::shape(self.name(), "(B, T, D)", format!("{:?}", x[0]))),
        }
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        self.transposed(x[0])
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, _: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        Ok(vec![Some(self.transposed(gy)?)])
    }
}

/// Test shapes: less than a square of `SIDE`, and several with an incomplete last one.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(TransposeTokens, &[&[3, 4, 5]]),
        Sample::new(TransposeTokens, &[&[1, 19, 35]]),
        Sample::new(TransposeTokens, &[&[2, 1, 7]]),
    ]
}
