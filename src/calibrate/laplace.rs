//! Last-layer Laplace approximation: a Gaussian posterior over the weights of the head.
//!
//! For logits z = W x + b, the Hessian of the summed cross-entropy in (W, b) is approximated by
//! Kronecker factors (Ritter et al., ICLR 2018), as in `KronLLLaplace` of laplace-torch (Daxberger et
//! al., NeurIPS 2021):
//!
//! - of W: A ⊗ B with A = (1/N) Σ x xᵀ and B = Σ (diag(p) − p pᵀ), over the N training images;
//! - of b: B.
//!
//! With prior precision δ, the variance of logit c at x is
//!
//! Σᵢⱼ (U_Aᵀ x)ᵢ² (U_B)²_cj / (aᵢ bⱼ + δ) + Σⱼ (U_B)²_cj / (bⱼ + δ),
//!
//! where a, U_A and b, U_B are the eigenvalues and eigenvectors of A and B. The predictive probabilities
//! are the softmax of z_c / √(1 + π σ_c²/8) (the probit approximation).

use crate::error::{Error, Result};
use crate::evaluate::losses;
use crate::predictions::Predictions;
use candle_core::{DType, Device, Tensor};
use nalgebra::{DMatrix, SymmetricEigen};
use std::f64::consts::PI;

/// Decimal logarithms of the prior precisions that are tried.
const GRID: std::ops::RangeInclusive<i32> = -4 * PER_DECADE..=4 * PER_DECADE;
/// Tried precisions per decade.
const PER_DECADE: i32 = 4;
/// Images whose variances are computed at a time.
const CHUNK: usize = 1024;

/// The posterior of a head.
pub struct Laplace {
    /// Eigenvalues and eigenvectors of A, (D) and (D, D).
    inputs: (Vec<f64>, Tensor),
    /// Eigenvalues and squared eigenvectors of B, (C) and (C, C).
    outputs: (Vec<f64>, Tensor),
}

impl Laplace {
    /// The posterior from the head's inputs (N, D) and logits on training images.
    ///
    /// # Errors
    /// Inputs that are not (N, D), or eigenvalues that do not converge.
    pub fn fit(features: &Tensor, logits: &Predictions) -> Result<Self> {
        let features = features.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let (n, _) = features.dims2()?;
        let a = (features.t()?.contiguous()?.matmul(&features)? / n as f64)?;
        let p = probabilities(logits)?;
        let b = (p.sum(0)?.to_vec1::<f64>()?, p.t()?.contiguous()?.matmul(&p)?);
        let classes = logits.classes();
        let outer = b.1.flatten_all()?.to_vec1::<f64>()?;
        let b = DMatrix::from_fn(classes, classes, |i, j| {
            (if i == j { b.0[i] } else { 0.0 }) - outer[i * classes + j]
        });
        let inputs = eigen(matrix(&a)?)?;
        let (values, vectors) = eigen(b)?;
        Ok(Self { inputs, outputs: (values, vectors.sqr()?) })
    }

