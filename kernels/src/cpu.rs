//! CPU driver of row operations: rows are distributed over threads, columns over vector registers.
//!
//! Rows are divided into a fixed number of blocks, independent of the number of threads, and sums
//! over rows add the blocks in order. So results have the same bits for any number of threads.

use crate::cuda::{Call, Launch};
use crate::error::{Error, Result};
use crate::lanes::Element;
use crate::parts::Scratch;
use crate::pass::{OutputPlanes, Pass, dispatch, pass};
use crate::rows::{Row, RowMut};
use crate::scalar::{MAX_TANGENTS, Scalar};
use crate::simd::Simd;
use rayon::prelude::*;
use std::ops::Range;

/// Number of blocks that rows are divided into; at least the usual number of cores.
const BLOCKS: usize = 64;
/// Below this many numbers a second thread costs more than it saves.
const SERIAL: usize = 1 << 14;

/// An input of a row operation: `rows` rows of `len` numbers, or one row shared by all rows.
#[derive(Clone, Copy)]
pub struct Input<'a, E> {
    /// The value, row-major.
    pub value: &'a [E],
    /// K tangents, each as long as the value. An absent tangent is zero.
    pub tangents: Option<&'a [E]>,
    /// Number of columns.
    pub len: usize,
    /// Whether one row is used for every row, as for a parameter.
    pub shared: bool,
}

/// An output of a row operation.
#[derive(Clone, Copy)]
pub enum Output {
    /// One row of this many numbers per input row. The kernel writes all of it.
    PerRow(usize),
    /// One row of this many numbers, summed over rows. The kernel adds to it.
    Summed(usize),
}

/// A value with its K tangents.
pub struct Planes<E> {
    /// The value, row-major.
    pub value: Vec<E>,
    /// K tangents, one after the other. `None` if no input has tangents.
    pub tangents: Option<Vec<E>>,
}

/// Computes one row of an operation, over a generic scalar. Implementations are marked
/// `#[inline(always)]`, because the vector intrinsics compile to instructions only inside the
/// driver.
pub trait RowKernel<const I: usize, const O: usize>: Sync {
    /// Computes row `r`.
    fn row<S: Scalar>(&self, r: usize, inputs: [Row<S>; I], outputs: [RowMut<S>; O]);

    /// The kernel launches that compute the same on a GPU.
    ///
    /// # Errors
    /// [`Error::NoKernel`] by default; sizes that exceed the limits of a launch.
    fn launches(&self, op: &'static str, _: &Call<I, O>) -> Result<Vec<Launch>> {
        Err(Error::NoKernel { op })
    }

    /// The label of each row, if [`RowKernel::row`] uses labels.
    fn labels(&self) -> &[u32] {
        &[]
    }
}

/// Runs `kernel` over `rows` rows of thread-local memory, on this thread.
///
/// # Panics
/// If a buffer does not hold `rows` equal rows, or an output has no space for the tangents of the
/// inputs. Callers derive both from checked shapes.
pub fn run_into<E: Element, N: RowKernel<I, O>, const I: usize, const O: usize>(
    kernel: &N,
    rows: usize,
    inputs: [&Scratch<E>; I],
    outputs: [&mut Scratch<E>; O],
) {
    let planes = |x: &Scratch<E>| x.tangents.len() / x.value.len().max(1);
    let tangents = inputs.iter().map(|x| planes(x)).max().unwrap_or(0);
    let inputs = inputs.map(|x| {
        assert!(x.value.len() % rows.max(1) == 0, "whole rows");
        assert!(matches!(planes(x), 0) || planes(x) == tangents, "tangents");
        let len = x.value.len() / rows.max(1);
        let tangents = (!x.tangents.is_empty()).then_some(&x.tangents[..]);
        Input { value: &x.value[..], tangents, len, shared: false }
    });
    let targets = outputs.map(|x| {
        assert!(x.value.len() % rows.max(1) == 0 && planes(x) == tangents, "room for tangents");
        let (size, len) = (x.value.len(), x.value.len() / rows.max(1));
        let (value, tangents) = (x.value.as_mut_ptr(), x.tangents.as_mut_ptr());
        OutputPlanes { value, tangents, size, row: len, block: 0, len }
    });
    let mut first = 0;
    loop {
        let count = (tangents - first).min(MAX_TANGENTS);
        let pass = pass(&inputs, &targets, first, count, rows);
        dispatch(Simd::best(), kernel, &pass, count, 0, 0..rows);
        first += count;
        if first >= tangents {
            break;
        }
    }
}

