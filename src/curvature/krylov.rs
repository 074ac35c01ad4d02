//! Krylov spaces: a basis that grows with A's products, and the projection of A on it.

use super::basis::Basis;
use super::vectors::norm;
use super::{Error, Result};
use nalgebra::{DMatrix, SymmetricEigen};

/// The part of a product outside the basis counts as rounding if its length is at most this
/// multiple of (precision × length of the longest product).
pub(super) const ROUNDING: f64 = 8.0;

/// Block Lanczos with full reorthogonalisation, one step at a time: Golub and Underwood, "The block
/// Lanczos method for computing eigenvalues", 1977.
pub(super) struct Krylov {
    /// Q.
    pub(super) basis: Basis,
    /// QᵀAQ over the vectors of Q whose products are known.
    pub(super) projected: Projected,
    /// The newest vectors of Q, whose products are not yet known.
    block: Vec<Vec<f64>>,
    /// Per vector of `block`: its coefficients in the last block's products.
    shares: Vec<Vec<f64>>,
    /// Length of the longest product.
    longest: f64,
    precision: f64,
}

impl Krylov {
    pub(super) fn new(precision: f64) -> Self {
        Self {
            basis: Basis::new(precision),
            projected: Projected::default(),
            block: Vec::new(),
            shares: Vec::new(),
            longest: 0.0,
            precision,
        }
    }

    /// Continues from these vectors, which are already in the basis.
    pub(super) fn start(&mut self, block: Vec<Vec<f64>>) {
        self.block = block;
        self.shares.clear();
    }

    /// Vectors whose products come next. Empty if the space is invariant: A maps it into itself up
    /// to rounding.
    pub(super) fn block(&self) -> &[Vec<f64>] {
        &self.block
    }

    /// Takes the products of the block.
    ///
    /// A product that adds nothing beyond rounding shrinks the block by one vector.
    pub(super) fn absorb(&mut self, mut products: Vec<Vec<f64>>) {
        for product in &mut products {
            self.longest = self.longest.max(norm(product));
            self.projected.push(self.basis.project_out(0, product));
        }
        let floor = ROUNDING * self.precision * self.longest;
        let (known, count) = (self.basis.len(), products.len());
        self.block.clear();
        self.shares.clear();
        for (column, mut product) in products.into_iter().enumerate() {
            let found = self.basis.project_out(known, &mut product);
            let added = self.basis.append(product, floor);
            for (shares, share) in self.shares.iter_mut().zip(found) {
                if let Some(entry) = shares.get_mut(column) {
                    *entry = share;
                }
            }
            if let Some((vector, length)) = added {
                self.block.push(vector);
                self.shares
                    .push((0..count).map(|c| if c == column { length } else { 0.0 }).collect());
            }
        }
    }

    /// ‖A y − θ y‖ for the Ritz vector y = Q s, computed from s: the part of the last products
    /// outside the basis.
    pub(super) fn residual(&self, s: &[f64]) -> f64 {
        let count = self.shares.first().map_or(0, Vec::len);
        let last = s.get(s.len().saturating_sub(count)..).unwrap_or_default();
        let along =
            |shares: &Vec<f64>| -> f64 { shares.iter().zip(last).map(|(b, s)| b * s).sum() };
        self.shares.iter().map(along).map(|x| x * x).sum::<f64>().sqrt()
    }
}

/// QᵀAQ, built column by column.
///
/// Stores all of Qᵀ(A qⱼ), not only its band. That is the Rayleigh-Ritz matrix of any orthonormal
/// Q, including one with random vectors inserted.
#[derive(Default)]
pub(super) struct Projected {
    columns: Vec<Vec<f64>>,
}

impl Projected {
    /// Appends Qᵀ A qⱼ for the next j, at least up to row j. The rows below follow by symmetry.
    pub(super) fn push(&mut self, column: Vec<f64>) {
        self.columns.push(column);
    }

    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Eigenvalues in ascending order, each with its unit eigenvector.
    ///
    /// # Errors
    /// [`Error::Projected`].
    pub(super) fn eigen(&self) -> Result<Vec<(f64, Vec<f64>)>> {
        let size = self.len();
        let entry = |i: usize, j: usize| {
            let (row, column) = if i <= j { (i, j) } else { (j, i) };
            self.columns.get(column).and_then(|c| c.get(row)).copied().unwrap_or_default()
        };
        let matrix = DMatrix::from_fn(size, size, entry);
        if size == 0 || matrix.iter().any(|x| !x.is_finite()) {
            return Err(Error::Projected { size });
        }
        let eigen = SymmetricEigen::try_new(matrix, f64::EPSILON, 100 * size + 100)
            .ok_or(Error::Projected { size })?;
        let vectors = eigen.eigenvectors.column_iter().map(|c| c.iter().copied().collect());
        let mut pairs: Vec<(f64, Vec<f64>)> =
            eigen.eigenvalues.iter().copied().zip(vectors).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(pairs)
    }
}
