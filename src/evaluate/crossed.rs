//! The mean of figures that every training seed has on every image, with an error that counts both.

use super::Error;
use crate::predictions;

/// The mean of a table of seeds × images.
///
/// The model is x_si = μ + a_s + b_i + e_si: seeds and images are drawn from larger populations, and a
/// mean over these S seeds and N images varies with both,
///
/// Var(x̄) = σ²_a/S + σ²_b/N + σ²_e/(SN).
///
/// With the mean squares of seeds A, of images B and of the rest E, the estimate is
/// (A + max(B − E, 0))/(SN). It is never below the variance over seeds alone, and without an effect of
/// seeds it tends to the variance over images. The degrees of freedom are Satterthwaite's.
///
/// Sources: Satterthwaite, Biometrics Bulletin 2, 1946. Readers and cases of radiology are seeds and
/// images here: Dorfman, Berbaum and Metz, Investigative Radiology 27, 1992, and Hillis, Statistics in
/// Medicine 26, 2007, for the maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossed {
    /// x̄.
    pub mean: f64,
    /// √Var(x̄). `None` for one seed or one image, which say nothing about the variation.
    pub stderr: Option<f64>,
    /// Degrees of freedom of `stderr`, for Student's t. At least those of the seeds, S − 1, unless
    /// there are fewer images than seeds.
    pub degrees_of_freedom: Option<f64>,
}

/// See [`Crossed`]. `table[s][i]` is the figure of seed s on image i.
///
/// # Errors
/// No seed or no image; seeds with different numbers of images.
pub fn crossed(table: &[Vec<f64>]) -> Result<Crossed, Error> {
    let images = table.first().map_or(0, Vec::len);
    if images == 0 {
        return Err(predictions::Error::NoImages.into());
    }
    if let Some(other) = table.iter().find(|row| row.len() != images) {
        return Err(Error::Unpaired { a: images, b: other.len() });
    }
    let (s, n) = (table.len() as f64, images as f64);
    let of_seeds: Vec<f64> = table.iter().map(|row| row.iter().sum::<f64>() / n).collect();
    let mean = of_seeds.iter().sum::<f64>() / s;
    if table.len() < 2 || images < 2 {
        return Ok(Crossed { mean, stderr: None, degrees_of_freedom: None });
    }
    let of_images: Vec<f64> =
        (0..images).map(|i| table.iter().map(|row| row[i]).sum::<f64>() / s).collect();
    let squares = |means: &[f64]| means.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    let seeds = n * squares(&of_seeds) / (s - 1.0);
    let per_image = s * squares(&of_images) / (n - 1.0);
    let rest = table.iter().zip(&of_seeds).flat_map(|(row, of_seed)| {
        let left = move |(x, of_image): (&f64, &f64)| x - of_seed - of_image + mean;
        row.iter().zip(&of_images).map(left)
    });
    let rest = rest.map(|x| x * x).sum::<f64>() / ((s - 1.0) * (n - 1.0));
    let mut total = seeds;
    let mut spread = seeds * seeds / (s - 1.0);
    if per_image > rest {
        total += per_image - rest;
        spread += per_image * per_image / (n - 1.0) + rest * rest / ((s - 1.0) * (n - 1.0));
    }
    let degrees = if spread > 0.0 { total * total / spread } else { s - 1.0 };
    Ok(Crossed { mean, stderr: Some((total / (s * n)).sqrt()), degrees_of_freedom: Some(degrees) })
}

#[cfg(test)]
#[path = "crossed_tests.rs"]
mod tests;
