//! Eigenpairs at both ends of the spectrum: block Lanczos with full reorthogonalisation, restarted
//! until no eigenvalue is missing.
//!
//! C. Lanczos, "An iteration method for the solution of the eigenvalue problem", J. Res. NBS 1950;
//! block form: G. Golub and R. Underwood, "The block Lanczos method for computing eigenvalues",
//! 1977. Q (n, m) is an orthonormal basis of the space spanned by a random block and its products
//! with A, A², …. An eigenpair (θ, s) of QᵀAQ gives the Ritz pair (θ, y = Q s) of A.
//!
//! A Krylov space of one vector has one vector of each eigenspace, and in few steps it can miss an
//! eigenvector on which its start is small. A small residual says nothing about either. So after
//! the pairs have converged, another run starts from a random vector orthogonal to them. If it finds
//! a missing pair, the pairs are updated and the next run starts. Otherwise it ends when it bounds
//! the eigenvalues outside the pairs closely enough (see `bounds`).

use super::basis::stored_bytes;
use super::bounds::coupled;
use super::error::require;
use super::krylov::{Krylov, ROUNDING};
use super::vectors::{axpy, dimension, divide, dot, norm, precision, products};
use super::{LinearOperator, Result};
use crate::random::stream;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Which eigenpairs, with accuracy and cost limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LanczosSettings {
    /// Number of eigenvalues at the upper end of the spectrum.
    pub largest: usize,
    /// Number of eigenvalues at the lower end.
    pub smallest: usize,
    /// Vectors per block. Repeated eigenvalues are found with any width. A larger width needs fewer
    /// runs for them, but more products for the others.
    pub width: usize,
    /// Largest relative residual and largest [`missing`](Eigenpair::missing) of a converged pair.
    pub tolerance: f64,
    /// Maximum number of basis vectors of a run. If n is not larger, all n eigenvalues are computed
    /// from n products.
    pub max_basis: usize,
    /// Maximum number of products of all runs. The last residual measurements, one per pair, are not
    /// counted.
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
            max_basis: 100,
            max_products: 200,
            vectors: false,
            seed: 0,
        }
    }
}

/// A Ritz pair: an approximate eigenvalue with its unit vector y.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Eigenpair {
    /// θ = yᵀAy, the Rayleigh quotient. The i-th largest θ is at most the i-th largest eigenvalue,
    /// the i-th smallest at least the i-th smallest, up to rounding.
    pub value: f64,
    /// ‖A y − θ y‖ / θ_max, measured with a separate product. θ_max is the largest |θ| of the
    /// basis, at most ‖A‖. A has an eigenvalue within residual · θ_max of θ. 0 if A y = 0; infinite
    /// if only θ_max is 0.
    pub residual: f64,
    /// The eigenvalue of the same rank differs from θ by at most missing · θ_max. For each run and
    /// end of the spectrum, this is wrong with probability 1e-4 or less. 0 if all n eigenvalues are
    /// known.
    pub missing: f64,
    /// Whether `residual` and `missing` are within the tolerance. For `missing`, the tolerance is at
    /// least eight times A's precision.
    pub converged: bool,
    /// y, n numbers, with arbitrary sign. `None` if not requested.
    #[serde(skip)]
    pub vector: Option<Vec<f64>>,
}

/// Result of [`eigenpairs`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Eigenpairs {
    /// Largest eigenvalues, descending. Fewer than requested if n or the basis is smaller.
    pub largest: Vec<Eigenpair>,
    /// Smallest eigenvalues (most negative first), ascending.
    pub smallest: Vec<Eigenpair>,
    /// All n eigenvalues, ascending, if a basis has n vectors.
    pub all: Option<Vec<f64>>,
    /// Whether all requested pairs, or all n, were found and converged.
    pub converged: bool,
    /// Vectors of the largest basis, of those whose products are known.
    pub basis: usize,
    /// Number of runs, each from a random block.
    pub starts: usize,
    /// Total number of products with A.
    pub products: usize,
}

/// Upper bound, in bytes, of the memory [`eigenpairs`] uses besides the operator, for dimension n,
/// products of this precision and blocks of `block` vectors: the basis (f32 or f64, see
/// `precision`), work vectors, and the eigenvectors.
pub fn bytes(settings: &LanczosSettings, n: usize, precision: f64, block: usize) -> u64 {
    let n = n as u64;
    let basis = (settings.max_basis as u64).saturating_add(settings.width as u64).min(n);
    let pairs = (settings.largest as u64).saturating_add(settings.smallest as u64).min(basis);
    let steps = (settings.width as u64).saturating_mul(3).saturating_add(2);
    let work = steps.max(block as u64);
    let each = basis.saturating_mul(stored_bytes(precision));
    each.saturating_add(work.saturating_add(pairs).saturating_mul(8)).saturating_mul(n)
}

