//! The scalar type of operations: a value with K tangents.
//!
//! With `Dual<_, 0>`, an operation's `value` and `vjp` compute plain numbers. With `Dual<_, K>`,
//! the same code also computes, for each of K directions, the JVP of the value and the tangent of
//! the VJP. That is forward over reverse, which gives exact Hessian-vector products (Pearlmutter,
//! Neural Computation 6, 1994).

use crate::lanes::Lane;
use crate::math;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Maximum number of tangents per pass of a row driver. More tangents take several passes.
pub const MAX_TANGENTS: usize = 2;

/// Arithmetic on one vector register of numbers, each with its tangents.
pub trait Scalar:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Mul<f64, Output = Self>
    + Add<f64, Output = Self>
{
    /// The underlying register type.
    type Lane: Lane;
    /// Number of tangents.
    const TANGENTS: usize;
    /// A constant, with zero tangents.
    fn constant(x: f64) -> Self;
    /// exp(x).
    fn exp(self) -> Self;
    /// Natural logarithm of a register whose elements are all equal.
    fn ln_uniform(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// erf(x).
    fn erf(self) -> Self;
    /// tanh(x).
    fn tanh(self) -> Self;
    /// Elementwise maximum of the values, with zero tangents.
    fn detached_max(self, other: Self) -> Self;
    /// `x` where self > 0. Elsewhere the value of self, which is 0 or NaN, with zero tangents: for
    /// functions whose derivative at 0 counts as 0.
    fn keep_positive(self, x: Self) -> Self;
    /// Sum over the register, broadcast to all elements.
    fn sum(self) -> Self;
    /// Maximum over the register, broadcast to all elements, with zero tangents.
    fn detached_reduce_max(self) -> Self;
    /// The first `count` elements; the others are set to the constant `fill`.
    fn keep_first(self, count: usize, fill: f64) -> Self;
    /// Builds a scalar from registers of the value and the tangents.
    fn from_parts(value: Self::Lane, tangents: [Self::Lane; MAX_TANGENTS]) -> Self;
    /// Register of the value.
    fn value(&self) -> Self::Lane;
    /// Register of tangent `k` < [`Self::TANGENTS`].
    fn tangent(&self, k: usize) -> Self::Lane;
}

/// A value and K tangents: x + Σ εₖ ẋₖ with εₖ εⱼ = 0.
#[derive(Clone, Copy)]
pub struct Dual<L, const K: usize> {
    value: L,
    tangents: [L; K],
}

impl<L: Lane, const K: usize> Dual<L, K> {
    /// Chain rule for a function of one argument: `value` = f(x), `slope` = f'(x).
    #[inline(always)]
    fn chain(self, value: L, slope: L) -> Self {
        let mut tangents = self.tangents;
        for t in &mut tangents {
            *t = *t * slope;
        }
        Self { value, tangents }
    }

    #[inline(always)]
    fn zip(self, other: Self, value: L, f: impl Fn(L, L) -> L) -> Self {
        let mut tangents = self.tangents;
        for (t, &o) in tangents.iter_mut().zip(&other.tangents) {
            *t = f(*t, o);
        }
        Self { value, tangents }
    }
}

impl<L: Lane, const K: usize> Add for Dual<L, K> {
    type Output = Self;
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        self.zip(
            o,
            self.value + o.value,
            #[inline(always)]
            |a, b| a + b,
        )
    }
}
impl<L: Lane, const K: usize> Sub for Dual<L, K> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        self.zip(
            o,
            self.value - o.value,
            #[inline(always)]
            |a, b| a - b,
        )
    }
}
impl<L: Lane, const K: usize> Mul for Dual<L, K> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        self.zip(
            o,
            self.value * o.value,
            #[inline(always)]
            |a, b| a.mul_add(o.value, self.value * b),
        )
    }
}
impl<L: Lane, const K: usize> Div for Dual<L, K> {
    type Output = Self;
    // (a/b)' = (a' − (a/b) b')/b. Clippy does not expect other operators in `div`.
    #[allow(clippy::suspicious_arithmetic_impl)]
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        let quotient = self.value / o.value;
        self.zip(
            o,
            quotient,
            #[inline(always)]
            |a, b| (a - quotient * b) / o.value,
        )
    }
}
impl<L: Lane, const K: usize> Neg for Dual<L, K> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        let mut tangents = self.tangents;
        for t in &mut tangents {
            *t = -*t;
        }
        Self { value: -self.value, tangents }
    }
}
impl<L: Lane, const K: usize> Mul<f64> for Dual<L, K> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, c: f64) -> Self {
        let c = L::splat(c);
        self.chain(self.value * c, c)
    }
}
impl<L: Lane, const K: usize> Add<f64> for Dual<L, K> {
    type Output = Self;
    #[inline(always)]
    fn add(self, c: f64) -> Self {
        Self { value: self.value + L::splat(c), tangents: self.tangents }
    }
}

