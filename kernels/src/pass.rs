//! One pass of a row kernel over a block of rows. Converts raw pointers to rows of vector
//! registers.

use crate::cpu::{Input, RowKernel};
use crate::lanes::{Element, Lane};
use crate::rows::{Row, RowMut};
use crate::scalar::{Dual, MAX_TANGENTS, Scalar};
use crate::simd::Simd;

/// Pointers of one pass. `block` computes the addresses of rows.
pub(crate) struct Pass<E, const I: usize, const O: usize> {
    inputs: [(*const E, [*const E; MAX_TANGENTS], usize, usize); I],
    outputs: [(*mut E, [*mut E; MAX_TANGENTS], usize, usize, usize); O],
    rows: usize,
}
// SAFETY: blocks only read shared memory, and write disjoint rows or their own partial sums.
unsafe impl<E: Element, const I: usize, const O: usize> Sync for Pass<E, I, O> {}

/// Memory of an output: the value, tangents of `size` numbers each one after the other, and the
/// strides between rows and between blocks.
#[derive(Clone, Copy)]
pub(crate) struct OutputPlanes<E> {
    pub value: *mut E,
    pub tangents: *mut E,
    pub size: usize,
    pub row: usize,
    pub block: usize,
    pub len: usize,
}

/// The pass for tangents `first..first + count`.
pub(crate) fn pass<E: Element, const I: usize, const O: usize>(
    inputs: &[Input<E>; I],
    targets: &[OutputPlanes<E>; O],
    first: usize,
    count: usize,
    rows: usize,
) -> Pass<E, I, O> {
    Pass {
        inputs: inputs.map(|x| {
            let mut t = [std::ptr::null(); MAX_TANGENTS];
            if let Some(all) = x.tangents {
                for (k, slot) in t.iter_mut().enumerate().take(count) {
                    *slot = all[(first + k) * x.value.len()..].as_ptr();
                }
            }
            (x.value.as_ptr(), t, if x.shared { 0 } else { x.len }, x.len)
        }),
        outputs: std::array::from_fn(|o| {
            let OutputPlanes { value, tangents, size, row, block, len } = targets[o];
            let mut t = [std::ptr::null_mut(); MAX_TANGENTS];
            for (k, slot) in t.iter_mut().enumerate().take(count) {
                *slot = tangents.wrapping_add((first + k) * size);
            }
            (value, t, row, block, len)
        }),
        rows,
    }
}

/// Runs block `b` of a pass with the given instruction set, which the processor must support.
pub(crate) fn dispatch<E: Element, N: RowKernel<I, O>, const I: usize, const O: usize>(
    simd: Simd,
    kernel: &N,
    pass: &Pass<E, I, O>,
    tangents: usize,
    b: usize,
    rows: std::ops::Range<usize>,
) {
    #[cfg(not(target_arch = "x86_64"))]
    let simd = {
        let _ = simd;
        Simd::Plain
    };
    // SAFETY: `run_with` checked that the processor supports this level.
    unsafe {
        match (simd, tangents) {
            (Simd::Plain, 0) => block::<Dual<E, 0>, _, I, O>(kernel, pass, b, rows),
            (Simd::Plain, 1) => block::<Dual<E, 1>, _, I, O>(kernel, pass, b, rows),
            (Simd::Plain, _) => block::<Dual<E, 2>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx512, 0) if E::HAS_AVX512 => {
                block_avx512::<Dual<E::Avx512, 0>, _, I, O>(kernel, pass, b, rows);
            }
            (_, 0) => block_avx2::<Dual<E::Avx2, 0>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx512, 1) if E::HAS_AVX512 => {
                block_avx512::<Dual<E::Avx512, 1>, _, I, O>(kernel, pass, b, rows);
            }
            (_, 1) => block_avx2::<Dual<E::Avx2, 1>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx512, _) if E::HAS_AVX512 => {
                block_avx512::<Dual<E::Avx512, 2>, _, I, O>(kernel, pass, b, rows);
            }
            (_, _) => block_avx2::<Dual<E::Avx2, 2>, _, I, O>(kernel, pass, b, rows),
        }
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw"))]
unsafe fn block_avx512<S: Scalar, N: RowKernel<I, O>, const I: usize, const O: usize>(
    kernel: &N,
    pass: &Pass<<S::Lane as Lane>::Element, I, O>,
    b: usize,
    rows: std::ops::Range<usize>,
) {
    // SAFETY: the caller's contract.
    unsafe { block::<S, N, I, O>(kernel, pass, b, rows) }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn block_avx2<S: Scalar, N: RowKernel<I, O>, const I: usize, const O: usize>(
    kernel: &N,
    pass: &Pass<<S::Lane as Lane>::Element, I, O>,
    b: usize,
    rows: std::ops::Range<usize>,
) {
    // SAFETY: the caller's contract.
    unsafe { block::<S, N, I, O>(kernel, pass, b, rows) }
}

/// One block of rows.
///
/// # Safety
/// `pass` describes live memory of `pass.rows` rows, `rows` is within that range, no other call
/// uses this block, and the processor supports the instructions of `S`.
#[inline(always)]
unsafe fn block<S: Scalar, N: RowKernel<I, O>, const I: usize, const O: usize>(
    kernel: &N,
    pass: &Pass<<S::Lane as Lane>::Element, I, O>,
    b: usize,
    rows: std::ops::Range<usize>,
) {
    debug_assert!(rows.end <= pass.rows);
    for r in rows {
        let inputs = pass.inputs.map(|(value, tangents, stride, len)| {
            // SAFETY: row r is inside the value and each tangent, or the single row is shared
            // (stride 0).
            unsafe {
                Row {
                    value: value.add(r * stride),
                    tangents: tangents.map(|t| if t.is_null() { t } else { t.add(r * stride) }),
                    len,
                }
            }
        });
        let outputs = pass.outputs.map(|(value, tangents, stride, per_block, len)| {
            let offset = r * stride + b * per_block;
            // SAFETY: row r of an output, or the partial sum of block b.
            unsafe {
                RowMut {
                    value: value.add(offset),
                    tangents: tangents.map(|t| if t.is_null() { t } else { t.add(offset) }),
                    len,
                }
            }
        });
        kernel.row::<S>(r, inputs, outputs);
    }
}
