//! Products of f32 matrices on bf16 tiles, without loss of precision: each operand is split into
//! three bf16 parts.
//!
//! x = x₀ + x₁ + x₂ with x₀ = bf16(x), x₁ = bf16(x − x₀), x₂ = bf16(x − x₀ − x₁). Three times 8
//! bits hold the 24 bits of an f32, so the sum is exact, and |xᵢ| ≤ 2⁻⁸ⁱ·|x|. Six of the nine
//! partial products are computed: a₀b₀ + (a₀b₁ + a₁b₀) + (a₀b₂ + a₁b₁ + a₂b₀). The other three are
//! at most 2·2⁻²⁴ + 2⁻³² of |a||b| (Henry, Tang and Heinecke 2019, "Leveraging the bfloat16
//! artificial intelligence datatype for higher-precision computations"). Products are exact, and
//! sums are f32 with the small products first: |ĉ − c| ≤ (2·2⁻²⁴ + 2⁻³² + (K + 2)·2⁻²³)·Σ|aᵢ||bᵢ|.
//! An f32 product satisfies the same bound.
//!
//! Tiles multiply bf16 sixteen times as fast as vector instructions multiply f32, so six products
//! pay off if no other program uses the tiles. Numbers below 2⁻¹¹⁰ lose what is below 2⁻¹²⁶. A
//! product is not finite if an operand is infinite or rounds to infinity in bf16 (from 3.39e38 on).

use super::Unit;
#[cfg(target_arch = "x86_64")]
use super::tiled;
use crate::product::{self, Start, View, check};

/// Minimum rows, columns and steps. For smaller products, splitting the operands costs more than
/// tiles save.
const MIN_SIZES: [usize; 3] = [128, 128, 64];

/// Whether this processor has the instructions.
pub fn available() -> bool {
    Unit::best() == Unit::Amx
}

/// C = start + factor · A·B for every matrix of the batch.
///
/// # Panics
/// If a view is outside its buffer, sizes do not match, or the instructions are not [`available`].
pub fn multiply(
    c: (&mut [f32], View),
    start: Start<f32>,
    a: (&[f32], View),
    b: (&[f32], View),
    factor: f64,
) {
    assert!(available(), "this processor does not support {:?}", Unit::Amx);
    check((c.0, c.1), start, a, b);
    #[cfg(target_arch = "x86_64")]
    tiled((Unit::Amx, 3), c, start, a, b, factor as f32);
}

/// Same as [`multiply`] for large matrices. Smaller ones are multiplied in f32, and so are all if the
/// instructions are not [`available`]. The choice depends only on the sizes, so that results do not
/// depend on anything else.
pub(crate) fn multiply_if_large(
    c: (&mut [f32], View),
    start: Start<f32>,
    a: (&[f32], View),
    b: (&[f32], View),
    factor: f64,
) {
    let sizes = [c.1.rows, c.1.cols, a.1.cols];
    let large = sizes.iter().zip(MIN_SIZES).all(|(size, least)| *size >= least);
    let product = if large && available() { multiply } else { product::multiply::<f32> };
    product(c, start, a, b, factor);
}
