//! Eigenpairs at both ends of the spectrum: block Lanczos with full reorthogonalisation.
//!
//! C. Lanczos, "An iteration method for the solution of the eigenvalue problem", J. Res. NBS 1950;
//! block form: G. Golub and R. Underwood, "The block Lanczos method for computing eigenvalues",
//! 1977. Q (n, m) is an orthonormal basis of the space spanned by a random block and its products
//! with A, A², …. An eigenpair (θ, s) of QᵀAQ gives the Ritz pair (θ, y = Q s) of A.

use super::basis::stored_bytes;
use super::error::require;
use super::krylov::Krylov;
use super::vectors::{axpy, dimension, divide, dot, norm, precision, products};
use super::{LinearOperator, Result};
use crate::random::stream;
use serde::Serialize;
use std::collections::BTreeMap;

/// Which eigenpairs, with accuracy and cost limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LanczosSettings {
    /// Number of eigenvalues at the upper end of the spectrum.
    pub largest: usize,
    /// Number of eigenvalues at the lower end.
    pub smallest: usize,
    /// Vectors per block. An eigenvalue of multiplicity up to `width` is found with its full
    /// multiplicity; of a higher multiplicity, copies can be missing. An unnecessarily large width
    /// costs products.
    pub width: usize,
    /// Largest relative residual of a converged pair; see [`Pair::residual`].
    pub tolerance: f64,
    /// Maximum number of products, and therefore of basis vectors. The final residual measurements,
    /// one per pair, are not counted.
    pub max_products: usize,
    /// Whether to return the eigenvectors.
    pub vectors: bool,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for LanczosSettings {
    fn default() -> Self {
        Self {
            largest: 1,
            smallest: 1,
            width: 1,
            tolerance: 1e-3,
            max_products: 100,
            vectors: false,
            seed: 0,
        }
    }
}

/// A Ritz pair: an approximate eigenvalue with its unit vector y.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// θ = yᵀAy, the Rayleigh quotient.
    pub value: f64,
    /// ‖A y − θ y‖ / θ_max, measured with a separate product. θ_max is the largest |θ| of the
    /// basis, at most ‖A‖. A has an eigenvalue within residual · θ_max of θ. 0 if A y = 0; infinite
    /// if only θ_max is 0.
    pub residual: f64,
    /// Whether the residual is within the tolerance.
    pub converged: bool,
    /// y, n numbers, with arbitrary sign. `None` if not requested.
    #[serde(skip)]
    pub vector: Option<Vec<f64>>,
}

/// Result of [`eigenpairs`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Eigenpairs {
    /// Largest eigenvalues, descending. Fewer than requested if n or the basis is smaller.
    pub largest: Vec<Pair>,
    /// Smallest eigenvalues (most negative first), ascending.
    pub smallest: Vec<Pair>,
    /// Whether all requested pairs, or all n, were found and converged.
    pub converged: bool,
    /// Basis vectors whose products are known.
    pub basis: usize,
    /// Number of random start blocks. More than 1 if an invariant subspace was found.
    pub starts: usize,
    /// Total number of products with A.
    pub products: usize,
}

/// Upper bound, in bytes, of the memory [`eigenpairs`] uses besides the operator, for dimension n,
/// products of this precision and blocks of `block` vectors: the basis (f32 or f64, see
/// `precision`), work vectors, and the returned vectors.
pub fn bytes(settings: &LanczosSettings, n: usize, precision: f64, block: usize) -> u64 {
    let n = n as u64;
    let basis = (settings.max_products as u64).saturating_add(settings.width as u64).min(n);
    let pairs = (settings.largest as u64).saturating_add(settings.smallest as u64);
    let kept = if settings.vectors { pairs } else { 0 };
    let steps = (settings.width as u64).saturating_mul(3).saturating_add(2);
    let work = steps.max((block as u64).saturating_mul(2));
    let each = basis.saturating_mul(stored_bytes(precision));
    each.saturating_add(work.saturating_add(kept).saturating_mul(8)).saturating_mul(n)
}

