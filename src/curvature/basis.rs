//! A growing orthonormal basis Q, stored in f32 if A's products have no more precision than that.

use super::vectors::{BLOCK, StoredFloat, block_axpy, block_dot, divide, dot, norm, normals};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// If products have a relative error of at least this, the basis is stored in f32.
const COARSE: f64 = 1e-9;

/// A second projection is sufficient if it leaves at least this fraction of the vector's length.
const REORTHOGONALIZED: f64 = 0.7;

/// Maximum number of projections after the first. Each one reduces the remaining components in Q by
/// the precision of f64.
const MAX_PASSES: usize = 4;

/// Bytes per stored number for an operator of this precision: 4 or 8.
pub(super) fn stored_bytes(precision: f64) -> u64 {
    if precision >= COARSE { 4 } else { 8 }
}

/// Orthonormal vectors, in f32 or f64.
///
/// Vectors rounded to f32 are orthonormal to about 1e-8, the square root of f64's precision. This
/// "semi-orthogonality" is sufficient for the projected matrix (Simon, "The Lanczos algorithm with
/// partial reorthogonalization", Math. Comp. 1984).
pub(super) enum Basis {
    F32(Vec<Vec<f32>>),
    F64(Vec<Vec<f64>>),
}

impl Basis {
    pub(super) fn new(precision: f64) -> Self {
        if precision >= COARSE { Self::F32(Vec::new()) } else { Self::F64(Vec::new()) }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(q) => q.len(),
            Self::F64(q) => q.len(),
        }
    }

    /// Up to `count` vectors, starting at index `start`.
    pub(super) fn vectors(&self, start: usize, count: usize) -> Vec<Vec<f64>> {
        fn wide<E: StoredFloat>(q: &[Vec<E>], start: usize, count: usize) -> Vec<Vec<f64>> {
            let some = q.iter().skip(start).take(count);
            some.map(|q| q.iter().map(|x| x.wide()).collect()).collect()
        }
        match self {
            Self::F32(q) => wide(q, start, count),
            Self::F64(q) => wide(q, start, count),
        }
    }

    /// w ← w − Q (Qᵀ w), over the vectors of Q from index `from` on. Returns Qᵀ w.
    ///
    /// If w lies almost within the span of Q, rounding leaves components in Q; [`Basis::append`]
    /// removes them.
    pub(super) fn project_out(&self, from: usize, w: &mut [f64]) -> Vec<f64> {
        match self {
            Self::F32(q) => project_out(q.get(from..).unwrap_or_default(), w),
            Self::F64(q) => project_out(q.get(from..).unwrap_or_default(), w),
        }
    }

    /// Σ sⱼ qⱼ.
    pub(super) fn combine(&self, n: usize, s: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; n];
        match self {
            Self::F32(q) => add_all(q, s, &mut out),
            Self::F64(q) => add_all(q, s, &mut out),
        }
        out
    }

    /// Appends w, out of which Q was projected once, as a unit vector. Returns the vector as stored
    /// and the length of w; returns `None` if that length is at most `floor`.
    ///
    /// Projects Q out a second time, which is sufficient (Giraud, Langou, Rozložník, van den Eshof,
    /// "Rounding error analysis of the classical Gram-Schmidt orthogonalization process", Numer.
    /// Math. 2005) unless almost nothing was left. Then it repeats.
    pub(super) fn append(&mut self, mut w: Vec<f64>, floor: f64) -> Option<(Vec<f64>, f64)> {
        let length = norm(&w);
        if length <= floor {
            return None;
        }
        divide(&mut w, length);
        for _ in 0..MAX_PASSES {
            self.project_out(0, &mut w);
            let left = norm(&w);
            if left == 0.0 {
                return None;
            }
            divide(&mut w, left);
            if left > REORTHOGONALIZED {
                break;
            }
        }
        let stored = match self {
            Self::F32(q) => {
                q.push(w.iter().map(|&x| f32::narrow(x)).collect());
                q.last().map(|q| q.iter().map(|x| x.wide()).collect())
            }
            Self::F64(q) => {
                q.push(w.clone());
                Some(w)
            }
        };
        stored.map(|q| (q, length))
    }

    /// Appends a random unit vector orthogonal to Q.
    pub(super) fn append_random(&mut self, n: usize, rng: &mut ChaCha8Rng) -> Option<Vec<f64>> {
        let mut w = normals(n, rng);
        self.project_out(0, &mut w);
        self.append(w, 0.0).map(|(q, _)| q)
    }
}

/// Reads Q once for the inner products and once for the subtraction, one block of rows at a time,
/// so that each block of w stays in cache. Partial sums are added in the order of the blocks.
fn project_out<E: StoredFloat>(q: &[Vec<E>], w: &mut [f64]) -> Vec<f64> {
    if w.len() <= BLOCK {
        let c: Vec<f64> = q.iter().map(|q| dot(q, w)).collect();
        q.iter().zip(&c).for_each(|(q, c)| block_axpy(w, -c, q));
        return c;
    }
    let parts: Vec<Vec<f64>> = w
        .par_chunks(BLOCK)
        .enumerate()
        .map(|(i, w)| q.iter().map(|q| block_dot(rows(q, i, w.len()), w)).collect())
        .collect();
    let mut c = vec![0.0; q.len()];
    for part in parts {
        c.iter_mut().zip(part).for_each(|(c, p)| *c += p);
    }
    let negative: Vec<f64> = c.iter().map(|c| -c).collect();
    add_all(q, &negative, w);
    c
}

/// w ← w + Σ sⱼ qⱼ.
fn add_all<E: StoredFloat>(q: &[Vec<E>], s: &[f64], w: &mut [f64]) {
    w.par_chunks_mut(BLOCK).enumerate().for_each(|(i, w)| {
        for (q, &s) in q.iter().zip(s) {
            block_axpy(w, s, rows(q, i, w.len()));
        }
    });
}

fn rows<E>(q: &[E], block: usize, len: usize) -> &[E] {
    q.get(block * BLOCK..block * BLOCK + len).unwrap_or_default()
}
