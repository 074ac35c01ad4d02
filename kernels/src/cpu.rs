//! The CPU driver of row operations: rows over threads, columns over vector registers.
//!
//! Rows are cut into a fixed number of blocks, whatever the number of threads, and sums over rows
//! are added block by block in order: results do not depend on the threads, to the bit.

use crate::lanes::{Element, Lane};
use crate::rows::{Row, RowMut};
use crate::scalar::{Dual, MAX_TANGENTS, Scalar};
use crate::simd::Simd;
use rayon::prelude::*;

/// Into how many blocks rows are cut; a multiple of any usual number of cores.
const BLOCKS: usize = 64;
/// Below this many numbers a second thread costs more than it brings.
const SERIAL: usize = 1 << 14;

/// What a row operation reads: `rows` rows of `len` numbers, or one row that serves them all.
#[derive(Clone, Copy)]
pub struct Input<'a, E> {
    /// The value plane.
    pub value: &'a [E],
    /// K tangent planes, each as long as the value plane; absent tangents are zero.
    pub tangents: Option<&'a [E]>,
    /// Columns.
    pub len: usize,
    /// Whether one row is read for every row (a parameter such as a norm's weight).
    pub shared: bool,
}

/// What a row operation writes.
#[derive(Clone, Copy)]
pub enum Output {
    /// A row of this many numbers for each row; the kernel writes all of it.
    PerRow(usize),
    /// One row of this many numbers, summed over rows; the kernel adds to it.
    Summed(usize),
}

/// A value plane with its K tangent planes.
pub struct Planes<E> {
    /// The value plane.
    pub value: Vec<E>,
    /// K tangent planes one after the other, if any input had tangents.
    pub tangents: Option<Vec<E>>,
}

/// One row of an operation, written over a generic scalar. Implementations are marked
/// `#[inline(always)]`: only inside the driver do registers become instructions.
pub trait RowKernel<const I: usize, const O: usize>: Sync {
    /// Computes row `r`.
    fn row<S: Scalar>(&self, r: usize, inputs: [Row<S>; I], outputs: [RowMut<S>; O]);
}

/// Pointers of one pass; row and plane arithmetic happens in [`block`].
struct Pass<E, const I: usize, const O: usize> {
    inputs: [(*const E, [*const E; MAX_TANGENTS], usize, usize); I],
    outputs: [(*mut E, [*mut E; MAX_TANGENTS], usize, usize, usize); O],
    rows: usize,
}
// SAFETY: blocks read shared memory and write disjoint rows or their own partial sums.
unsafe impl<E: Element, const I: usize, const O: usize> Sync for Pass<E, I, O> {}

/// Runs `kernel` over `rows` rows with the given instructions.
///
/// # Panics
/// If an input's planes are not `rows` (or one) by `len`, or tangents differ in number:
/// callers build both from checked shapes.
pub fn run_with<E: Element, N: RowKernel<I, O>, const I: usize, const O: usize>(
    simd: Simd,
    kernel: &N,
    rows: usize,
    inputs: [Input<E>; I],
    outputs: [Output; O],
) -> [Planes<E>; O] {
    assert!(simd <= Simd::best(), "this processor lacks {simd:?}");
    let mut tangents = 0;
    for x in &inputs {
        assert_eq!(x.value.len(), if x.shared { x.len } else { rows * x.len }, "plane size");
        if let (Some(t), true) = (x.tangents, !x.value.is_empty()) {
            let k = t.len() / x.value.len();
            assert!(t.len() == k * x.value.len() && (tangents == 0 || tangents == k), "tangents");
            tangents = k;
        }
    }
    let blocks = rows.clamp(1, BLOCKS);
    let mut planes = outputs.map(|out| match out {
        Output::PerRow(len) => Planes {
            value: blank(rows * len),
            tangents: (tangents > 0).then(|| blank(tangents * rows * len)),
        },
        Output::Summed(len) => Planes {
            value: vec![E::default(); blocks * len],
            tangents: (tangents > 0).then(|| vec![E::default(); tangents * blocks * len]),
        },
    });
    let work = inputs.iter().map(|x| x.len).max().unwrap_or(0) * rows;
    let mut first = 0;
    loop {
        let count = (tangents - first).min(MAX_TANGENTS);
        let pass = Pass {
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
                let plane = &mut planes[o];
                let size = plane.value.len();
                let mut t = [std::ptr::null_mut(); MAX_TANGENTS];
                if let Some(all) = &mut plane.tangents {
                    for (k, slot) in t.iter_mut().enumerate().take(count) {
                        *slot = all[(first + k) * size..].as_mut_ptr();
                    }
                }
                match outputs[o] {
                    Output::PerRow(len) => (plane.value.as_mut_ptr(), t, len, 0, len),
                    Output::Summed(len) => {
                        // A later pass over more tangents sums the values anew.
                        plane.value.fill(E::default());
                        (plane.value.as_mut_ptr(), t, 0, len, len)
                    }
                }
            }),
            rows,
        };
        let one = |b: usize| {
            let range = b * rows / blocks..(b + 1) * rows / blocks;
            dispatch(simd, kernel, &pass, count, b, range);
        };
        if work * (1 + count) < SERIAL || on_worker() {
            (0..blocks).for_each(one);
        } else {
            (0..blocks).into_par_iter().for_each(one);
        }
        first += count;
        if first >= tangents {
            break;
        }
    }
    for (plane, out) in planes.iter_mut().zip(outputs) {
        if let Output::Summed(len) = out {
            plane.value = add_blocks(&plane.value, len, blocks);
            plane.tangents = plane.tangents.take().map(|t| add_blocks(&t, len, blocks));
        }
    }
    planes
}

