//! Exponential and error function of vector registers.

use crate::lanes::{Element, Lane};

/// Series of exp on |r| ≤ ln 2 / 2 for f32. Relative error 3.1e-9 before rounding. The first two
/// terms are fixed at 1; the rest was fitted with Lawson's reweighted least squares.
pub(crate) const EXP_F32: [f64; 7] = [
    1.0,
    1.0,
    0.499_999_934_023_865,
    0.166_665_205_238_243_2,
    0.041_668_388_051_562_04,
    0.008_368_730_292_780_33,
    0.001_381_495_326_220_23,
];

/// Series for f64: Taylor, 1/k!.
pub(crate) const EXP_F64: [f64; 14] = [
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

/// exp(x), accurate to about one unit in the last place.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2. exp(r) is the series [`Element::EXP`], scaled by 2ⁿ. Below
/// [`Element::EXP_RANGE`] the result is 0 and above it +∞. Just below the upper bound, where 2ⁿ
/// exceeds the largest exponent, it may also be +∞. NaN stays NaN.
#[inline(always)]
pub fn exp<L: Lane>(x: L) -> L {
    let (low, high) = (L::splat(L::Element::EXP_RANGE.0), L::splat(L::Element::EXP_RANGE.1));
    // Clamping keeps the exponent arithmetic in range for any x.
    let inside = high.min(low.max(x));
    // Numbers of this size have no fractional digits: adding the shift rounds to an integer.
    let shift = L::splat(L::Element::ROUNDING_SHIFT);
    let n = inside.mul_add(L::splat(std::f64::consts::LOG2_E), shift) - shift;
    let r = n.mul_add(L::splat(-L::Element::LN2.0), inside);
    let r = n.mul_add(L::splat(-L::Element::LN2.1), r);
    let series = L::Element::EXP;
    let mut k = series.len() - 1;
    let mut sum = L::splat(series[k]);
    while k > 0 {
        k -= 1;
        sum = sum.mul_add(r, L::splat(series[k]));
    }
    let y = sum.scale_by_power(n);
    x.select_less(low, L::splat(0.0), y)
}

/// erf(x) = 2/√π ∫₀ˣ exp(−t²) dt. Absolute error: a few units in the last place of 1.
#[inline(always)]
pub fn erf<L: Lane>(x: L) -> L {
    match L::Element::ERF {
        Erf::F32 => erf_rational(x),
        Erf::F64 => erf_by_tail(x),
    }
}

/// Implementations of [`erf`].
#[derive(Clone, Copy, Debug)]
pub enum Erf {
    /// A rational function; needs no exponential.
    F32,
    /// From the scaled complementary error function.
    F64,
}

/// In f32, erf is 1 from here on.
const ERF_ONE: f64 = 3.925;

/// erf(x) = x P(x²)/Q(x²) on |x| ≤ 3.925, and ±1 beyond. Before rounding, the absolute error is at
/// most 1.7e-8 and the relative error at most 5.7e-8. Fitted with Lawson's reweighted least
/// squares.
#[inline(always)]
fn erf_rational<L: Lane>(x: L) -> L {
    let (one, bound) = (L::splat(1.0), L::splat(ERF_ONE));
    let inside = bound.min((-bound).max(x));
    let t = inside * inside;
    let series = |coefficients: &[f64; 6]| {
        let mut sum = L::splat(coefficients[5]);
        let mut i = 5;
        while i > 0 {
            i -= 1;
            sum = sum.mul_add(t, L::splat(coefficients[i]));
        }
        sum
    };
    // Rounding must not exceed 1, or x Φ(x) would grow with −x.
    let y = one.min((-one).max(inside * series(&ERF_P) / series(&ERF_Q)));
    let sign = x.select_less(L::splat(0.0), -one, one);
    bound.select_less(x.abs(), sign, y)
}

const ERF_P: [f64; 6] = [
    1.128_379_102_752_528_3,
    0.192_251_638_100_890_55,
    0.052_988_760_524_402_684,
    0.003_844_474_957_990_315,
    0.000_286_595_352_320_229_63,
    2.034_560_497_355_878_5e-6,
];

const ERF_Q: [f64; 6] = [
    1.0,
    0.503_710_747_108_013_4,
    0.114_868_634_528_445_38,
    0.015_126_008_208_320_624,
    0.001_181_614_774_170_115_7,
    3.802_166_244_516_124e-5,
];

/// With a = |x|: erfc(a) = exp(−a²) · C(s), s = (a − k)/(a + k), k = 3.75. The scaled complementary
/// error function is a short Chebyshev series in s over all of [0, ∞) (Schonfelder, Math. Comp. 32,
/// 1978), so no branch is needed.
#[inline(always)]
fn erf_by_tail<L: Lane>(x: L) -> L {
    let a = x.abs();
    let k = L::splat(3.75);
    let s = (a - k) / (a + k);
    let twice = s + s;
    // Clenshaw's recurrence: stable where the plain polynomial would cancel.
    let (mut b1, mut b2) = (L::splat(0.0), L::splat(0.0));
    let mut i = ERFCX.len();
    while i > 1 {
        i -= 1;
        let b0 = twice.mul_add(b1, L::splat(ERFCX[i]) - b2);
        b2 = b1;
        b1 = b0;
    }
    let c = s.mul_add(b1, L::splat(ERFCX[0]) - b2);
    let tail = exp(-(x * x)) * c;
    let positive = L::splat(1.0) - tail;
    x.select_less(L::splat(0.0), -positive, positive)
}

/// Chebyshev coefficients of exp(a²) erfc(a) in s. The omitted rest is below 2e-17. Computed with
/// mpmath to 40 digits.
const ERFCX: [f64; 24] = [
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
