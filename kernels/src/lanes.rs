//! Real vector registers behind one trait, so that an operation's text is written once.
//!
//! A [`Lane`] is one register full of `f32` or `f64`: sixteen or eight values under AVX-512,
//! eight or four under AVX2 with FMA, one anywhere. Arrays such as `[f32; 16]` would read the
//! same, but the compiler stops keeping them in registers as soon as several tangents ride along.

use crate::math::{EXP_F32, EXP_F64, Erf};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// What lies in memory: `f32` or `f64`, with the registers that hold it at each SIMD level.
pub trait Element: candle_core::WithDType + Lane<Element = Self> + PartialOrd + Default {
    /// Register under AVX-512.
    type Wide: Lane<Element = Self>;
    /// Register under AVX2 and FMA.
    type Half: Lane<Element = Self>;
    /// How [`crate::math::erf`] is computed in this precision.
    const ERF: Erf;
    /// Coefficients of the exponential's series on |r| ≤ ln 2 / 2, constant first.
    const EXP: &'static [f64];
    /// Below the first, [`crate::math::exp`] is 0; from the second on it is +∞.
    const EXP_RANGE: (f64, f64);
    /// 1.5 · 2ᵐ, m the digits of the mantissa: near it, numbers are one apart.
    const ROUNDING_SHIFT: f64;
    /// High part of ln 2, exact when multiplied by a small integer, and the rest.
    const LN2: (f64, f64);
    /// Rounds from f64.
    fn narrow(x: f64) -> Self;
    /// Widens to f64.
    fn wide(self) -> f64;
}

/// One register of `COUNT` elements; every operation acts on each element alone.
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
    /// Elements in a register.
    const COUNT: usize;
    /// The same value everywhere.
    fn splat(x: f64) -> Self;
    /// `self * a + b`, rounded once where the machine can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger of the two; `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller of the two; `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// `self · 2^n` for integral n from the smallest normal exponent to one past the largest, which
    /// may give ∞ even where the product is finite.
    fn scale_by_power(self, n: Self) -> Self;
    /// `yes` where `self < bound`, else `no`.
    fn select_less(self, bound: Self, yes: Self, no: Self) -> Self;
    /// Reads `COUNT` elements.
    ///
    /// # Safety
    /// `from` points to `COUNT` readable elements.
    unsafe fn load(from: *const Self::Element) -> Self;
    /// Writes `COUNT` elements.
    ///
    /// # Safety
    /// `to` points to `COUNT` writable elements.
    unsafe fn store(self, to: *mut Self::Element);

    /// Reads `count` < `COUNT` elements; the others are 0.
    ///
    /// # Safety
    /// `from` points to `count` readable elements.
    #[inline(always)]
    unsafe fn load_some(from: *const Self::Element, count: usize) -> Self {
        let mut buffer = [Self::Element::default(); 16];
        for (i, slot) in buffer.iter_mut().enumerate().take(count) {
            // SAFETY: i < count, and the caller vouches for `count` elements.
            *slot = unsafe { *from.add(i) };
        }
        // SAFETY: the buffer holds 16 ≥ COUNT elements.
        unsafe { Self::load(buffer.as_ptr()) }
    }

    /// Writes the first `count` < `COUNT` elements.
    ///
    /// # Safety
    /// `to` points to `count` writable elements.
    #[inline(always)]
    unsafe fn store_some(self, to: *mut Self::Element, count: usize) {
        let buffer = self.to_array();
        for (i, slot) in buffer.iter().enumerate().take(count) {
            // SAFETY: i < count, and the caller vouches for `count` elements.
            unsafe { *to.add(i) = *slot };
        }
    }

    /// The elements, the first `COUNT` of sixteen.
    #[inline(always)]
    fn to_array(self) -> [Self::Element; 16] {
        let mut buffer = [Self::Element::default(); 16];
        // SAFETY: the buffer holds 16 ≥ COUNT elements.
        unsafe { self.store(buffer.as_mut_ptr()) };
        buffer
    }

    /// Sum over the register, everywhere.
    #[inline(always)]
    fn sum(self) -> Self {
        let mut total = 0.0;
        for &x in self.to_array().iter().take(Self::COUNT) {
            total += x.wide();
        }
        Self::splat(total)
    }

    /// Largest element, everywhere.
    #[inline(always)]
    fn largest(self) -> Self {
        let mut best = f64::NEG_INFINITY;
        for &x in self.to_array().iter().take(Self::COUNT) {
            // A NaN must come through: it would otherwise vanish from a softmax.
            if x.wide() > best || x.wide().is_nan() {
                best = x.wide();
            }
        }
        Self::splat(best)
    }

    /// Applies a scalar function to a register that holds the same number everywhere.
    #[inline(always)]
    fn map_same(self, f: fn(f64) -> f64) -> Self {
        let [x, others @ ..] = self.to_array();
        debug_assert!(
            others[..Self::COUNT - 1].iter().all(|y| *y == x || x.wide().is_nan()),
            "one number everywhere"
        );
        Self::splat(f(x.wide()))
    }

    /// The first `count` elements, the others replaced by `fill`.
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
                // Without FMA in the target, `mul_add` is a slow library call.
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
                // SAFETY: the caller vouches for one element.
                unsafe { *from }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller vouches for one element.
                unsafe { *to = self }
            }
        }
    };
}

plain_lane!(f32, i32, u32, 127, 23);
plain_lane!(f64, i64, u64, 1023, 52);

#[cfg(target_arch = "x86_64")]
use crate::lanes_x86 as registers;
/// Elsewhere the compiler vectorises what it can.
#[cfg(not(target_arch = "x86_64"))]
mod registers {
    pub type F32x16 = f32;
    pub type F32x8 = f32;
    pub type F64x8 = f64;
    pub type F64x4 = f64;
}

impl Element for f32 {
    type Wide = registers::F32x16;
    type Half = registers::F32x8;
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
    type Wide = registers::F64x8;
    type Half = registers::F64x4;
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
