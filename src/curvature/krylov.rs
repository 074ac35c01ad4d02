//! Krylov spaces: a basis that grows with A's products, and the projection of A on it.

use super::basis::Basis;
use super::bounds::LanczosRun;
use super::vectors::{axpy, divide, dot, norm};
use super::{Error, Result};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

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
    /// Parts of products up to this multiple of `longest` count as rounding.
    rounding: f64,
    /// Index in Q of the first vector of the start.
    first: usize,
    /// Blocks whose products are known, from the start on.
    steps: usize,
}

impl Krylov {
    pub(super) fn new(precision: f64) -> Self {
        Self {
            basis: Basis::new(precision),
            projected: Projected::default(),
            block: Vec::new(),
            shares: Vec::new(),
            longest: 0.0,
            rounding: ROUNDING * precision,
            first: 0,
            steps: 0,
        }
    }

    /// A space that contains these Ritz pairs of A: values and orthonormal vectors.
    ///
    /// In their complement, A may be small, or almost a multiple of the identity. Then products are
    /// hardly more than rounding, but a component along an eigenvector still grows from vector to
    /// vector. So only zeros count as rounding.
    pub(super) fn with_pairs<'a>(
        precision: f64,
        pairs: impl Iterator<Item = (f64, &'a [f64])>,
    ) -> Self {
        let mut space = Self { rounding: 0.0, ..Self::new(precision) };
        for (value, vector) in pairs {
            if space.basis.append(vector.to_vec(), 0.0).is_some() {
                let mut column = vec![0.0; space.basis.len()];
                if let Some(last) = column.last_mut() {
                    *last = value;
                }
                space.projected.push(column);
            }
        }
        space
    }

    /// Starts from these vectors, which are already in the basis.
    pub(super) fn start(&mut self, block: Vec<Vec<f64>>) {
        self.first = self.basis.len() - block.len();
        self.steps = 0;
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
        let floor = self.rounding * self.longest;
        self.steps += 1;
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

    /// Lanczos with the first vector of the start, on the complement of the vectors before the
    /// start, where A acts as PAP with a projection P.
    ///
    /// That vector's Krylov space lies in the space of the block, so the run follows from the
    /// projected matrix, without products.
    pub(super) fn run(&self) -> LanczosRun {
        let known = self.projected.len();
        let size = known - self.first;
        let last = known - self.shares.first().map_or(0, Vec::len);
        let full =
            DMatrix::from_fn(size + self.shares.len(), size, |i, j| match i.checked_sub(size) {
                None => self.projected.entry(self.first + i, self.first + j),
                Some(row) => {
                    let column = (self.first + j).checked_sub(last);
                    let share = column.and_then(|c| self.shares.get(row)?.get(c));
                    share.copied().unwrap_or_default()
                }
            });
        let floor = self.rounding * self.longest;
        let mut run = LanczosRun::default();
        let mut vectors: Vec<Vec<f64>> = Vec::new();
        let mut next = vec![0.0; full.nrows()];
        next.iter_mut().take(1).for_each(|x| *x = 1.0);
        for _ in 0..self.steps {
            let at = DVector::from_iterator(size, next.iter().take(size).copied());
            let mut product: Vec<f64> = (&full * at).iter().copied().collect();
            run.alphas.push(dot(&next, &product));
            vectors.push(next);
            for _ in 0..2 {
                for v in &vectors {
                    let along = dot(v, &product);
                    axpy(&mut product, -along, v);
                }
            }
            let beta = norm(&product);
            run.betas.push(beta.max(floor));
            if beta <= floor {
                break;
            }
            divide(&mut product, beta);
            next = product;
        }
        run
    }

    /// For the Ritz vector y = Q s: the length of the part of the last products outside the basis in
    /// A y. This is ‖A y − θ y‖ if no vectors were kept before the start.
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

    /// qᵢᵀ A qⱼ.
    pub(super) fn entry(&self, i: usize, j: usize) -> f64 {
        let (row, column) = if i <= j { (i, j) } else { (j, i) };
        self.columns.get(column).and_then(|c| c.get(row)).copied().unwrap_or_default()
    }

    /// Eigenvalues in ascending order, each with its unit eigenvector.
    ///
    /// # Errors
    /// [`Error::Projected`].
    pub(super) fn eigen(&self) -> Result<Vec<(f64, Vec<f64>)>> {
        self.eigen_from(0)
    }

    /// The same for the part of the matrix from row and column `first` on.
    ///
    /// # Errors
    /// [`Error::Projected`].
    pub(super) fn eigen_from(&self, first: usize) -> Result<Vec<(f64, Vec<f64>)>> {
        let size = self.len().saturating_sub(first);
        let matrix = DMatrix::from_fn(size, size, |i, j| self.entry(first + i, first + j));
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