    /// Variances of the logits, one per image and class, for inputs (N, D) of the head.
    ///
    /// # Errors
    /// Inputs that are not (N, D).
    pub fn variances(&self, features: &Tensor, prior: f64) -> Result<Vec<f64>> {
        let features = features.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let ((a, u), (b, squares)) = (&self.inputs, &self.outputs);
        let shares: Vec<f64> =
            a.iter().flat_map(|a| b.iter().map(move |b| 1.0 / (a * b + prior))).collect();
        let shares = Tensor::from_vec(shares, (a.len(), b.len()), &Device::Cpu)?;
        let squares = squares.t()?.contiguous()?;
        let of_bias: Vec<f64> = b.iter().map(|b| 1.0 / (b + prior)).collect();
        let of_bias = Tensor::from_vec(of_bias, (1, b.len()), &Device::Cpu)?.matmul(&squares)?;
        let mut out = Vec::new();
        for start in (0..features.dim(0)?).step_by(CHUNK) {
            let part = features.narrow(0, start, CHUNK.min(features.dim(0)? - start))?;
            let weights = part.contiguous()?.matmul(u)?.sqr()?.matmul(&shares)?;
            let variances = weights.matmul(&squares)?.broadcast_add(&of_bias)?;
            out.extend(variances.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok(out)
    }

    /// Logits whose softmax is the predictive distribution.
    ///
    /// # Errors
    /// Those of [`Laplace::variances`].
    pub fn predict(
        &self,
        features: &Tensor,
        logits: &Predictions,
        prior: f64,
    ) -> Result<Predictions> {
        let variances = self.variances(features, prior)?;
        let scaled = logits.values().iter().zip(variances);
        let scaled = scaled.map(|(z, v)| z / (1.0 + PI / 8.0 * v).sqrt()).collect();
        Ok(Predictions::new(scaled, logits.classes(), logits.labels())?)
    }

    /// The loss of each image at each prior precision of the grid.
    ///
    /// # Errors
    /// Those of [`Laplace::predict`].
    pub fn losses_on_grid(&self, features: &Tensor, logits: &Predictions) -> Result<Grid> {
        GRID.map(|i| {
            let prior = 10f64.powf(f64::from(i) / f64::from(PER_DECADE));
            Ok((prior, losses(&self.predict(features, logits, prior)?, 1.0)))
        })
        .collect()
    }
}

/// Prior precisions in ascending order, with the loss of each image.
pub type Grid = Vec<(f64, Vec<f64>)>;

/// Position in the grid with the lowest loss on the images at these positions.
pub fn best(grid: &Grid, images: &[usize]) -> usize {
    let sum = |at: usize| images.iter().map(|&i| grid[at].1[i]).sum::<f64>();
    (0..grid.len()).min_by(|&a, &b| sum(a).total_cmp(&sum(b))).unwrap_or(0)
}

fn probabilities(logits: &Predictions) -> Result<Tensor> {
    let classes = logits.classes();
    let mut values = Vec::with_capacity(logits.values().len());
    for row in logits.values().chunks(classes) {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let start = values.len();
        values.extend(row.iter().map(|z| (z - most).exp()));
        let sum: f64 = values[start..].iter().sum();
        values[start..].iter_mut().for_each(|p| *p /= sum);
    }
    Ok(Tensor::from_vec(values, (logits.images(), classes), &Device::Cpu)?)
}

fn matrix(of: &Tensor) -> Result<DMatrix<f64>> {
    let (rows, columns) = of.dims2()?;
    Ok(DMatrix::from_vec(rows, columns, of.flatten_all()?.to_vec1()?))
}

/// Eigenvalues, not below 0, and eigenvectors in columns.
fn eigen(matrix: DMatrix<f64>) -> Result<(Vec<f64>, Tensor)> {
    let n = matrix.nrows();
    let found = SymmetricEigen::try_new(matrix, f64::EPSILON, 100 * n + 100).ok_or_else(|| {
        Error::Missing(
            "the eigenvalues for `laplace` did not converge: leave out `laplace`, and report this \
             checkpoint"
                .into(),
        )
    })?;
    let values = found.eigenvalues.iter().map(|x| x.max(0.0)).collect();
    // nalgebra stores columns.
    let vectors = found.eigenvectors.transpose();
    Ok((values, Tensor::from_slice(vectors.as_slice(), (n, n), &Device::Cpu)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Reference {
        weight: Vec<Vec<f64>>,
        bias: Vec<f64>,
        train: Vec<Vec<f64>>,
        labels: Vec<u32>,
        test: Vec<Vec<f64>>,
        posteriors: Vec<Posterior>,
    }

    #[derive(Deserialize)]
    struct Posterior {
        prior: f64,
        variances: Vec<Vec<f64>>,
        probabilities: Vec<Vec<f64>>,
    }

    fn tensor(rows: &[Vec<f64>]) -> Tensor {
        Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &Device::Cpu).unwrap()
    }

    #[test]
    fn variances_and_probabilities_match_laplace_torch() {
        let text = include_str!("../../tests/reference/laplace.json");
        let reference: Reference = serde_json::from_str(text).unwrap();
        let logits = |of: &Tensor, labels: &[u32]| {
            let z = of.matmul(&tensor(&reference.weight).t().unwrap()).unwrap();
            let bias = Tensor::new(&reference.bias[..], &Device::Cpu).unwrap();
            let z = z.broadcast_add(&bias).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            Predictions::new(z, reference.bias.len(), labels).unwrap()
        };
        let train = tensor(&reference.train);
        let fitted = Laplace::fit(&train, &logits(&train, &reference.labels)).unwrap();
        let test = tensor(&reference.test);
        let on_test = logits(&test, &vec![0; reference.test.len()]);
        for posterior in &reference.posteriors {
            let close = |found: Vec<f64>, expected: &[Vec<f64>], tolerance: f64| {
                let expected = expected.concat();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() <= tolerance * expected.abs(), "{found}");
                }
            };
            // Both are in f64. The smallest eigenvalue of B is 0, so 1/δ is multiplied by squared
            // eigenvectors that are exact to rounding.
            close(fitted.variances(&test, posterior.prior).unwrap(), &posterior.variances, 1e-10);
            let found = fitted.predict(&test, &on_test, posterior.prior).unwrap();
            let found = probabilities(&found).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            close(found, &posterior.probabilities, 1e-10);
        }
    }

    #[test]
    fn the_best_prior_has_the_lowest_loss_on_the_given_images() {
        let grid = vec![(1.0, vec![0.1, 3.0]), (10.0, vec![2.0, 0.5])];
        assert_eq!(best(&grid, &[0]), 0);
        assert_eq!(best(&grid, &[1]), 1);
        assert_eq!(best(&grid, &[0, 1]), 1);
    }
}