/// Eigenpairs at both ends of the spectrum of A.
///
/// The basis grows until every requested pair has an estimated residual within the tolerance or
/// within A's precision. Nothing finer can be resolved: with a smaller tolerance, pairs are as
/// accurate as rounding allows, and `converged` reports the measured residual.
///
/// If the space becomes invariant before it spans everything, a new random block is added, until
/// another block no longer changes the requested eigenvalues. So a matrix with few distinct
/// eigenvalues, or of low rank, is solved with all multiplicities.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a width of 0, no eigenvalue requested, fewer products than
/// a block, or a tolerance that is not finite and above 0; [`Error::ZeroDimension`](super::Error);
/// errors of the products.
pub fn eigenpairs(operator: &dyn LinearOperator, settings: &LanczosSettings) -> Result<Eigenpairs> {
    let n = dimension(operator)?;
    let wanted = settings.largest.saturating_add(settings.smallest).min(n);
    require(wanted > 0, "largest + smallest", "1 or more", wanted)?;
    require(settings.width > 0, "width", "1 or more", settings.width)?;
    let tolerance = settings.tolerance;
    require(tolerance > 0.0 && tolerance.is_finite(), "tolerance", "above 0", tolerance)?;
    let width = settings.width.min(n);
    let fits = settings.max_products >= width;
    require(fits, "max_products", "the width or more", settings.max_products)?;

    let precision = precision(operator);
    let enough = tolerance.max(precision);
    let mut rng = stream(settings.seed, "curvature: Lanczos");
    let mut space = Krylov::new(precision);
    let (mut starts, mut next_look) = (0, wanted);
    let mut settled: Option<Vec<f64>> = None;
    let pairs = loop {
        if space.block().is_empty() {
            let left = n.min(settings.max_products).saturating_sub(space.basis.len());
            let room = width.min(left);
            let block = (0..room).filter_map(|_| space.basis.append_random(n, &mut rng)).collect();
            space.start(block);
            starts += 1;
        }
        let stuck = space.block().is_empty();
        let products = products(operator, space.block())?;
        space.absorb(products);
        let known = space.projected.len();
        let full =
            stuck || known >= n || known + space.block().len().max(1) > settings.max_products;
        let invariant = space.block().is_empty();
        if !(full || invariant || known >= next_look) {
            continue;
        }
        next_look = known + 1 + known / 8;
        let pairs = space.projected.eigen()?;
        if full {
            break pairs;
        }
        let top = largest_size(&pairs);
        let chosen = chosen(pairs.len(), settings);
        if invariant {
            let values: Vec<f64> =
                chosen.iter().filter_map(|&i| pairs.get(i)).map(|p| p.0).collect();
            if let Some(before) = &settled
                && values.len() == wanted
                && before.len() == wanted
                && before.iter().zip(&values).all(|(a, b)| (a - b).abs() <= SETTLED * enough * top)
            {
                break pairs;
            }
            settled = Some(values);
        } else if starts == 1 && known >= wanted {
            // After a restart, the residuals of the old pairs say nothing about the space outside.
            let left = |i: &usize| pairs.get(*i).map_or(0.0, |p| space.residual(&p.1));
            if chosen.iter().all(|i| left(i) <= enough * top) {
                break pairs;
            }
        }
    };
    measure(operator, settings, &space, pairs, starts)
}

/// Eigenvalues of two restarts are equal if they differ by at most this multiple of the required
/// accuracy.
const SETTLED: f64 = 16.0;

fn largest_size(pairs: &[(f64, Vec<f64>)]) -> f64 {
    pairs.iter().map(|p| p.0.abs()).fold(0.0, f64::max)
}

/// Indices of the requested values among `count` ascending values.
fn chosen(count: usize, settings: &LanczosSettings) -> Vec<usize> {
    let low = settings.smallest.min(count);
    let high = count.saturating_sub(settings.largest).max(low);
    (0..low).chain(high..count).collect()
}

/// The requested pairs with measured residuals.
fn measure(
    operator: &dyn LinearOperator,
    settings: &LanczosSettings,
    space: &Krylov,
    pairs: Vec<(f64, Vec<f64>)>,
    starts: usize,
) -> Result<Eigenpairs> {
    let (n, count) = (operator.dimension(), pairs.len());
    let top = largest_size(&pairs);
    let chosen = chosen(count, settings);
    let mut found = BTreeMap::new();
    for some in chosen.chunks(operator.block().max(1)) {
        let mut vectors = Vec::with_capacity(some.len());
        for (_, s) in some.iter().filter_map(|&i| pairs.get(i)) {
            let mut y = space.basis.combine(n, s);
            let length = norm(&y);
            divide(&mut y, length);
            vectors.push(y);
        }
        for ((&i, y), mut product) in some.iter().zip(&vectors).zip(products(operator, &vectors)?) {
            let value = dot(y, &product);
            axpy(&mut product, -value, y);
            let left = norm(&product);
            let residual = if left == 0.0 { 0.0 } else { left / top };
            let converged = residual <= settings.tolerance;
            let vector = settings.vectors.then(|| y.clone());
            found.insert(i, Pair { value, residual, converged, vector });
        }
    }
    // Select by index: if n is small, both ends share pairs.
    let low = settings.smallest.min(count);
    let high = count.saturating_sub(settings.largest);
    let mut smallest: Vec<Pair> = found.range(..low).map(|(_, p)| p.clone()).collect();
    let mut largest: Vec<Pair> = found.range(high..).map(|(_, p)| p.clone()).collect();
    smallest.sort_by(|a, b| a.value.total_cmp(&b.value));
    largest.sort_by(|a, b| b.value.total_cmp(&a.value));
    let converged = largest.len() == settings.largest.min(n)
        && smallest.len() == settings.smallest.min(n)
        && found.values().all(|p| p.converged);
    let basis = space.projected.len();
    let products = basis + chosen.len();
    Ok(Eigenpairs { largest, smallest, converged, basis, starts, products })
}
