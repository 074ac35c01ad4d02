//! A = Q diag(λ) Qᵀ with a seeded random orthogonal Q.

use planish::curvature::{LinearOperator, Result};
use planish::random::{stream, unit};

/// A symmetric matrix with its eigenpairs.
#[derive(Clone)]
pub struct Dense {
    /// n rows.
    pub rows: Vec<Vec<f64>>,
    /// λ, in the given order.
    pub values: Vec<f64>,
    /// Eigenvectors, in the same order.
    pub vectors: Vec<Vec<f64>>,
    /// Preferred number of vectors per call.
    pub block: usize,
    /// Whether products are rounded to f32.
    pub coarse: bool,
}

impl Dense {
    pub fn new(values: &[f64], seed: u64) -> Self {
        let n = values.len();
        let mut rng = stream(seed, "test: orthogonal matrix");
        let mut vectors: Vec<Vec<f64>> = Vec::new();
        while vectors.len() < n {
            // A sum of twelve uniform numbers is nearly normal, so directions are nearly isotropic.
            let mut v: Vec<f64> =
                (0..n).map(|_| (0..12).map(|_| unit(&mut rng)).sum::<f64>() - 6.0).collect();
            for _ in 0..2 {
                for q in &vectors {
                    let along = dot(q, &v);
                    v.iter_mut().zip(q).for_each(|(v, q)| *v -= along * q);
                }
            }
            let length = dot(&v, &v).sqrt();
            vectors.push(v.iter().map(|v| v / length).collect());
        }
        let entry = |i: usize, j: usize| {
            values.iter().zip(&vectors).map(|(l, q)| l * q[i] * q[j]).sum::<f64>()
        };
        let rows = (0..n).map(|i| (0..n).map(|j| entry(i.min(j), i.max(j))).collect()).collect();
        Self { rows, values: values.to_vec(), vectors, block: 1, coarse: false }
    }

    /// The matrix times a power of two, which is exact.
    pub fn times(&self, factor: f64) -> Self {
        let mut scaled = self.clone();
        scaled.rows.iter_mut().flatten().for_each(|a| *a *= factor);
        scaled.values.iter_mut().for_each(|l| *l *= factor);
        scaled
    }

    pub fn trace(&self) -> f64 {
        self.values.iter().sum()
    }

    pub fn product(&self, v: &[f64]) -> Vec<f64> {
        self.rows.iter().map(|row| dot(row, v)).collect()
    }

    /// λ, descending.
    pub fn descending(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(|a, b| b.total_cmp(a));
        values
    }
}

impl LinearOperator for Dense {
    fn dimension(&self) -> usize {
        self.rows.len()
    }

    fn apply(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let coarse = |x: f64| if self.coarse { f64::from(x as f32) } else { x };
        Ok(vectors.iter().map(|v| self.product(v).into_iter().map(coarse).collect()).collect())
    }

    fn block(&self) -> usize {
        self.block
    }

    fn precision(&self) -> f64 {
        if self.coarse { f64::from(f32::EPSILON) } else { f64::EPSILON }
    }
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A spectrum like that of a Hessian: many small eigenvalues on both sides of 0, a few large ones.
pub fn hessian_like(n: usize) -> Vec<f64> {
    let mut values: Vec<f64> = (0..n).map(|i| 0.3 * ((i * i) as f64 * 0.37).sin()).collect();
    let large = [9.0, 6.5, 4.0, 2.5, -1.5, -1.0];
    values.iter_mut().zip(large).for_each(|(value, large)| *value = large);
    values
}
