//! Vector registers behind one trait, so that each operation is written once.
//!
//! A [`Lane`] is one register: 16 `f32` with AVX-512, 8 `f32` or 4 `f64` with AVX2 and FMA, one
//! number otherwise. Plain arrays such as `[f32; 16]` would be simpler, but the compiler stops
//! keeping them in registers as soon as there are several tangents.

use crate::math::{EXP_F32, EXP_F64, Erf};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The element type, `f32` or `f64`, with its registers at each SIMD level and the constants of
/// [`crate::math`].
pub trait Element: candle_core::WithDType + Lane<Element = Self> + PartialOrd + Default {
    /// Whether there are kernels with AVX-512; else those with AVX2 are used. f64 has none: it
    /// serves for checks, and without them the crate builds faster.
    const HAS_AVX512: bool;
    /// Register with AVX-512, or with AVX2 if there are no kernels with AVX-512.
    type Avx512: Lane<Element = Self>;
    /// Register with AVX2 and FMA.
    type Avx2: Lane<Element = Self>;
    /// Implementation of [`crate::math::erf`] for this type.
    const ERF: Erf;
    /// Coefficients of the series of exp on |r| ≤ ln 2 / 2, constant term first.
    const EXP: &'static [f64];
    /// Below the first number [`crate::math::exp`] is 0; from the second on it is +∞.
    const EXP_RANGE: (f64, f64);
    /// 1.5 · 2ᵐ, where m is the number of mantissa bits. Adding it rounds to an integer.
    const ROUNDING_SHIFT: f64;
    /// ln 2 as a high part, whose product with a small integer is exact, and the remainder.
    const LN2: (f64, f64);
    /// Rounds from f64.
    fn narrow(x: f64) -> Self;
    /// Widens to f64.
    fn wide(self) -> f64;
}

/// One register of `COUNT` elements. Operations are elementwise.
pub trait Lane:
    Copy
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The element type.
    type Element: Element;
    /// Elements per register.
    const COUNT: usize;
    /// Broadcasts a number.
    fn splat(x: f64) -> Self;
    /// `self * a + b`, rounded once if the machine has FMA.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger element; that of `other` if either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller element; that of `other` if either is NaN.
    fn min(self, other: Self) -> Self;
    /// `self · 2^n` for an integer n from the smallest normal exponent to one past the largest. For
    /// the latter the result may be ∞ even if the product is finite.
    fn scale_by_power(self, n: Self) -> Self;
    /// `yes` where `self < bound`, else `no`.
    fn select_less(self, bound: Self, yes: Self, no: Self) -> Self;
    /// Loads `COUNT` elements.
    ///
    /// # Safety
    /// `from` points to `COUNT` readable elements.
    unsafe fn load(from: *const Self::Element) -> Self;
    /// Stores `COUNT` elements.
    ///
    /// # Safety
    /// `to` points to `COUNT` writable elements.
    unsafe fn store(self, to: *mut Self::Element);

    /// Loads `count` < `COUNT` elements; the others are 0.
    ///
    /// # Safety
    /// `from` points to `count` readable elements.
    #[inline(always)]
    unsafe fn load_some(from: *const Self::Element, count: usize) -> Self {
        let mut buffer = [Self::Element::default(); 16];
        for (i, slot) in buffer.iter_mut().enumerate().take(count) {
            // SAFETY: i < count, and the caller guarantees `count` elements.
            *slot = unsafe { *from.add(i) };
        }
        // SAFETY: the buffer holds 16 ≥ COUNT elements.
        unsafe { Self::load(buffer.as_ptr()) }
    }

    /// Stores the first `count` < `COUNT` elements.
    ///
    /// # Safety
    /// `to` points to `count` writable elements.
    #[inline(always)]
    unsafe fn store_some(self, to: *mut Self::Element, count: usize) {
        let buffer = self.to_array();
        for (i, slot) in buffer.iter().enumerate().take(count) {
            // SAFETY: i < count, and the caller guarantees `count` elements.
            unsafe { *to.add(i) = *slot };
        }
    }

    /// The elements, in the first `COUNT` places of an array of 16.
    #[inline(always)]
    fn to_array(self) -> [Self::Element; 16] {
        let mut buffer = [Self::Element::default(); 16];
        // SAFETY: the buffer holds 16 ≥ COUNT elements.
        unsafe { self.store(buffer.as_mut_ptr()) };
        buffer
    }

    /// Sum over the register, broadcast.
    #[inline(always)]
    fn sum(self) -> Self {
        let mut total = 0.0;
        for &x in self.to_array().iter().take(Self::COUNT) {
            total += x.wide();
        }
        Self::splat(total)
    }

    /// Maximum over the register, broadcast.
    #[inline(always)]
    fn reduce_max(self) -> Self {
        let mut best = f64::NEG_INFINITY;
        for &x in self.to_array().iter().take(Self::COUNT) {
            // Propagate NaN, which a softmax would otherwise hide.
            if x.wide() > best || x.wide().is_nan() {
                best = x.wide();
            }
        }
        Self::splat(best)
    }

    /// Applies a scalar function to a register whose elements are all equal.
    #[inline(always)]
    fn map_uniform(self, f: fn(f64) -> f64) -> Self {
        let [x, others @ ..] = self.to_array();
        debug_assert!(
            others[..Self::COUNT - 1].iter().all(|y| *y == x || x.wide().is_nan()),
            "all elements are equal"
        );
        Self::splat(f(x.wide()))
    }

    /// The first `count` elements; the others are set to `fill`.
    #[inline(always)]
    fn keep_first(self, count: usize, fill: f64) -> Self {
        if count >= Self::COUNT {
            return self;
        }
        let mut buffer = self.to_array();
        for x in buffer.iter_mut().take(Self::COUNT).skip(count) {
            *x = Self::Element::narrow(fill);
        }
        // SAFETY: the buffer holds 16 ≥ COUNT elements.
        unsafe { Self::load(buffer.as_ptr()) }
    }
}

