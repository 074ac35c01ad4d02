//! Registers of x86-64: AVX-512 (`F32x16`) and AVX2 with FMA (`F32x8`, `F64x4`).
//!
//! The methods have no `target_feature` attribute. They are inlined into drivers that have it (see
//! `pass.rs`), and the intrinsics compile to instructions only there.

use crate::lanes::Lane;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

macro_rules! register {
    ($name:ident, $reg:ty, $elem:ty, $count:expr, $doc:expr,
     add $add:ident, sub $sub:ident, mul $mul:ident, div $div:ident, set $set:ident,
     fma $fma:ident, sqrt $sqrt:ident, max $max:ident, min $min:ident, load $load:ident, store $store:ident,
     abs $abs:expr, power $power:expr, less $less:expr
     $(, masked $mask:ty, $load_some:ident, $store_some:ident, $blend:ident, $sum:ident, $largest:ident,
       nan $nan:expr)?) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub struct $name($reg);

        // SAFETY (whole block): drivers call these methods only after checking that the processor
        // supports the instructions. Loads and stores pass on the caller's contract.
        impl Add for $name {
            type Output = Self;
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                Self(unsafe { $add(self.0, o.0) })
            }
        }
        impl Sub for $name {
            type Output = Self;
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                Self(unsafe { $sub(self.0, o.0) })
            }
        }
        impl Mul for $name {
            type Output = Self;
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                Self(unsafe { $mul(self.0, o.0) })
            }
        }
        impl Div for $name {
            type Output = Self;
            #[inline(always)]
            fn div(self, o: Self) -> Self {
                Self(unsafe { $div(self.0, o.0) })
            }
        }
        impl Neg for $name {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                Self(unsafe { $sub($set(-0.0), self.0) })
            }
        }
        impl Lane for $name {
            type Element = $elem;
            const COUNT: usize = $count;
            #[inline(always)]
            fn splat(x: f64) -> Self {
                Self(unsafe { $set(x as $elem) })
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                Self(unsafe { $fma(self.0, a.0, b.0) })
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Self(unsafe { $sqrt(self.0) })
            }
            #[inline(always)]
            fn abs(self) -> Self {
                Self(unsafe { ($abs)(self.0) })
            }
            #[inline(always)]
            fn max(self, o: Self) -> Self {
                Self(unsafe { $max(self.0, o.0) })
            }
            #[inline(always)]
            fn min(self, o: Self) -> Self {
                Self(unsafe { $min(self.0, o.0) })
            }
            #[inline(always)]
            fn scale_by_power(self, n: Self) -> Self {
                Self(unsafe { ($power)(self.0, n.0) })
            }
            #[inline(always)]
            fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
                Self(unsafe { ($less)(self.0, bound.0, yes.0, no.0) })
            }
            #[inline(always)]
            unsafe fn load(from: *const $elem) -> Self {
                // SAFETY: the caller guarantees COUNT elements; no alignment is required.
                Self(unsafe { $load(from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $elem) {
                // SAFETY: the caller guarantees COUNT elements; no alignment is required.
                unsafe { $store(to, self.0) }
            }
            $(
                // Masks keep the last register of a row out of memory: storing single numbers and
                // then loading the whole register would stall.
                #[inline(always)]
                unsafe fn load_some(from: *const $elem, count: usize) -> Self {
                    // SAFETY: the mask covers the `count` elements that the caller guarantees.
                    Self(unsafe { $load_some(((1u32 << count) - 1) as $mask, from) })
                }
                #[inline(always)]
                unsafe fn store_some(self, to: *mut $elem, count: usize) {
                    // SAFETY: the mask covers the `count` elements that the caller guarantees.
                    unsafe { $store_some(to, ((1u32 << count) - 1) as $mask, self.0) }
                }
                #[inline(always)]
                fn keep_first(self, count: usize, fill: f64) -> Self {
                    let kept = ((1u32 << count.min($count)) - 1) as $mask;
                    Self(unsafe { $blend(kept, Self::splat(fill).0, self.0) })
                }
                #[inline(always)]
                fn sum(self) -> Self {
                    Self(unsafe { $set($sum(self.0)) })
                }
                #[inline(always)]
                fn reduce_max(self) -> Self {
                    // The reduction may drop a NaN.
                    Self(unsafe {
                        if ($nan)(self.0) != 0 { $set(<$elem>::NAN) } else { $set($largest(self.0)) }
                    })
                }
            )?
        }
    };
}

register!(F32x16, __m512, f32, 16, "Sixteen `f32` in one AVX-512 register.",
    add _mm512_add_ps, sub _mm512_sub_ps, mul _mm512_mul_ps, div _mm512_div_ps,
    set _mm512_set1_ps, fma _mm512_fmadd_ps, sqrt _mm512_sqrt_ps, max _mm512_max_ps, min _mm512_min_ps,
    load _mm512_loadu_ps, store _mm512_storeu_ps,
    abs _mm512_abs_ps, power _mm512_scalef_ps,
    less |a, b, yes, no| _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes),
    masked u16, _mm512_maskz_loadu_ps, _mm512_mask_storeu_ps, _mm512_mask_blend_ps,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps,
    nan |a| _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a));

register!(F32x8, __m256, f32, 8, "Eight `f32` in one AVX2 register.",
    add _mm256_add_ps, sub _mm256_sub_ps, mul _mm256_mul_ps, div _mm256_div_ps,
    set _mm256_set1_ps, fma _mm256_fmadd_ps, sqrt _mm256_sqrt_ps, max _mm256_max_ps, min _mm256_min_ps,
    load _mm256_loadu_ps, store _mm256_storeu_ps,
    abs |a| _mm256_andnot_ps(_mm256_set1_ps(-0.0), a),
    power |a, n| {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    },
    less |a, b, yes, no| _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)));

register!(F64x4, __m256d, f64, 4, "Four `f64` in one AVX2 register.",
    add _mm256_add_pd, sub _mm256_sub_pd, mul _mm256_mul_pd, div _mm256_div_pd,
    set _mm256_set1_pd, fma _mm256_fmadd_pd, sqrt _mm256_sqrt_pd, max _mm256_max_pd, min _mm256_min_pd,
    load _mm256_loadu_pd, store _mm256_storeu_pd,
    abs |a| _mm256_andnot_pd(_mm256_set1_pd(-0.0), a),
    power |a, n| {
        let exponent = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n));
        let exponent = _mm256_add_epi64(exponent, _mm256_set1_epi64x(1023));
        _mm256_mul_pd(a, _mm256_castsi256_pd(_mm256_slli_epi64::<52>(exponent)))
    },
    less |a, b, yes, no| _mm256_blendv_pd(no, yes, _mm256_cmp_pd::<_CMP_LT_OQ>(a, b)));