/// Runs `kernel` over `rows` rows with the given instruction set.
///
/// # Panics
/// If an input does not have `rows` (or one) × `len` numbers, or inputs have different numbers of
/// tangents. Callers derive both from checked shapes.
pub fn run_with<E: Element, N: RowKernel<I, O>, const I: usize, const O: usize>(
    simd: Simd,
    kernel: &N,
    rows: usize,
    inputs: [Input<E>; I],
    outputs: [Output; O],
) -> [Planes<E>; O] {
    assert!(simd <= Simd::best(), "this processor does not support {simd:?}");
    run_blocks(rows, inputs, outputs, &|pass, tangents, block, range| {
        dispatch(simd, kernel, pass, tangents, block, range);
    })
}

/// Runs one block of a pass: the pass, its number of tangents, index of the block, rows.
type RunBlock<'a, E, const I: usize, const O: usize> =
    dyn Fn(&Pass<E, I, O>, usize, usize, Range<usize>) + Sync + 'a;

/// The part of [`run_with`] that does not depend on the type of the kernel. It is compiled once per
/// number of inputs and outputs instead of once per kernel.
fn run_blocks<E: Element, const I: usize, const O: usize>(
    rows: usize,
    inputs: [Input<E>; I],
    outputs: [Output; O],
    run_block: &RunBlock<E, I, O>,
) -> [Planes<E>; O] {
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
            value: uninitialized(rows * len),
            tangents: (tangents > 0).then(|| uninitialized(tangents * rows * len)),
        },
        Output::Summed(len) => Planes {
            value: vec![E::default(); blocks * len],
            tangents: (tangents > 0).then(|| vec![E::default(); tangents * blocks * len]),
        },
    });
    let work = inputs.iter().map(|x| x.len).max().unwrap_or(0) * rows;
    let targets = std::array::from_fn(|o| {
        let plane = &mut planes[o];
        let tangents = plane.tangents.as_mut().map_or(std::ptr::null_mut(), |t| t.as_mut_ptr());
        let (row, block, len) = match outputs[o] {
            Output::PerRow(len) => (len, 0, len),
            Output::Summed(len) => (0, len, len),
        };
        OutputPlanes {
            value: plane.value.as_mut_ptr(),
            tangents,
            size: plane.value.len(),
            row,
            block,
            len,
        }
    });
    let mut first = 0;
    loop {
        let count = (tangents - first).min(MAX_TANGENTS);
        if first > 0 {
            // Each pass over further tangents sums the values again.
            let summed = outputs.iter().map(|o| matches!(o, Output::Summed(_)));
            planes
                .iter_mut()
                .zip(summed)
                .filter(|p| p.1)
                .for_each(|p| p.0.value.fill(E::default()));
        }
        let pass = pass(&inputs, &targets, first, count, rows);
        let one = |b: usize| {
            let range = b * rows / blocks..(b + 1) * rows / blocks;
            run_block(&pass, count, b, range);
        };
        if work * (1 + count) < SERIAL || run_serially() {
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

/// Runs `kernel` with the widest available instructions.
pub fn run<E: Element, N: RowKernel<I, O>, const I: usize, const O: usize>(
    kernel: &N,
    rows: usize,
    inputs: [Input<E>; I],
    outputs: [Output; O],
) -> [Planes<E>; O] {
    run_with(Simd::best(), kernel, rows, inputs, outputs)
}

/// Whether an operation should run on the current thread only.
///
/// True on a pool thread: it is one of several that process different micro-batches, and splitting
/// would only make threads wait for each other. Also true if the pool has one thread: handing every
/// operation to it and sleeping meanwhile takes a third of a small model's time.
pub(crate) fn run_serially() -> bool {
    rayon::current_thread_index().is_some() || rayon::current_num_threads() == 1
}

/// Memory that a kernel will overwrite completely. NaN in debug builds, so that missing writes
/// show.
pub(crate) fn uninitialized<E: Element>(len: usize) -> Vec<E> {
    if cfg!(debug_assertions) {
        return vec![E::narrow(f64::NAN); len];
    }
    let mut v = Vec::with_capacity(len);
    // SAFETY: elements are plain numbers, and each is written before it is read. That is the
    // contract of `Output::PerRow`; debug builds check it.
    #[allow(clippy::uninit_vec)]
    unsafe {
        v.set_len(len);
    }
    v
}

/// Adds `blocks` partial sums of `len` numbers, for the value and each tangent.
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
