//! Products of f32 matrices in bf16: operands rounded, products exact, sums in f32.
//!
//! A number of bf16 is the upper half of an f32: 8 bits of significand, the same exponents. Each
//! operand is rounded to the nearest, ties to even, on its way to the multiplication, and
//! subnormal numbers to zero; x̂ = x·(1 + δ), |δ| ≤ 2⁻⁸.
//! The product of two such numbers fits an f32's significand, and sums over K are kept in f32:
//! |ĉ − c| ≤ (2·2⁻⁸ + 2⁻¹⁶ + K·2⁻²³)·Σ|aᵢ||bᵢ|. Tensors stay f32 on both sides, so weights need
//! no second copy.
//!
//! Which instructions multiply is chosen at run time, see [`Unit`]. Their sums over K run in
//! different orders, and the instructions take subnormal sums for zero.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod flush;
#[cfg(target_arch = "x86_64")]
mod pack;
mod portable;
pub mod split;
mod unit;

pub use unit::Unit;

use crate::error::{Error, Result};
use crate::product::{Start, View};
use candle_core::DType;
#[cfg(target_arch = "x86_64")]
use {
    crate::cpu::stays_here,
    blocks::Problem,
    pack::{LINES, Source},
    rayon::prelude::*,
    std::ops::Range,
};

/// Multiplications below which a second thread costs more than it brings.
#[cfg(target_arch = "x86_64")]
const SERIAL: usize = 1 << 20;

/// Numbers of a matrix from which on it goes past the caches, which it would not fit: 2 MiB.
#[cfg(target_arch = "x86_64")]
const STREAM: usize = 1 << 19;

/// An error if operands are not plain f32.
pub(crate) fn takes(op: &'static str, dtype: DType, tangents: usize) -> Result<()> {
    match (dtype, tangents) {
        (DType::F32, 0) => Ok(()),
        _ => Err(Error::Precision { op, dtype, tangents }),
    }
}

/// `x` rounded to bf16: to nearest, ties to even; subnormal numbers to zero, NaN to NaN.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    // Without branches, so that compilers make it a handful of vector instructions.
    let bits = x.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000;
    let rounded = if magnitude < 0x0080_0000 { bits & 0x8000_0000 } else { nearest };
    f32::from_bits(if magnitude > 0x7F80_0000 { bits | 0x0040_0000 } else { rounded })
}

/// C = start + factor · Â·B̂ for every matrix of the batch, x̂ as [`round`] gives it, with the
/// fastest instructions there are.
///
/// # Panics
/// If a view reaches outside its buffer or the sizes do not multiply.
pub fn multiply(
    c: (&mut [f32], View),
    start: Start<f32>,
    a: (&[f32], View),
    b: (&[f32], View),
    factor: f64,
) {
    multiply_with(Unit::best(), c, start, a, b, factor);
}

/// As [`multiply`], with instructions of one's choice.
///
/// # Panics
/// As [`multiply`], and if this processor lacks the instructions.
pub fn multiply_with(
    unit: Unit,
    (c, v): (&mut [f32], View),
    start: Start<f32>,
    (a, va): (&[f32], View),
    (b, vb): (&[f32], View),
    factor: f64,
) {
    assert!(Unit::available().contains(&unit), "this processor lacks {unit:?}");
    crate::product::check((c, v), start, (a, va), (b, vb));
    if unit == Unit::Portable {
        return portable::multiply((c, v), start, (a, va), (b, vb), factor);
    }
    #[cfg(target_arch = "x86_64")]
    tiled((unit, 1), (c, v), start, (a, va), (b, vb), factor as f32);
}

/// With a unit that works on tiles, on operands in so many parts. Operands were checked.
#[cfg(target_arch = "x86_64")]
fn tiled(
    (unit, parts): (Unit, usize),
    (c, v): (&mut [f32], View),
    start: Start<f32>,
    (a, va): (&[f32], View),
    (b, vb): (&[f32], View),
    factor: f32,
) {
    let first = Problem {
        a: Source::new(a.as_ptr(), va),
        b: Source::new(b.as_ptr(), vb.t()),
        c: c.as_mut_ptr(),
        row_stride: v.row_stride,
        col_stride: v.col_stride,
        start: match start {
            Start::Zero => blocks::Start::Zero,
            Start::Sum => blocks::Start::Sum,
            Start::Row(row) => blocks::Start::Row(row.as_ptr()),
        },
        factor,
        stream: v.rows * v.cols >= STREAM && !matches!(start, Start::Sum),
        parts,
    };
    let one = |i: usize, rows: Range<usize>, columns: Range<usize>| {
        let mut problem = first;
        // SAFETY: the views lie inside their buffers, matrices of different i do not overlap in
        // C, and `multiply_with` has found the unit available.
        unsafe {
            problem.a.start = first.a.start.add(va.start(i));
            problem.b.start = first.b.start.add(vb.start(i));
            problem.c = first.c.add(v.start(i));
            blocks::serial(unit, &problem, rows, columns);
        }
    };
    let batch = v.batch[0] * v.batch[1];
    if batch * v.rows * v.cols * va.cols < SERIAL || stays_here() {
        (0..batch).for_each(|i| one(i, 0..v.rows, 0..v.cols));
    } else if batch > 1 {
        (0..batch).into_par_iter().for_each(|i| one(i, 0..v.rows, 0..v.cols));
    } else {
        let grid = grid(rayon::current_num_threads(), [v.rows, v.cols]);
        let cut = |n: usize, group: usize, parts: usize, part: usize| {
            let step = n.div_ceil(parts).next_multiple_of(group * LINES);
            (part * step).min(n)..((part + 1) * step).min(n)
        };
        let [tall, wide] = blocks::group(unit);
        (0..grid[0] * grid[1]).into_par_iter().for_each(|i| {
            let rows = cut(v.rows, tall, grid[0], i / grid[1]);
            one(0, rows, cut(v.cols, wide, grid[1], i % grid[1]));
        });
    }
}

/// How many parts rows and columns are cut into for `threads`: of the cuts into as many, that
/// where a part's rows and columns, which it packs, are fewest.
#[cfg(target_arch = "x86_64")]
fn grid(threads: usize, [rows, columns]: [usize; 2]) -> [usize; 2] {
    let cost = |tall: usize| rows.div_ceil(tall) + columns.div_ceil(threads / tall);
    let cuts = (1..=threads.max(1)).filter(|tall| threads.is_multiple_of(*tall));
    let tall = cuts.min_by_key(|&tall| cost(tall)).unwrap_or(1);
    [tall, threads.max(1) / tall]
}

/// Runs the unit's micro-kernel `times` on one group of tiles, `depth` tiles of 32 deep, of
/// operands in one part or, on AMX, three, and returns how many operations of theirs that was:
/// with a small depth, what the unit does at most.
///
/// # Panics
/// If this processor lacks the unit's instructions. [`Unit::Portable`] has no micro-kernel: 0.
pub fn micro_kernel((unit, parts): (Unit, usize), depth: usize, times: usize) -> usize {
    assert!(Unit::available().contains(&unit), "this processor lacks {unit:?}");
    assert!(parts == 1 || parts == 3 && unit == Unit::Amx, "{parts} parts on {unit:?}");
    match unit {
        Unit::Portable => 0,
        // SAFETY: the unit is available.
        #[cfg(target_arch = "x86_64")]
        _ => unsafe { blocks::repeat(unit, parts, depth, times) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => 0,
    }
}