/// Residuals of pairs of later runs, relative to those of the first.
const RESTARTED: f64 = 0.25;

/// Eigenpairs at both ends of the spectrum of A.
///
/// In the first run, the basis grows until every requested pair has an estimated residual within
/// the tolerance or within A's precision. Nothing finer can be resolved: with a smaller tolerance,
/// pairs are as accurate as rounding allows, and `converged` reports the measured residual.
///
/// Further runs look for missing pairs in the complement of those known. They find repeated
/// eigenvalues, and pairs on which the first start was small. If a run finds nothing, the pairs of
/// the runs before it are returned unchanged.
///
/// # Errors
/// [`Error::Setting`](super::Error) for a width of 0, no eigenvalue requested, fewer products or
/// basis vectors than a block, or a tolerance that is not finite and above 0;
/// [`Error::ZeroDimension`](super::Error); errors of the products.
pub fn eigenpairs(operator: &dyn LinearOperator, settings: &LanczosSettings) -> Result<Eigenpairs> {
    let n = dimension(operator)?;
    let wanted = settings.largest.saturating_add(settings.smallest).min(n);
    require(wanted > 0, "largest + smallest", "1 or more", wanted)?;
    require(settings.width > 0, "width", "1 or more", settings.width)?;
    let tolerance = settings.tolerance;
    require(tolerance > 0.0 && tolerance.is_finite(), "tolerance", "above 0", tolerance)?;
    let width = settings.width.min(n);
    let (basis, most) = (settings.max_basis, settings.max_products);
    require(basis >= width, "max_basis", "the width or more", basis)?;
    require(most >= width, "max_products", "the width or more", most)?;

    let precision = precision(operator);
    let mut search = EigenvalueSearch {
        operator,
        settings,
        n,
        wanted,
        // A basis of n random vectors makes the projection exact.
        width: if n <= basis.min(most) { n } else { width },
        precision,
        slack: tolerance.max(ROUNDING * precision),
        rng: stream(settings.seed, "curvature: Lanczos"),
        known: Vec::new(),
        top: 0.0,
        upper: vec![f64::INFINITY; settings.largest.min(n)],
        lower: vec![f64::NEG_INFINITY; settings.smallest.min(n)],
        all: None,
        basis: 0,
        starts: 0,
        products: 0,
        exhausted: false,
    };
    while !search.exhausted && !search.verified() {
        search.run()?;
    }
    Ok(search.result())
}

/// A Ritz pair with ‖A y − θ y‖.
struct Ritz {
    value: f64,
    residual: f64,
    vector: Vec<f64>,
}

/// Eigenvalues of a projected matrix, ascending, with their eigenvectors.
type Projection = [(f64, Vec<f64>)];

/// Runs so far.
struct EigenvalueSearch<'a> {
    operator: &'a dyn LinearOperator,
    settings: &'a LanczosSettings,
    n: usize,
    /// Number of requested pairs.
    wanted: usize,
    width: usize,
    precision: f64,
    /// Tolerance of [`Pair::missing`].
    slack: f64,
    rng: ChaCha8Rng,
    /// The best pairs so far, ascending: the requested ones, or all if fewer are known.
    known: Vec<Ritz>,
    /// Largest |θ| of the basis of `known`.
    top: f64,
    /// Probable upper bounds of the largest eigenvalues, descending.
    upper: Vec<f64>,
    /// Probable lower bounds of the smallest, ascending.
    lower: Vec<f64>,
    all: Option<Vec<f64>>,
    basis: usize,
    starts: usize,
    products: usize,
    /// Whether no product is left.
    exhausted: bool,
}

