//! The inverse DCT of libjpeg-turbo's SIMD code for x86-64, which the wheels of Pillow and
//! torchvision use.
//!
//! It is libjpeg's exact integer transform ("islow"; Loeffler, Ligtenberg, Moschytz, ICASSP 1989).
//! Its results equal those of libjpeg's C code if that code's intermediate results fit in 16 bits,
//! which holds for every image written by an encoder. A damaged scan can have coefficients far out
//! of range. For these, the C code computes with 32 bits and wraps the resulting level; the SIMD
//! code wraps sums and products at 16 bits and saturates what it stores.

/// Fractional bits of the constants.
const BITS: u32 = 13;
/// Extra fractional bits in the results of the first pass.
const PASS: u32 = 2;

/// A constant of the transform with [`BITS`] fractional bits.
const fn fixed(x: f64) -> i32 {
    (x * (1 << BITS) as f64 + 0.5) as i32
}

const F_0_298: i32 = fixed(0.298_631_336);
const F_0_390: i32 = fixed(0.390_180_644);
const F_0_541: i32 = fixed(0.541_196_100);
const F_0_765: i32 = fixed(0.765_366_865);
const F_0_899: i32 = fixed(0.899_976_223);
const F_1_175: i32 = fixed(1.175_875_602);
const F_1_501: i32 = fixed(1.501_321_110);
const F_1_847: i32 = fixed(1.847_759_065);
const F_1_961: i32 = fixed(1.961_570_560);
const F_2_053: i32 = fixed(2.053_119_869);
const F_2_562: i32 = fixed(2.562_915_447);
const F_3_072: i32 = fixed(3.072_711_026);

/// Eight rows of eight columns.
type Block = [[i16; 8]; 8];

/// Levels of an 8 × 8 block, row by row, from its coefficients and their quantisation steps, both
/// in the same order.
pub(super) fn inverse_dct(coefficients: &[i16; 64], steps: &[u16; 64]) -> [[u8; 8]; 8] {
    let block: Block = std::array::from_fn(|row| {
        std::array::from_fn(|column| {
            let at = 8 * row + column;
            coefficients[at].wrapping_mul(steps[at] as i16)
        })
    });
    let columns = match coefficients[8..].iter().all(|c| *c == 0) {
        true => [block[0].map(|x| x.wrapping_shl(PASS)); 8],
        false => transform::<{ BITS - PASS }>(&block),
    };
    // The transform itself scales by 8.
    let rows = transform::<{ BITS + PASS + 3 }>(&transposed(&columns));
    transposed(&rows).map(|row| row.map(|x| (x.clamp(-128, 127) + 128) as u8))
}

fn transposed(block: &Block) -> Block {
    std::array::from_fn(|row| std::array::from_fn(|column| block[column][row]))
}

/// Transforms every column. Results are shifted right by `SHIFT` bits, rounded and saturated.
fn transform<const SHIFT: u32>(x: &Block) -> Block {
    let mut out = [[0; 8]; 8];
    for column in 0..8 {
        let at = |row: usize| x[row][column];
        let wide = |row: usize| i32::from(x[row][column]);
        let scaled = |x: i16| i32::from(x).wrapping_shl(BITS);

        let (sum, difference) = (at(0).wrapping_add(at(4)), at(0).wrapping_sub(at(4)));
        let high = wide(2) * F_0_541 + wide(6) * (F_0_541 - F_1_847);
        let low = wide(2) * (F_0_541 + F_0_765) + wide(6) * F_0_541;
        let even = [
            scaled(sum).wrapping_add(low),
            scaled(difference).wrapping_add(high),
            scaled(difference).wrapping_sub(high),
            scaled(sum).wrapping_sub(low),
        ];

        let z3 = i32::from(at(7).wrapping_add(at(3)));
        let z4 = i32::from(at(5).wrapping_add(at(1)));
        let (z3, z4) =
            (z3 * (F_1_175 - F_1_961) + z4 * F_1_175, z3 * F_1_175 + z4 * (F_1_175 - F_0_390));
        let part = |a: usize, on_a: i32, b: usize, on_b: i32, z: i32| {
            (wide(a) * on_a).wrapping_add(wide(b) * on_b).wrapping_add(z)
        };
        let odd = [
            part(1, F_1_501 - F_0_899, 7, -F_0_899, z4),
            part(3, F_3_072 - F_2_562, 5, -F_2_562, z3),
            part(5, F_2_053 - F_2_562, 3, -F_2_562, z4),
            part(7, F_0_298 - F_0_899, 1, -F_0_899, z3),
        ];

        let stored = |x: i32| {
            let rounded = x.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
            rounded.clamp(i16::MIN.into(), i16::MAX.into()) as i16
        };
        for row in 0..4 {
            out[row][column] = stored(even[row].wrapping_add(odd[row]));
            out[7 - row][column] = stored(even[row].wrapping_sub(odd[row]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in f64: levels ¼ Σ C(u) C(v) F(u, v) cos … cos … + 128.
    fn exact(block: &[f64; 64], row: usize, column: usize) -> f64 {
        let scale = |k: usize| if k == 0 { 0.5f64.sqrt() } else { 1.0 };
        let wave = |at: usize, k: usize| {
            ((2 * at + 1) as f64 * k as f64 * std::f64::consts::PI / 16.0).cos()
        };
        let term = |i: usize| {
            let (v, u) = (i / 8, i % 8);
            scale(u) * scale(v) * block[i] * wave(row, v) * wave(column, u)
        };
        0.25 * (0..64).map(term).sum::<f64>() + 128.0
    }

    #[test]
    fn ordinary_blocks_match_the_definition() {
        let mut state = 1u64;
        for round in 0..200 {
            let steps: [u16; 64] = std::array::from_fn(|i| 1 + (i as u16 * (round % 7)) / 4);
            let coefficients: [i16; 64] = std::array::from_fn(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let wide = (state >> 33) as i16 % 200;
                wide / (1 + i as i16 / 2) / steps[i] as i16
            });
            let scaled = std::array::from_fn(|i| f64::from(coefficients[i]) * f64::from(steps[i]));
            let levels = inverse_dct(&coefficients, &steps);
            for (i, level) in levels.iter().flatten().enumerate() {
                let expected = exact(&scaled, i / 8, i % 8).clamp(0.0, 255.0);
                // Half a level of rounding, and the error of 13-bit constants.
                assert!((f64::from(*level) - expected).abs() < 0.6, "{round}: {level} {expected}");
            }
        }
    }

    #[test]
    fn values_out_of_range_saturate() {
        // A constant block of level x/8 + 128: a coefficient of 2000 is white, −2000 black.
        for (dc, level) in [(0, 128), (80, 138), (2000, 255), (-2000, 0)] {
            let mut coefficients = [0; 64];
            coefficients[0] = dc;
            assert_eq!(inverse_dct(&coefficients, &[1; 64]), [[level; 8]; 8]);
        }
        // The same with a coefficient in the last row, which takes the other branch. 16 × 2040
        // still fits in 16 bits, and the first pass saturates at 8192 instead of wrapping.
        let mut coefficients = [0; 64];
        (coefficients[0], coefficients[56]) = (2040, 1);
        let mut steps = [1; 64];
        steps[0] = 16;
        assert_eq!(inverse_dct(&coefficients, &steps), [[255; 8]; 8]);
    }
}
