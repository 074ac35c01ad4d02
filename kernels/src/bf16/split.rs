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
use crate::product::{Start, View, check};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether f32 products may use this method.
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Lets f32 products use this method from now on, where it is faster. Returns false if the
/// instructions are not [`available`].
///
/// It is off by default: tiles that other programs also use are slower than vector instructions,
/// and results must not depend on which other programs run.
pub fn allow() -> bool {
    ALLOWED.store(available(), Ordering::Relaxed);
    available()
}

/// Whether [`allow`] enabled the method.
pub fn allowed() -> bool {
    ALLOWED.load(Ordering::Relaxed)
}

/// Minimum rows, columns and steps. For smaller products, splitting the operands costs more than
/// tiles save.
const MIN_SIZES: [usize; 3] = [128, 128, 64];

/// Whether this method is enabled and faster than f32 for a product of these sizes. Depends only on
/// the sizes, so that results do not depend on anything else.
pub(crate) fn is_faster(rows: usize, columns: usize, steps: usize) -> bool {
    [rows, columns, steps].iter().zip(MIN_SIZES).all(|(size, least)| *size >= least) && allowed()
}

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
