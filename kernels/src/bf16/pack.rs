//! Packing: rounds strided f32 matrices to bf16, or splits them into three bf16 parts, and lays
//! them out in tiles.
//!
//! A tile holds 16 rows (of A) or columns (of B) by 32 steps of the inner dimension: 1 KiB, one AMX
//! register. Steps are stored in pairs, because the instructions add two products at a time. Tiles
//! of A are \[row]\[pair], tiles of B are \[pair]\[column]. Elements beyond the matrix are 0.

use crate::product::View;
use std::arch::x86_64::*;
use std::mem::transmute;

/// Rows or columns per tile.
pub const LINES: usize = 16;
/// Steps of the inner dimension per tile.
pub const DEPTH: usize = 32;

/// Prefetch distance along a line, in numbers. Packing reads sixteen lines at a time, more than the
/// hardware prefetcher follows.
const PREFETCH_DISTANCE: usize = 4 * DEPTH;

/// One tile, as pairs of bf16.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile(pub [[u32; 16]; 16]);

/// A matrix to pack. Lines are rows of A or columns of B.
#[derive(Clone, Copy)]
pub struct Source {
    /// The first number.
    pub start: *const f32,
    /// Distance between lines.
    pub line_stride: usize,
    /// Distance between steps of the inner dimension.
    pub depth_stride: usize,
    /// Number of lines.
    pub lines: usize,
    /// Number of steps.
    pub depth: usize,
}

/// The operand that tiles are packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The left operand: \[line]\[pair].
    A,
    /// The right operand: \[pair]\[line].
    B,
}

impl Source {
    /// The first matrix of a view whose buffer starts at `buffer`. Lines are its rows.
    pub fn new(buffer: *const f32, view: View) -> Self {
        Self {
            start: buffer,
            line_stride: view.row_stride,
            depth_stride: view.col_stride,
            lines: view.rows,
            depth: view.cols,
        }
    }

    /// Number of tiles along the lines and along the depth; at least one along the depth.
    pub fn tiles(&self) -> [usize; 2] {
        [self.lines.div_ceil(LINES), self.depth.div_ceil(DEPTH).max(1)]
    }

    /// At most `lines` lines from `line` on and `depth` steps from `step` on.
    ///
    /// # Safety
    /// The start is inside the matrix.
    pub unsafe fn part(&self, line: usize, lines: usize, step: usize, depth: usize) -> Self {
        debug_assert!(line <= self.lines && step <= self.depth);
        Self {
            // SAFETY: the caller's contract.
            start: unsafe { self.start.add(line * self.line_stride + step * self.depth_stride) },
            lines: lines.min(self.lines - line),
            depth: depth.min(self.depth - step),
            ..*self
        }
    }
}

/// Packs `source` into `into`: for every 16 lines, the tiles along the depth, each in P parts x₀ =
/// bf16(x), x₁ = bf16(x − x₀), x₂ = bf16(x − x₀ − x₁).
///
/// # Safety
/// All numbers of `source` are readable, `into` has space for all tiles, and the processor has
/// AVX512F, AVX512BW and AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack<const P: usize>(source: &Source, side: Side, into: &mut [Tile]) {
    let [across, along] = source.tiles();
    assert!(into.len() >= across * along * P, "room for the tiles");
    let tile = |i: usize, k: usize, into: &mut [Tile]| {
        // SAFETY: tile (i, k) starts inside the source.
        unsafe {
            let part = source.part(i * LINES, LINES, k * DEPTH, DEPTH);
            pack_tile::<P>(&part, side, &mut into[(i * along + k) * P..][..P]);
        }
    };
    // Read memory in its own order.
    if source.depth_stride == 1 {
        (0..across).for_each(|i| (0..along).for_each(|k| tile(i, k, into)));
    } else {
        (0..along).for_each(|k| (0..across).for_each(|i| tile(i, k, into)));
    }
}

/// Packs one tile in P parts.
///
/// # Safety
/// As for [`pack`]; at most 16 lines and 32 steps.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_tile<const P: usize>(part: &Source, side: Side, into: &mut [Tile]) {
    // SAFETY: the caller's contract; the copy is complete and row-major.
    unsafe {
        let (parts, found) = if part.depth_stride == 1 {
            (along_depth(part), Side::A)
        } else if part.line_stride == 1 {
            (along_lines(part), Side::B)
        } else {
            let mut copy = [[0.0f32; DEPTH]; LINES];
            for (i, line) in copy.iter_mut().enumerate().take(part.lines) {
                for (k, x) in line.iter_mut().enumerate().take(part.depth) {
                    *x = *part.start.add(i * part.line_stride + k * part.depth_stride);
                }
            }
            let start = copy.as_ptr().cast();
            let copied = Source { start, line_stride: DEPTH, depth_stride: 1, ..*part };
            (along_depth(&copied), Side::A)
        };
        for (tile, registers) in into.iter_mut().zip::<[_; P]>(parts) {
            let registers = if found == side { registers } else { transpose(registers) };
            for (row, register) in tile.0.iter_mut().zip(registers) {
                _mm512_store_si512(row.as_mut_ptr().cast(), register);
            }
        }
    }
}

