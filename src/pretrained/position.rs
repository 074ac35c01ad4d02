//! Position embeddings of another image size.

use crate::models::position::matrix;
use crate::models::vit::Config;
use candle_core::{DType, Device, Result, Tensor};

/// A position embedding (1,T,D) resized from the patch grid of `from` to that of `to`, as timm's
/// `resample_abs_pos_embed` does it: bicubic (a = −1/2), antialiased; the rows of prefix tokens are
/// kept. In f64, returned in f32.
///
/// # Errors
/// Rows that do not belong to the grid of `from`.
pub fn resized(embedding: &Tensor, from: &Config, to: &Config) -> Result<Tensor> {
    let [old, new] = [from, to].map(grid);
    let prefix = from.prefix_positions();
    let (one, rows, dim) = embedding.dims3()?;
    if one != 1 || rows != prefix + old[0] * old[1] {
        candle_core::bail!("expected {prefix} + {}×{} positions, found {rows}", old[0], old[1])
    }
    let resized = prefix + new[0] * new[1];
    let matrix =
        Tensor::from_slice(&matrix(prefix, old, new, true), (resized, rows), &Device::Cpu)?;
    let out = matrix.matmul(&embedding.to_dtype(DType::F64)?.reshape((rows, dim))?)?;
    out.reshape((1, resized, dim))?.to_dtype(DType::F32)
}

/// Rows and columns of patches.
fn grid(config: &Config) -> [usize; 2] {
    [0, 1].map(|axis| config.image_size[axis] / config.patch_size[axis])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::arch;

    /// What `tests/reference/make_position.py` wrote: timm's own resizing.
    #[derive(serde::Deserialize)]
    struct Case {
        prefix: usize,
        from: [usize; 2],
        to: [usize; 2],
        input: Vec<f32>,
        output: Vec<f64>,
    }

    fn config(prefix: usize, grid: [usize; 2]) -> Config {
        let mut config = arch::vit("vit_nano_patch7_28", 3, 1).unwrap();
        config.image_size = grid.map(|side| 7 * side);
        config.class_token = prefix > 0;
        config.registers = prefix.saturating_sub(1);
        config.position_covers_prefix = prefix > 0;
        config
    }

    #[test]
    fn resizing_equals_timm() {
        let text = include_str!("../../tests/reference/position.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() > 3);
        for Case { prefix, from, to, input, output } in cases {
            let rows = prefix + from[0] * from[1];
            let shape = (1, rows, input.len() / rows);
            let embedding = Tensor::from_vec(input, shape, &Device::Cpu).unwrap();
            let found = resized(&embedding, &config(prefix, from), &config(prefix, to)).unwrap();
            assert_eq!(found.dims3().unwrap().1, prefix + to[0] * to[1]);
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(found.len(), output.len());
            // timm computes in f32: a few roundings of sums of numbers up to 4.
            let off = found.iter().zip(&output).map(|(a, b)| (f64::from(*a) - b).abs());
            let off = off.fold(0.0, f64::max);
            assert!(off < 4e-6, "{prefix} {from:?} {to:?}: {off}");
        }
    }

    #[test]
    fn rows_of_another_grid_are_refused() {
        let embedding = Tensor::zeros((1, 17, 8), DType::F32, &Device::Cpu).unwrap();
        let (from, to) = (config(1, [4, 4]), config(1, [2, 2]));
        assert!(resized(&embedding, &from, &to).is_ok());
        assert!(resized(&embedding, &to, &from).is_err());
    }
}
