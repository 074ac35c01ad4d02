//! Products of f32 matrices by way of bf16: operands split in three, nothing of them lost.
//!
//! x = x₀ + x₁ + x₂ with x₀ = bf16(x), x₁ = bf16(x − x₀), x₂ = bf16(x − x₀ − x₁): three times 8
//! bits hold an f32's 24, so the sum is exact, and |xᵢ| ≤ 2⁻⁸ⁱ·|x|. Of the nine products of parts six
//! are taken, a₀b₀ + (a₀b₁ + a₁b₀) + (a₀b₂ + a₁b₁ + a₂b₀); the others come to at most
//! 2·2⁻²⁴ + 2⁻³² of |a||b| (after Henry, Tang and Heinecke 2019, "Leveraging the bfloat16 artificial
//! intelligence datatype for higher-precision computations").
//! Products are exact and sums are kept in f32, the small ones first:
//! |ĉ − c| ≤ (2·2⁻²⁴ + 2⁻³² + (K + 2)·2⁻²³)·Σ|aᵢ||bᵢ|, what a product in f32 also keeps to.
//!
//! Tiles multiply bf16 sixteen times as fast as vectors multiply f32, so that six products are
//! worth it where nobody else uses the tiles. Numbers from 2⁻¹¹⁰ down lose what falls below 2⁻¹²⁶,
//! and a product with an operand that is infinite, or that bf16 rounds to infinity (from 3.39e38
//! on), is not finite.

use super::Unit;
#[cfg(target_arch = "x86_64")]
use super::tiled;
use crate::product::{Start, View, check};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether products of f32 may be taken this way.
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Has products of f32 taken this way from now on, where that pays; false if the instructions are
/// not [`available`]. They are not by themselves, for tiles that other users of the processor keep
/// busy are slower than vectors, and what a product is must not depend on who else is there.
pub fn allow() -> bool {
    ALLOWED.store(available(), Ordering::Relaxed);
    available()
}

/// Whether they are.
pub fn allowed() -> bool {
    ALLOWED.load(Ordering::Relaxed)
}

/// Rows, columns and steps that a product must have at least: below, splitting operands costs
/// more than tiles save.
const LEAST: [usize; 3] = [128, 128, 64];

/// Whether a product of so many rows, columns and steps is taken faster this way than in f32.
/// Depends on the sizes alone, so that results depend on nothing else.
pub(crate) fn pays(rows: usize, columns: usize, steps: usize) -> bool {
    [rows, columns, steps].iter().zip(LEAST).all(|(size, least)| *size >= least) && allowed()
}

/// Whether this processor has the instructions.
pub fn available() -> bool {
    Unit::best() == Unit::Amx
}

/// C = start + factor · A·B for every matrix of the batch.
///
/// # Panics
/// If a view reaches outside its buffer, the sizes do not multiply, or the instructions are not
/// [`available`].
pub fn multiply(
    c: (&mut [f32], View),
    start: Start<f32>,
    a: (&[f32], View),
    b: (&[f32], View),
    factor: f64,
) {
    assert!(available(), "this processor lacks {:?}", Unit::Amx);
    check((c.0, c.1), start, a, b);
    #[cfg(target_arch = "x86_64")]
    tiled((Unit::Amx, 3), c, start, a, b, factor as f32);
}