/// Mask of the first `count` of 16 lanes.
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

/// \[line]\[pair] of a matrix whose steps are contiguous.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along_depth<const P: usize>(part: &Source) -> [[__m512i; 16]; P] {
    let mut out = [[_mm512_setzero_si512(); 16]; P];
    let masks = [mask(part.depth), mask(part.depth.saturating_sub(16))];
    for i in 0..part.lines.min(LINES) {
        // SAFETY: the masks cover the existing steps.
        unsafe {
            let line = part.start.add(i * part.line_stride);
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(PREFETCH_DISTANCE).cast());
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(PREFETCH_DISTANCE + 16).cast());
            let low = _mm512_maskz_loadu_ps(masks[0], line);
            let high = _mm512_maskz_loadu_ps(masks[1], line.wrapping_add(16));
            for (out, words) in out.iter_mut().zip(to_bf16::<P>(high, low)) {
                out[i] = words;
            }
        }
    }
    out
}

/// \[pair]\[line] of a matrix whose lines are contiguous.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along_lines<const P: usize>(part: &Source) -> [[__m512i; 16]; P] {
    let mut out = [[_mm512_setzero_si512(); 16]; P];
    // Words 0, 16, 1, 17, …: puts the two steps of a line next to each other.
    let mut order = [0u16; 32];
    for (i, word) in order.iter_mut().enumerate() {
        *word = (i / 2 + i % 2 * 16) as u16;
    }
    let present = mask(part.lines);
    // SAFETY: the mask covers the existing lines; steps beyond the last are not read.
    unsafe {
        let order = _mm512_loadu_si512(order.as_ptr().cast());
        for p in 0..part.depth.div_ceil(2).min(16) {
            let step = |k: usize| {
                let read = if k < part.depth { present } else { 0 };
                _mm512_maskz_loadu_ps(read, part.start.wrapping_add(k * part.depth_stride))
            };
            let parts = to_bf16::<P>(step(2 * p + 1), step(2 * p));
            for (out, words) in out.iter_mut().zip(parts) {
                out[p] = _mm512_permutexvar_epi16(order, words);
            }
        }
    }
    out
}

/// Rounds 32 numbers to nearest even, `low` first. Then rounds the remainder, and so on for P
/// parts. Remainders are representable in f32, so the differences are exact.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn to_bf16<const P: usize>(mut high: __m512, mut low: __m512) -> [__m512i; P] {
    let mut out = [_mm512_setzero_si512(); P];
    for (i, words) in out.iter_mut().enumerate() {
        // SAFETY: both are 512 bits of plain data.
        *words = unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) };
        if i + 1 < P {
            low = _mm512_sub_ps(low, wide(_mm512_castsi512_si256(*words)));
            high = _mm512_sub_ps(high, wide(_mm512_extracti64x4_epi64::<1>(*words)));
        }
    }
    out
}

/// Widens 16 bf16 numbers to f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn wide(words: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)))
}

/// Transposes a 16 × 16 matrix of 32-bit words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = r;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    // quads[4i + c] holds column 4·lane + c of rows 4i..4i+4 in each 128-bit lane.
    let mut quads = pairs;
    for i in 0..4 {
        let p = 4 * i;
        quads[p] = _mm512_unpacklo_epi64(pairs[p], pairs[p + 2]);
        quads[p + 1] = _mm512_unpackhi_epi64(pairs[p], pairs[p + 2]);
        quads[p + 2] = _mm512_unpacklo_epi64(pairs[p + 1], pairs[p + 3]);
        quads[p + 3] = _mm512_unpackhi_epi64(pairs[p + 1], pairs[p + 3]);
    }
    let mut out = quads;
    for c in 0..4 {
        let [a, b, d, e] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
        let even = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(d, e)];
        let odd = [_mm512_shuffle_i32x4::<0xDD>(a, b), _mm512_shuffle_i32x4::<0xDD>(d, e)];
        out[c] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        out[8 + c] = _mm512_shuffle_i32x4::<0xDD>(even[0], even[1]);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        out[12 + c] = _mm512_shuffle_i32x4::<0xDD>(odd[0], odd[1]);
    }
    out
}