impl<L: Lane, const K: usize> Scalar for Dual<L, K> {
    type Lane = L;
    const TANGENTS: usize = K;

    #[inline(always)]
    fn constant(x: f64) -> Self {
        Self { value: L::splat(x), tangents: [L::splat(0.0); K] }
    }
    #[inline(always)]
    fn exp(self) -> Self {
        let y = math::exp(self.value);
        self.chain(y, y)
    }
    #[inline(always)]
    fn ln_uniform(self) -> Self {
        self.chain(self.value.map_uniform(f64::ln), L::splat(1.0) / self.value)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        let y = self.value.sqrt();
        self.chain(y, L::splat(0.5) / y)
    }
    #[inline(always)]
    fn erf(self) -> Self {
        let x = self.value;
        // 2/√π exp(−x²)
        let slope = math::exp(-(x * x)) * L::splat(std::f64::consts::FRAC_2_SQRT_PI);
        self.chain(math::erf(x), slope)
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        // 1 − 2/(e²ˣ + 1). Correct at both ends, where e²ˣ overflows to ∞ or underflows to 0.
        let e = math::exp(self.value + self.value);
        let y = L::splat(1.0) - L::splat(2.0) / (e + L::splat(1.0));
        self.chain(y, L::splat(1.0) - y * y)
    }
    #[inline(always)]
    fn detached_max(self, other: Self) -> Self {
        Self { value: self.value.max(other.value), tangents: [L::splat(0.0); K] }
    }
    #[inline(always)]
    fn keep_positive(self, x: Self) -> Self {
        let (zero, bound) = (L::splat(0.0), self.value);
        let mut tangents = x.tangents;
        for t in &mut tangents {
            *t = zero.select_less(bound, *t, zero);
        }
        Self { value: zero.select_less(bound, x.value, bound), tangents }
    }
    #[inline(always)]
    fn sum(self) -> Self {
        let mut tangents = self.tangents;
        for t in &mut tangents {
            *t = t.sum();
        }
        Self { value: self.value.sum(), tangents }
    }
    #[inline(always)]
    fn detached_reduce_max(self) -> Self {
        Self { value: self.value.reduce_max(), tangents: [L::splat(0.0); K] }
    }
    #[inline(always)]
    fn keep_first(self, count: usize, fill: f64) -> Self {
        let mut tangents = self.tangents;
        for t in &mut tangents {
            *t = t.keep_first(count, 0.0);
        }
        Self { value: self.value.keep_first(count, fill), tangents }
    }
    #[inline(always)]
    fn from_parts(value: L, parts: [L; MAX_TANGENTS]) -> Self {
        let mut tangents = [value; K];
        for (t, &part) in tangents.iter_mut().zip(&parts) {
            *t = part;
        }
        Self { value, tangents }
    }
    #[inline(always)]
    fn value(&self) -> L {
        self.value
    }
    #[inline(always)]
    fn tangent(&self, k: usize) -> L {
        self.tangents[k]
    }
}
