//! Long vectors: sums in a fixed order, random vectors, checked products.

use super::{Error, LinearOperator, Result};
use crate::random::unit;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Block length per thread. Fixed, so that sums do not depend on the number of threads; small, so
/// that a block stays in a core's cache while the blocks of many other vectors are read.
pub(super) const BLOCK: usize = 1 << 14;

/// Independent partial sums within a block; they share a vector register.
const LANES: usize = 8;

/// Storage type of vectors: f32 or f64.
pub(super) trait StoredFloat: Copy + Send + Sync {
    fn narrow(x: f64) -> Self;
    fn wide(self) -> f64;
}

impl StoredFloat for f32 {
    fn narrow(x: f64) -> Self {
        x as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl StoredFloat for f64 {
    fn narrow(x: f64) -> Self {
        x
    }
    fn wide(self) -> f64 {
        self
    }
}

/// Σ aᵢ bᵢ over one block.
pub(super) fn block_dot<E: StoredFloat>(a: &[E], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a.wide() * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a.wide() * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Σ aᵢ bᵢ. Blocks run in parallel and are added in order.
pub(super) fn dot<E: StoredFloat>(a: &[E], b: &[f64]) -> f64 {
    if a.len() <= BLOCK {
        return block_dot(a, b);
    }
    let blocks = a.par_chunks(BLOCK).zip(b.par_chunks(BLOCK));
    let parts: Vec<f64> = blocks.map(|(a, b)| block_dot(a, b)).collect();
    parts.iter().sum()
}

/// ‖a‖.
pub(super) fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// y ← y + factor · x.
pub(super) fn axpy<E: StoredFloat>(y: &mut [f64], factor: f64, x: &[E]) {
    if y.len() <= BLOCK {
        return block_axpy(y, factor, x);
    }
    let blocks = y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK));
    blocks.for_each(|(y, x)| block_axpy(y, factor, x));
}

/// [`axpy`] on one block.
pub(super) fn block_axpy<E: StoredFloat>(y: &mut [f64], factor: f64, x: &[E]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x.wide();
    }
}

/// y ← y / by.
pub(super) fn divide(y: &mut [f64], by: f64) {
    let block = |block: &mut [f64]| block.iter_mut().for_each(|y| *y /= by);
    if y.len() <= BLOCK {
        return block(y);
    }
    y.par_chunks_mut(BLOCK).for_each(block);
}

/// y ← factor · y − x.
pub(super) fn scale_less(y: &mut [f64], factor: f64, x: &[f64]) {
    let block = |y: &mut [f64], x: &[f64]| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = factor * *y - x);
    };
    if y.len() <= BLOCK {
        return block(y, x);
    }
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| block(y, x));
}

/// Checks that all numbers of a vector are finite.
///
/// # Errors
/// [`Error::NonFinite`] for the first number that is not.
pub(super) fn finite(what: &'static str, vector: &[f64]) -> Result<()> {
    let bad = |x: &f64| !x.is_finite();
    let position = if vector.len() <= BLOCK {
        vector.iter().position(bad)
    } else {
        vector.par_iter().position_first(bad)
    };
    match position.and_then(|i| Some((i, *vector.get(i)?))) {
        Some((position, value)) => Err(Error::NonFinite { what, position, value }),
        None => Ok(()),
    }
}

/// n independent signs ±1 with equal probability (a Rademacher vector). 64 signs use one random
/// word.
pub(super) fn signs(n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut signs = Vec::with_capacity(n);
    while signs.len() < n {
        let word = rng.next_u64();
        let left = (n - signs.len()).min(64);
        signs.extend((0..left).map(|bit| if word >> bit & 1 == 1 { 1.0 } else { -1.0 }));
    }
    signs
}

/// n independent standard normal numbers by the polar method (Marsaglia and Bray, SIAM Review
/// 1964).
///
/// Uses the logarithm of `libm`, which is the same on every machine.
pub(super) fn normals(n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut normals = Vec::with_capacity(n);
    while normals.len() < n {
        let (x, y) = (2.0 * unit(rng) - 1.0, 2.0 * unit(rng) - 1.0);
        let s = x * x + y * y;
        if s < 1.0 && s > 0.0 {
            let factor = (-2.0 * libm::log(s) / s).sqrt();
            normals.push(factor * x);
            if normals.len() < n {
                normals.push(factor * y);
            }
        }
    }
    normals
}

/// The operator's dimension n.
///
/// # Errors
/// [`Error::ZeroDimension`].
pub(super) fn dimension(operator: &dyn LinearOperator) -> Result<usize> {
    match operator.dimension() {
        0 => Err(Error::ZeroDimension),
        n => Ok(n),
    }
}

/// Relative rounding error of A's products: the operator's own value, at least that of f64.
pub(super) fn precision(operator: &dyn LinearOperator) -> f64 {
    operator.precision().max(f64::EPSILON)
}

/// A v for each vector, in blocks of the operator's preferred size.
///
/// # Errors
/// Those of the operator; [`Error::Count`], [`Error::Length`] and [`Error::NonFinite`] if the
/// result is invalid.
pub(super) fn products(
    operator: &dyn LinearOperator,
    vectors: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    let mut products = Vec::with_capacity(vectors.len());
    for some in vectors.chunks(operator.block().max(1)) {
        let found = operator.apply(some)?;
        if found.len() != some.len() {
            return Err(Error::Count { expected: some.len(), found: found.len() });
        }
        products.extend(found);
    }
    for product in &products {
        if product.len() != operator.dimension() {
            return Err(Error::Length { expected: operator.dimension(), found: product.len() });
        }
        finite("product A v", product)?;
    }
    Ok(products)
}
