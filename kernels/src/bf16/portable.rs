//! bf16 products without bf16 instructions: rounds the operands into buffers and multiplies them as
//! f32.

use super::round;
use crate::cpu::{run_serially, uninitialized};
use crate::product::{self, Start, View};
use crate::simd::Simd;
use rayon::prelude::*;

/// Count of numbers rounded by one thread.
const BLOCK: usize = 1 << 15;

/// C = start + factor · Â·B̂; operands were checked.
pub(super) fn multiply(
    c: (&mut [f32], View),
    start: Start<f32>,
    (a, va): (&[f32], View),
    (b, vb): (&[f32], View),
    factor: f64,
) {
    let ((a, va), (b, vb)) = (rounded(a, va), rounded(b, vb));
    product::multiply(c, start, (&a, va), (&b, vb), factor);
}

/// A rounded, contiguous copy of the viewed numbers, and a view of it. A transposed matrix stays
/// transposed. For a view of one head, only that head is copied.
fn rounded(x: &[f32], v: View) -> (Vec<f32>, View) {
    let transposed = v.row_stride < v.col_stride;
    let own = if transposed { v.t() } else { v };
    let (count, size) = (v.batch[0] * v.batch[1], v.rows * v.cols);
    let mut out = uninitialized(count * size);
    let compact = View::batched(v.batch[0], v.batch[1], own.rows, own.cols);
    let dense = |stride: usize, n: usize, size: usize| n == 1 || stride == size;
    if own.col_stride == 1
        && dense(own.row_stride, own.rows, own.cols)
        && dense(v.batch_strides[1], v.batch[1], size)
        && dense(v.batch_strides[0], v.batch[0], v.batch[1] * size)
    {
        let all = &x[v.offset.min(x.len())..][..count * size];
        if run_serially() || all.len() <= BLOCK {
            round_all(&mut out, all);
        } else {
            let blocks = out.par_chunks_mut(BLOCK).zip(all.par_chunks(BLOCK));
            blocks.for_each(|(out, all)| round_all(out, all));
        }
    } else if size > 0 {
        for (i, matrix) in out.chunks_exact_mut(size).enumerate() {
            for (r, row) in matrix.chunks_exact_mut(own.cols).enumerate() {
                let at = own.start(i) + r * own.row_stride;
                match own.col_stride {
                    1 => round_all(row, &x[at..at + own.cols]),
                    step => {
                        let numbers = row.iter_mut().enumerate();
                        numbers.for_each(|(c, y)| *y = round(x[at + c * step]));
                    }
                }
            }
        }
    }
    (out, if transposed { compact.t() } else { compact })
}

/// Rounds all numbers.
fn round_all(out: &mut [f32], x: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if Simd::best() == Simd::Avx512 {
        // SAFETY: the processor supports AVX-512.
        unsafe { round_all_avx512(out, x) };
        return;
    }
    plain(out, x);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
fn round_all_avx512(out: &mut [f32], x: &[f32]) {
    plain(out, x);
}

#[inline(always)]
fn plain(out: &mut [f32], x: &[f32]) {
    out.iter_mut().zip(x).for_each(|(y, x)| *y = round(*x));
}