impl EigenvalueSearch<'_> {
    /// One Lanczos run in the complement of the known pairs.
    fn run(&mut self) -> Result<()> {
        let LanczosSettings { max_basis, max_products, tolerance, .. } = *self.settings;
        let first = self.known.is_empty();
        let mut space = if first {
            Krylov::new(self.precision)
        } else {
            let pairs = self.known.iter().map(|p| (p.value, p.vector.as_slice()));
            Krylov::with_pairs(self.precision, pairs)
        };
        let before = space.basis.len();
        let left = self.n.min(max_basis).saturating_sub(before);
        let room = self.width.min(left).min(max_products.saturating_sub(self.products));
        let block: Vec<Vec<f64>> =
            (0..room).filter_map(|_| space.basis.append_random(self.n, &mut self.rng)).collect();
        if block.is_empty() {
            self.exhausted = true;
            return Ok(());
        }
        space.start(block);
        self.starts += 1;
        // Pairs of a later run enter the next bounds with their residuals.
        let enough = tolerance.max(self.precision) * if first { 1.0 } else { RESTARTED };
        let mut next_look = if first { self.wanted } else { before + 1 };
        let pairs = loop {
            let products = products(self.operator, space.block())?;
            self.products += products.len();
            space.absorb(products);
            let size = space.projected.len();
            self.basis = self.basis.max(size);
            let (next, invariant) = (space.block().len(), space.block().is_empty());
            let limited = |used: usize, most: usize| used + next.max(1) > most;
            self.exhausted = limited(self.products, max_products);
            let last = self.exhausted || invariant || limited(size, max_basis);
            if !(last || size >= self.n || size >= next_look) {
                continue;
            }
            next_look = size + 1 + (size - before) / 8;
            let pairs = space.projected.eigen()?;
            if size >= self.n {
                self.settle(&pairs);
                break pairs;
            }
            let converged = size >= self.wanted && self.converged(&space, &pairs, enough);
            if first {
                if last || converged {
                    self.bound(&space, &pairs)?;
                    break pairs;
                }
                continue;
            }
            let outside = space.projected.eigen_from(before)?;
            let gap = self.bound(&space, &outside)?;
            if self.verified() {
                return Ok(());
            }
            let useful = self.improved(&pairs) || gap <= self.slack / 4.0 * largest_size(&pairs);
            if last || (useful && converged) {
                break pairs;
            }
        };
        if first || !self.exhausted || self.improved(&pairs) {
            self.measure(&space, &pairs)?;
        }
        Ok(())
    }

    /// Whether the requested pairs have estimated residuals within `enough`.
    fn converged(&self, space: &Krylov, pairs: &Projection, enough: f64) -> bool {
        let run = self.known.len()..space.projected.len();
        // Per known pair: the length of the part of A y − θ y outside the basis.
        let outside = self.known.iter().enumerate().map(|(i, pair)| {
            let within: f64 = run.clone().map(|j| space.projected.entry(i, j).powi(2)).sum();
            (pair.residual * pair.residual - within).max(0.0).sqrt()
        });
        let outside: Vec<f64> = outside.collect();
        let residual = |s: &[f64]| -> f64 {
            let known: f64 = s.iter().zip(&outside).map(|(s, r)| s.abs() * r).sum();
            space.residual(s) + known
        };
        let most = enough * largest_size(pairs);
        let mut chosen = self.chosen(pairs.len()).into_iter().filter_map(|i| pairs.get(i));
        chosen.all(|p| residual(&p.1) <= most)
    }

    /// Updates the bounds of the requested eigenvalues from a run with these Ritz values, in the
    /// complement of the known pairs. Returns how far the bound of the eigenvalues there is from
    /// the outermost Ritz value, at the end where this is more.
    fn bound(&mut self, space: &Krylov, ritz: &Projection) -> Result<f64> {
        let (Some(low), Some(high)) = (ritz.first(), ritz.last()) else {
            return Ok(f64::INFINITY);
        };
        let (run, n, mut gap) = (space.run(), self.n - self.known.len(), 0.0_f64);
        let inside: Vec<(f64, f64)> = self.known.iter().map(|p| (p.value, p.residual)).collect();
        if !self.upper.is_empty() {
            let outside = run.upper(n, high.0);
            gap = gap.max(outside - high.0);
            // Courant and Fischer: eigenvalue i + 1 is at most the largest one in the complement of
            // the i largest pairs.
            for (i, upper) in self.upper.iter_mut().enumerate() {
                let rest = inside.get(..inside.len().saturating_sub(i)).unwrap_or_default();
                *upper = upper.min(coupled(rest, outside));
            }
        }
        if !self.lower.is_empty() {
            let outside = run.lower(n, low.0);
            gap = gap.max(low.0 - outside);
            let negated: Vec<(f64, f64)> = inside.iter().map(|(value, r)| (-value, *r)).collect();
            for (i, lower) in self.lower.iter_mut().enumerate() {
                let rest = negated.get(i..).unwrap_or_default();
                *lower = lower.max(-coupled(rest, -outside));
            }
        }
        Ok(gap)
    }

    /// All eigenvalues are known: the bounds are the eigenvalues.
    fn settle(&mut self, pairs: &Projection) {
        self.upper.iter_mut().zip(pairs.iter().rev()).for_each(|(upper, p)| *upper = p.0);
        self.lower.iter_mut().zip(pairs).for_each(|(lower, p)| *lower = p.0);
        self.all = Some(pairs.iter().map(|p| p.0).collect());
    }

    /// Whether a requested pair was missing, or is now further out by more than half of what
    /// [`Pair::missing`] may be.
    fn improved(&self, pairs: &Projection) -> bool {
        let least = self.slack / 2.0 * largest_size(pairs);
        let mut both = self.chosen(pairs.len()).into_iter().zip(&self.known);
        self.known.len() < self.wanted
            || both.any(|(i, k)| pairs.get(i).is_some_and(|p| (p.0 - k.value).abs() > least))
    }

    /// How far each requested eigenvalue may be from the known one: at the upper end, descending,
    /// and at the lower end, ascending.
    fn missing(&self) -> [Vec<f64>; 2] {
        let upper = self.upper.iter().zip(self.known.iter().rev());
        let lower = self.lower.iter().zip(&self.known);
        [
            upper.map(|(bound, known)| (bound - known.value).max(0.0)).collect(),
            lower.map(|(bound, known)| (known.value - bound).max(0.0)).collect(),
        ]
    }

    /// Whether no requested eigenvalue is missing.
    fn verified(&self) -> bool {
        let most = self.slack * self.top;
        self.known.len() >= self.wanted && self.missing().iter().flatten().all(|x| *x <= most)
    }

    /// Indices of the requested values among `count` ascending values.
    fn chosen(&self, count: usize) -> Vec<usize> {
        let low = self.settings.smallest.min(count);
        let high = count.saturating_sub(self.settings.largest).max(low);
        (0..low).chain(high..count).collect()
    }

    /// Replaces the known pairs by the requested ones of `pairs`, with measured residuals.
    fn measure(&mut self, space: &Krylov, pairs: &Projection) -> Result<()> {
        // Frees the vectors first.
        self.known.clear();
        self.top = largest_size(pairs);
        let chosen = self.chosen(pairs.len());
        for some in chosen.chunks(self.operator.block().max(1)) {
            let mut vectors = Vec::with_capacity(some.len());
            for (_, s) in some.iter().filter_map(|&i| pairs.get(i)) {
                let mut y = space.basis.combine(self.n, s);
                let length = norm(&y);
                divide(&mut y, length);
                vectors.push(y);
            }
            let products = products(self.operator, &vectors)?;
            for (vector, mut product) in vectors.into_iter().zip(products) {
                let value = dot(&vector, &product);
                axpy(&mut product, -value, &vector);
                self.known.push(Ritz { value, residual: norm(&product), vector });
            }
        }
        self.products += chosen.len();
        self.known.sort_by(|a, b| a.value.total_cmp(&b.value));
        Ok(())
    }

    fn result(self) -> Eigenpairs {
        let ratio = |x: f64| if x == 0.0 { 0.0 } else { x / self.top };
        let [upper, lower] = self.missing();
        let pair = |known: &Ritz, missing: f64| {
            let (residual, missing) = (ratio(known.residual), ratio(missing));
            Eigenpair {
                value: known.value,
                residual,
                missing,
                converged: residual <= self.settings.tolerance && missing <= self.slack,
                vector: self.settings.vectors.then(|| known.vector.clone()),
            }
        };
        let largest: Vec<Eigenpair> =
            self.known.iter().rev().zip(upper).map(|(known, m)| pair(known, m)).collect();
        let smallest: Vec<Eigenpair> =
            self.known.iter().zip(lower).map(|(k, m)| pair(k, m)).collect();
        let converged = largest.len() == self.upper.len()
            && smallest.len() == self.lower.len()
            && largest.iter().chain(&smallest).all(|p| p.converged);
        let Self { all, basis, starts, products, .. } = self;
        Eigenpairs { largest, smallest, all, converged, basis, starts, products }
    }
}

fn largest_size(pairs: &Projection) -> f64 {
    pairs.iter().map(|p| p.0.abs()).fold(0.0, f64::max)
}