/// Runs `kernel` with the widest instructions there are.
pub fn run<E: Element, N: RowKernel<I, O>, const I: usize, const O: usize>(
    kernel: &N,
    rows: usize,
    inputs: [Input<E>; I],
    outputs: [Output; O],
) -> [Planes<E>; O] {
    run_with(Simd::best(), kernel, rows, inputs, outputs)
}

/// Whether this is already one of several threads at work on micro-batches of their own: then
/// splitting an operation would only make threads wait for each other.
pub(crate) fn on_worker() -> bool {
    rayon::current_thread_index().is_some()
}

/// Memory that a kernel will write in full; NaN in debug builds, so that a gap shows.
pub(crate) fn blank<E: Element>(len: usize) -> Vec<E> {
    if cfg!(debug_assertions) {
        return vec![E::narrow(f64::NAN); len];
    }
    let mut v = Vec::with_capacity(len);
    // SAFETY: elements are plain numbers, and every one is written before it is read
    // (the contract of `Output::PerRow`, which debug builds check).
    #[allow(clippy::uninit_vec)]
    unsafe {
        v.set_len(len);
    }
    v
}

/// Adds `blocks` partial sums of `len` numbers, for each plane.
fn add_blocks<E: Element>(partial: &[E], len: usize, blocks: usize) -> Vec<E> {
    if len == 0 {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(partial.len() / blocks);
    for plane in partial.chunks(len * blocks) {
        let start = out.len();
        out.extend_from_slice(&plane[..len]);
        for block in plane[len..].chunks(len) {
            for (sum, &x) in out[start..].iter_mut().zip(block) {
                *sum += x;
            }
        }
    }
    out
}

fn dispatch<E: Element, N: RowKernel<I, O>, const I: usize, const O: usize>(
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
    // SAFETY: `run_with` has checked that the processor has this level.
    unsafe {
        match (simd, tangents) {
            (Simd::Plain, 0) => block::<Dual<E, 0>, _, I, O>(kernel, pass, b, rows),
            (Simd::Plain, 1) => block::<Dual<E, 1>, _, I, O>(kernel, pass, b, rows),
            (Simd::Plain, _) => block::<Dual<E, 2>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx2, 0) => block_avx2::<Dual<E::Half, 0>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx2, 1) => block_avx2::<Dual<E::Half, 1>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx2, _) => block_avx2::<Dual<E::Half, 2>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx512, 0) => block_avx512::<Dual<E::Wide, 0>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx512, 1) => block_avx512::<Dual<E::Wide, 1>, _, I, O>(kernel, pass, b, rows),
            (Simd::Avx512, _) => block_avx512::<Dual<E::Wide, 2>, _, I, O>(kernel, pass, b, rows),
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
    // SAFETY: as the caller's.
    unsafe { block::<S, N, I, O>(kernel, pass, b, rows) }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn block_avx2<S: Scalar, N: RowKernel<I, O>, const I: usize, const O: usize>(
    kernel: &N,
    pass: &Pass<<S::Lane as Lane>::Element, I, O>,
    b: usize,
    rows: std::ops::Range<usize>,
) {
    // SAFETY: as the caller's.
    unsafe { block::<S, N, I, O>(kernel, pass, b, rows) }
}

/// One block of rows.
///
/// # Safety
/// `pass` describes live planes of `pass.rows` rows, `rows` lies within them, no other call
/// shares the block, and the processor has the instructions of `S`'s register.
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
            // SAFETY: row r is inside each plane, or the one row is shared (stride 0).
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
            // SAFETY: row r of an output, or block b's own partial sum.
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
