//! Products of f32 matrices with bf16 operands: operands are rounded, products exact, sums f32.
//!
//! A bf16 number is the upper half of an f32: 8 bits of significand and the same exponent range.
//! Each operand is rounded to nearest, ties to even, and subnormal numbers to zero: x̂ = x·(1 + δ),
//! |δ| ≤ 2⁻⁸. The product of two such numbers fits the significand of an f32, and sums over K are
//! f32: |ĉ − c| ≤ (2·2⁻⁸ + 2⁻¹⁶ + K·2⁻²³)·Σ|aᵢ||bᵢ|. Tensors stay f32, so weights need no second
//! copy.
//!
//! The instructions are selected at run time; see [`Unit`]. They differ in the order of sums over
//! K, and they flush subnormal sums to zero.

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

use crate::product::{Start, View};
#[cfg(target_arch = "x86_64")]
use {
    crate::cpu::run_serially,
    blocks::Problem,
    pack::{LINES, Source},
    rayon::prelude::*,
    std::ops::Range,
};

/// Below this many multiplications a second thread costs more than it saves.
#[cfg(target_arch = "x86_64")]
const SERIAL: usize = 1 << 20;

/// Matrices of at least this many numbers (2 MiB) do not fit the caches and are written with
/// non-temporal stores.
#[cfg(target_arch = "x86_64")]
const STREAM: usize = 1 << 19;

/// `x` rounded to bf16: to nearest, ties to even. Subnormal numbers become zero, NaN stays NaN.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    // Free of branches, so that compilers vectorise it.
    let bits = x.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000;
    let rounded = if magnitude < 0x0080_0000 { bits & 0x8000_0000 } else { nearest };
    f32::from_bits(if magnitude > 0x7F80_0000 { bits | 0x0040_0000 } else { rounded })
}

/// C = start + factor · Â·B̂ for every matrix of the batch, where x̂ = [`round`]\(x), with the
/// fastest available instructions.
///
/// # Panics
/// If a view is outside its buffer or sizes do not match.
pub fn multiply(
    c: (&mut [f32], View),
    start: Start<f32>,
    a: (&[f32], View),
    b: (&[f32], View),
    factor: f64,
) {
    multiply_with(Unit::best(), c, start, a, b, factor);
}

/// Same as [`multiply`], with a given unit.
///
/// # Panics
/// As [`multiply`], and if this processor does not support the unit.
pub fn multiply_with(
    unit: Unit,
    (c, v): (&mut [f32], View),
    start: Start<f32>,
    (a, va): (&[f32], View),
    (b, vb): (&[f32], View),
    factor: f64,
) {
    assert!(Unit::available().contains(&unit), "this processor does not support {unit:?}");
    crate::product::check((c, v), start, (a, va), (b, vb));
    if unit == Unit::Portable {
        return portable::multiply((c, v), start, (a, va), (b, vb), factor);
    }
    #[cfg(target_arch = "x86_64")]
    tiled((unit, 1), (c, v), start, (a, va), (b, vb), factor as f32);
}

/// Product with a unit that uses tiles, on operands of `parts` parts. Operands were checked.
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
        // SAFETY: the views are inside their buffers, matrices of different i do not overlap in C,
        // and `multiply_with` checked that the unit is available.
        unsafe {
            problem.a.start = first.a.start.add(va.start(i));
            problem.b.start = first.b.start.add(vb.start(i));
            problem.c = first.c.add(v.start(i));
            blocks::serial(unit, &problem, rows, columns);
        }
    };
    let batch = v.batch[0] * v.batch[1];
    if batch * v.rows * v.cols * va.cols < SERIAL || run_serially() {
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

/// Number of parts along rows and columns for `threads` threads. Of all factorisations of
/// `threads`, the one with the fewest rows plus columns per part, which each thread has to pack.
#[cfg(target_arch = "x86_64")]
fn grid(threads: usize, [rows, columns]: [usize; 2]) -> [usize; 2] {
    let cost = |tall: usize| rows.div_ceil(tall) + columns.div_ceil(threads / tall);
    let cuts = (1..=threads.max(1)).filter(|tall| threads.is_multiple_of(*tall));
    let tall = cuts.min_by_key(|&tall| cost(tall)).unwrap_or(1);
    [tall, threads.max(1) / tall]
}

/// Runs the unit's micro-kernel `times` times on one group of tiles, `depth` tiles of 32 steps
/// deep, with operands of one part or (on AMX) three. Returns the number of operations. With a
/// small depth this measures the peak rate of the unit.
///
/// # Panics
/// If this processor does not support the unit. [`Unit::Portable`] has no micro-kernel and returns
/// 0.
pub fn micro_kernel((unit, parts): (Unit, usize), depth: usize, times: usize) -> usize {
    assert!(Unit::available().contains(&unit), "this processor does not support {unit:?}");
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
