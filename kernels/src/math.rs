//! Exponential and error function on whole registers.

use crate::lanes::{Element, Lane};

/// 1/k! for the exponential's series.
const INVERSE_FACTORIAL: [f64; 14] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
    1.0 / 479_001_600.0,
    1.0 / 6_227_020_800.0,
];

/// exp(x), to about one unit in the last place.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; exp(r) from its Taylor series, scaled by 2ⁿ. Arguments
/// below [`Element::EXP_RANGE`] give 0, above it +∞; NaN stays NaN.
#[inline(always)]
pub fn exp<L: Lane>(x: L) -> L {
    let (low, high) = (L::splat(L::Element::EXP_RANGE.0), L::splat(L::Element::EXP_RANGE.1));
    // The clamped copy keeps the exponent arithmetic in range whatever x is.
    let inside = x.select_less(low, low, high.select_less(x, high, x));
    let n = (inside * L::splat(std::f64::consts::LOG2_E)).round();
    let r = n.mul_add(L::splat(-L::Element::LN2.0), inside);
    let r = n.mul_add(L::splat(-L::Element::LN2.1), r);
    let mut sum = L::splat(INVERSE_FACTORIAL[L::Element::EXP_TERMS]);
    let mut k = L::Element::EXP_TERMS;
    while k > 0 {
        k -= 1;
        sum = sum.mul_add(r, L::splat(INVERSE_FACTORIAL[k]));
    }
    let y = sum.scale_by_power(n);
    x.select_less(low, L::splat(0.0), high.select_less(x, L::splat(f64::INFINITY), y))
}

/// erf(x) = 2/√π ∫₀ˣ exp(−t²) dt, absolute error a few units in the last place of 1.
///
/// For a = |x|, erfc(a) = exp(−a²) · C(s) with s = (a − k)/(a + k), k = 3.75: the scaled
/// complementary error function is a short Chebyshev series in s over all of [0, ∞)
/// (Schonfelder, Math. Comp. 32, 1978), so there is no branch.
#[inline(always)]
pub fn erf<L: Lane>(x: L) -> L {
    let a = x.abs();
    let k = L::splat(3.75);
    let s = (a - k) / (a + k);
    let twice = s + s;
    let series = L::Element::ERFCX;
    // Clenshaw's recurrence: stable where the plain polynomial would cancel.
    let (mut b1, mut b2) = (L::splat(0.0), L::splat(0.0));
    let mut i = series.len();
    while i > 1 {
        i -= 1;
        let b0 = twice.mul_add(b1, L::splat(series[i]) - b2);
        b2 = b1;
        b1 = b0;
    }
    let c = s.mul_add(b1, L::splat(series[0]) - b2);
    let tail = exp(-(x * x)) * c;
    let positive = L::splat(1.0) - tail;
    x.select_less(L::splat(0.0), -positive, positive)
}

/// Chebyshev coefficients of exp(a²) erfc(a) in s, cut where the rest is below 4e-9
/// (computed with mpmath to 40 digits).
pub const ERFCX_F32: &[f64] = ERFCX_F64.split_at(12).0;

/// The same, cut where the rest is below 2e-17.
pub const ERFCX_F64: &[f64] = &[
    0.305071540961600209,
    -0.434841272712577471,
    0.176351193643605501,
    -0.0607107956092494146,
    0.0177120689956941147,
    -0.00432111938556729368,
    0.00085421667688709874,
    -0.000127155090609162768,
    0.00001124816724367108,
    3.13063885421633168e-7,
    -2.70988068538017784e-7,
    3.07376227010980458e-8,
    2.5156203844711137e-9,
    -1.0289299216846792e-9,
    2.9944051757709852e-11,
    2.60517893469745377e-11,
    -2.6348402239214234e-12,
    -6.43404752754927805e-13,
    1.12457229016047336e-13,
    1.72814400063512465e-14,
    -4.26411073121383604e-15,
    -5.45296365457061384e-16,
    1.58853516090181033e-16,
    2.11272814935598397e-17,
];
