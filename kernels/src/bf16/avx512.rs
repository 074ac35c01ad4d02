//! AVX512-BF16 micro-kernel: eight rows by up to three registers of sums.

use super::blocks::Group;
use super::pack::Tile;
use std::arch::x86_64::*;

/// One tile of rows by `columns` tiles, 1 to 3.
///
/// # Safety
/// The contract of [`Group`]'s fields, and the processor has AVX512F and AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn multiply(columns: usize, group: &Group) {
    // SAFETY: the caller's contract.
    unsafe {
        for row in [0, 8] {
            match columns {
                1 => half::<1>(row, group),
                2 => half::<2>(row, group),
                _ => half::<3>(row, group),
            }
        }
    }
}

/// Rows `row..row + 8` of the tile: 8·C registers of sums, C registers of B, and one pair of A
/// broadcast to all lanes.
///
/// # Safety
/// As for [`multiply`].
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn half<const C: usize>(row: usize, g: &Group) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); C]; 8];
        for k in 0..g.depth {
            let a: &Tile = &*g.a.add(k);
            let b: [*const Tile; C] = std::array::from_fn(|j| g.b.add(j * g.step + k));
            for pair in 0..16 {
                let right: [__m512; C] =
                    std::array::from_fn(|j| _mm512_load_ps((*b[j]).0[pair].as_ptr().cast()));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = _mm512_set1_epi32(a.0[row + i][pair].cast_signed());
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = _mm512_dpbf16_ps(
                            *sum,
                            std::mem::transmute::<__m512i, __m512bh>(left),
                            std::mem::transmute::<__m512, __m512bh>(right),
                        );
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                let line = g.sums.byte_add((row + i) * g.stride);
                _mm512_storeu_ps(line.add(16 * j), sum);
            }
        }
    }
}