macro_rules! plain_lane {
    ($t:ty, $int:ty, $bits:ty, $bias:expr, $mantissa:expr) => {
        impl Lane for $t {
            type Element = $t;
            const COUNT: usize = 1;
            #[inline(always)]
            fn splat(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                // If the target has no FMA, `mul_add` is a slow library call.
                self * a + b
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if self > other { self } else { other }
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if self < other { self } else { other }
            }
            #[inline(always)]
            fn scale_by_power(self, n: Self) -> Self {
                let exponent = (n as $int) + $bias;
                self * <$t>::from_bits((exponent as $bits) << $mantissa)
            }
            #[inline(always)]
            fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
                if self < bound { yes } else { no }
            }
            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                // SAFETY: the caller guarantees one element.
                unsafe { *from }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller guarantees one element.
                unsafe { *to = self }
            }
        }
    };
}

plain_lane!(f32, i32, u32, 127, 23);
plain_lane!(f64, i64, u64, 1023, 52);

#[cfg(target_arch = "x86_64")]
use crate::lanes_x86 as registers;
/// On other architectures the compiler vectorises what it can.
#[cfg(not(target_arch = "x86_64"))]
mod registers {
    pub type F32x16 = f32;
    pub type F32x8 = f32;
    pub type F64x4 = f64;
}

impl Element for f32 {
    const HAS_AVX512: bool = true;
    type Avx512 = registers::F32x16;
    type Avx2 = registers::F32x8;
    const ERF: Erf = Erf::F32;
    const EXP: &'static [f64] = &EXP_F32;
    const EXP_RANGE: (f64, f64) = (-87.0, 89.0);
    const ROUNDING_SHIFT: f64 = 12_582_912.0;
    const LN2: (f64, f64) = (0.693359375, -2.121_944_400_546_905_8e-4);
    #[inline(always)]
    fn narrow(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Element for f64 {
    const HAS_AVX512: bool = false;
    type Avx512 = registers::F64x4;
    type Avx2 = registers::F64x4;
    const ERF: Erf = Erf::F64;
    const EXP: &'static [f64] = &EXP_F64;
    const EXP_RANGE: (f64, f64) = (-708.0, 710.0);
    const ROUNDING_SHIFT: f64 = 6_755_399_441_055_744.0;
    const LN2: (f64, f64) = (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10);
    #[inline(always)]
    fn narrow(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}
