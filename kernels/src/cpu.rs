//! The CPU driver of row operations: rows over threads, columns over vector registers.
//!
//! Rows are cut into a fixed number of blocks, whatever the number of threads, and sums over rows
//! are added block by block in order: results do not depend on the threads, to the bit.

use crate::cuda::{Call, Launch};
use crate::error::{Error, Result};
use crate::lanes::Element;
use crate::parts::Scratch;
use crate::pass::{Target, dispatch, pass};
use crate::rows::{Row, RowMut};
use crate::scalar::{MAX_TANGENTS, Scalar};
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

    /// The launches that do the same on a GPU.
    ///
    /// # Errors
    /// [`Error::NoKernel`] unless there are some; sizes that no launch takes.
    fn launches(&self, op: &'static str, _: &Call<I, O>) -> Result<Vec<Launch>> {
        Err(Error::NoKernel { op })
    }

    /// A label for every row, where [`RowKernel::row`] reads labels.
    fn labels(&self) -> &[u32] {
        &[]
    }
}

/// Runs `kernel` over `rows` rows of one thread's memory, on this thread.
///
/// # Panics
/// If a buffer's rows do not come out even, or inputs have tangents that an output has no room
/// for: callers make them from checked shapes.
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
        Target { value, tangents, size, row: len, block: 0, len }
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
    let targets = std::array::from_fn(|o| {
        let plane = &mut planes[o];
        let tangents = plane.tangents.as_mut().map_or(std::ptr::null_mut(), |t| t.as_mut_ptr());
        let (row, block, len) = match outputs[o] {
            Output::PerRow(len) => (len, 0, len),
            Output::Summed(len) => (0, len, len),
        };
        Target {
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
            // A later pass over more tangents sums the values anew.
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
            dispatch(simd, kernel, &pass, count, b, range);
        };
        if work * (1 + count) < SERIAL || stays_here() {
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

/// Whether an operation stays on this thread: one of several at work on micro-batches of their own,
/// where splitting would only make threads wait for each other; or the only one there is, which would
/// hand each operation to a pool of one and sleep meanwhile, a third of a small model's time.
pub(crate) fn stays_here() -> bool {
    rayon::current_thread_index().is_some() || rayon::current_num_threads() == 1
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
