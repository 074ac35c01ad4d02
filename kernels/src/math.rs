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
    0.305_071_540_961_600_2,
    -0.434_841_272_712_577_5,
    0.176_351_193_643_605_5,
    -0.060_710_795_609_249_41,
    0.017_712_068_995_694_115,
    -0.004_321_119_385_567_293,
    0.000_854_216_676_887_098_8,
    -0.000_127_155_090_609_162_78,
    0.00001124816724367108,
    3.130_638_854_216_332e-7,
    -2.709_880_685_380_178e-7,
    3.073_762_270_109_804_3e-8,
    2.5156203844711137e-9,
    -1.0289299216846792e-9,
    2.994_405_175_770_985e-11,
    2.605_178_934_697_454e-11,
    -2.6348402239214234e-12,
    -6.434_047_527_549_278e-13,
    1.124_572_290_160_473_3e-13,
    1.728_144_000_635_124_8e-14,
    -4.264_110_731_213_836e-15,
    -5.452_963_654_570_613e-16,
    1.588_535_160_901_810_4e-16,
    2.112_728_149_355_984e-17,
];
