//! Writes the sums of a strip to C.

use super::blocks::{Problem, Start};
use super::pack::Tile;
use std::arch::x86_64::*;
use std::ops::Range;

/// Numbers per row of a strip's buffer. Not a power of two, so that the rows of a tile fall into
/// different cache sets.
pub const WIDTH: usize = 512 + 16;

/// A few rows of C by the packed columns of B.
pub struct Strip {
    /// The sums, in rows of [`WIDTH`].
    pub sums: *mut f32,
    /// Number of rows.
    pub height: usize,
    width: usize,
    /// Position of the strip in C, and in the initial row.
    row: usize,
    column: usize,
}

impl Strip {
    /// A strip at `row` and `column` of C with the given buffer for its sums.
    pub fn new(row: usize, column: usize, [height, width]: [usize; 2], sums: &mut [Tile]) -> Self {
        assert!(size_of_val(sums) >= height * WIDTH * size_of::<f32>() && width <= WIDTH);
        Self { sums: sums.as_mut_ptr().cast(), height, width, row, column }
    }

    /// Writes some rows to C.
    ///
    /// # Safety
    /// The strip is inside C, no other thread uses this part of C, and the sums are complete.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn flush(&self, p: &Problem, rows: Range<usize>) {
        for i in rows {
            // SAFETY: row i of the strip and of C.
            unsafe {
                let sums = self.sums.add(i * WIDTH);
                let c = p.c.add((self.row + i) * p.row_stride + self.column * p.col_stride);
                let start = match p.start {
                    Start::Zero => std::ptr::null(),
                    Start::Sum => c.cast_const(),
                    Start::Row(row) => row.add(self.column),
                };
                if p.col_stride == 1 {
                    line(sums, start, c, self.width, p);
                } else {
                    let along = if matches!(p.start, Start::Sum) { p.col_stride } else { 1 };
                    for j in 0..self.width {
                        let from = if start.is_null() { 0.0 } else { *start.add(j * along) };
                        *c.add(j * p.col_stride) = p.factor.mul_add(*sums.add(j), from);
                    }
                }
            }
        }
    }
}

/// One contiguous row. Complete cache lines can be written with non-temporal stores, which avoid
/// reading the line first.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn line(sums: *const f32, start: *const f32, c: *mut f32, width: usize, p: &Problem) {
    let factor = _mm512_set1_ps(p.factor);
    // SAFETY (all three closures): `count` numbers from j on are inside the row.
    let value = |j: usize, mask: __mmask16| unsafe {
        let from = match start.is_null() {
            true => _mm512_setzero_ps(),
            false => _mm512_maskz_loadu_ps(mask, start.add(j)),
        };
        _mm512_fmadd_ps(factor, _mm512_loadu_ps(sums.add(j)), from)
    };
    let some = |j: usize, count: usize| unsafe {
        let mask = ((1u32 << count) - 1) as __mmask16;
        _mm512_mask_storeu_ps(c.add(j), mask, value(j, mask));
    };
    let mut j = 0;
    if p.stream {
        j = (c.align_offset(64)).min(width);
        some(0, j);
        while j + 16 <= width {
            unsafe { _mm512_stream_ps(c.add(j), value(j, !0)) };
            j += 16;
        }
    } else {
        while j + 16 <= width {
            unsafe { _mm512_storeu_ps(c.add(j), value(j, !0)) };
            j += 16;
        }
    }
    some(j, width - j);
}
