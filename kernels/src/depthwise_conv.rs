//! Depthwise convolution of a grid of tokens, stride 1.
//!
//! It is bilinear in x and w, so tangents follow from the product rule, as for matrix products: ẏₖ =
//! conv(ẋₖ, w) + conv(x, ẇₖ). An absent tangent takes no time.
//!
//! On the CPU, 16 neighbouring channels are computed at a time. A task has some such groups of one
//! image. It copies them from the rows of x to a grid with the columns of a group next to each
//! other, and zeros on the left and right. There, all reads are contiguous, and no inner loop tests
//! for borders. A task reads whole rows of x in order, as far as its groups reach, because reading
//! a single group from each token is slow. Every number has one fixed order of sums, so results
//! have the same bits for any number of threads and of groups in a task.

use crate::cpu::{Output, run_serially, uninitialized};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::dual_tensor::{DualTensor, common_dtype};
use crate::error::{Error, Result};
use crate::lanes::{Element, Lane};
use crate::op::{Op, SaveSet, Saved, rows_of, run_rows, same_tangents};
use crate::parts::HostDual;
use crate::pointwise::SumRows;
use crate::registry::Sample;
use crate::rows::prefetch;
use crate::simd::Simd;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// y = conv(x, w) + b, each channel with its own filter: PyTorch's `conv2d` with as many groups as
/// channels. x: (B, H·W, C), tokens in row-major order; w: (C, 1, kh, kw); b: (C) or absent; y: (B,
/// H'·W', C) with H' = H + 2 ph − kh + 1 and W' = W + 2 pw − kw + 1.
///
/// y[i, j] = b + Σ w[u, v] x[i + u − ph, j + v − pw] per image and channel, where x is 0 outside
/// the grid. So this is a cross-correlation, as in all deep learning libraries. ConvNeXt uses it
/// with 7 × 7 filters (Liu et al., CVPR 2022, §2.5).
///
/// VJP: gx[i, j] = Σ w[u, v] gy[i − u + ph, j − v + pw], a correlation with the filter turned by
/// 180°; gw[u, v] = Σ gy[i, j] x[i + u − ph, j + v − pw] over images and tokens; gb = Σ gy.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseConv {
    /// H and W, rows and columns of the grid of tokens.
    pub grid: [usize; 2],
    /// kh and kw, height and width of a filter.
    pub kernel: [usize; 2],
    /// ph and pw, rows and columns of zeros on each side of the grid.
    pub padding: [usize; 2],
}

/// Sizes of a correlation to[i, j] = Σ w[u, v] from[i + u − top, j + v − left].
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// B.
    pub images: usize,
    /// C.
    pub channels: usize,
    /// Rows and columns of the input.
    pub from: [usize; 2],
    /// Rows and columns of the output.
    pub to: [usize; 2],
    /// kh, kw.
    pub kernel: [usize; 2],
    /// top, left. Negative if rows or columns of the input are left out.
    pub padding: [isize; 2],
}

impl Sizes {
    /// Sizes of the correlation that computes gx from gy.
    pub fn adjoint(&self) -> Self {
        let [top, left] = [0, 1].map(|d| self.kernel[d] as isize - 1 - self.padding[d]);
        Self { from: self.to, to: self.from, padding: [top, left], ..*self }
    }

    /// Rows i of `to` that filter row `u` connects with a row of `from`.
    fn rows(&self, u: usize) -> Range<usize> {
        let shift = u as isize - self.padding[0];
        let end = (self.from[0] as isize - shift).clamp(0, self.to[0] as isize) as usize;
        ((-shift).max(0) as usize).min(end)..end
    }

    /// Filter rows u that reach a row of `from` from row `i` of `to`.
    fn filter_rows(&self, i: usize) -> Range<usize> {
        let shift = i as isize - self.padding[0];
        let end = (self.from[0] as isize - shift).clamp(0, self.kernel[0] as isize) as usize;
        ((-shift).max(0) as usize).min(end)..end
    }

    /// Row of `from` that row `i` of `to` reads for filter row `u`.
    fn row(&self, i: usize, u: usize) -> usize {
        (i as isize + u as isize - self.padding[0]) as usize
    }

    /// Columns of an input row with its zeros.
    fn padded(&self) -> usize {
        self.to[1] + self.kernel[1] - 1
    }

    fn area(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Count of numbers of w.
    pub fn filter_numbers(&self) -> usize {
        self.channels * self.area()
    }

    /// Count of numbers of an image of the input.
    pub(crate) fn image_of_input(&self) -> usize {
        self.from[0] * self.from[1] * self.channels
    }

    /// Count of numbers of an image of the output.
    pub(crate) fn image_of_output(&self) -> usize {
        self.to[0] * self.to[1] * self.channels
    }

    /// Number of groups of [`GROUP`] channels.
    fn groups(&self) -> usize {
        self.channels.div_ceil(GROUP)
    }
}

/// Channels of a task: a cache line of f32, and a register with AVX-512.
const GROUP: usize = 16;

/// The channels of a group at one token or one place of a filter.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Pixel<E>([E; GROUP]);

impl<E: Element> Pixel<E> {
    fn zeros(count: usize) -> Vec<Self> {
        vec![Pixel([E::default(); GROUP]); count]
    }
}

/// A register of channels, from `lane` on.
///
/// # Safety
/// The processor supports the instructions of L, and `lane` + `L::COUNT` ≤ [`GROUP`].
#[inline(always)]
unsafe fn load<L: Lane>(pixel: &Pixel<L::Element>, lane: usize) -> L {
    // SAFETY: the caller's contract.
    unsafe { L::load(pixel.0.as_ptr().add(lane)) }
}

/// Filters (C, kh·kw), or turned by 180°, as pixels: (groups, kh·kw).
fn filters<E: Element>(w: &[E], sizes: &Sizes, turned: bool) -> Vec<Pixel<E>> {
    let area = sizes.area();
    let mut pixels = Pixel::zeros(sizes.groups() * area);
    for (group, filters) in pixels.chunks_exact_mut(area).zip(w.chunks(area * GROUP)) {
        for (c, filter) in filters.chunks_exact(area).enumerate() {
            match turned {
                false => group.iter_mut().zip(filter).for_each(|(pixel, &x)| pixel.0[c] = x),
                true => group.iter_mut().zip(filter.iter().rev()).for_each(|(p, &x)| p.0[c] = x),
            }
        }
    }
    pixels
}

/// Some neighbouring groups of channels.
#[derive(Clone, Copy)]
struct Groups {
    /// The first group.
    first: usize,
    /// Their number.
    count: usize,
}

/// Bytes of the rows that a task works on at a time: a part of a core's second cache.
const WINDOW: usize = 1 << 18;

impl Groups {
    /// Groups of a task, if the rows that it works on have `pixels` pixels a group: as many as fit
    /// the cache, but not so many that threads have nothing to do.
    fn per_task<E>(s: &Sizes, pixels: usize, parts: usize) -> usize {
        let fitting = WINDOW / (pixels * size_of::<Pixel<E>>()).max(1);
        let threads = if run_serially() { 1 } else { 4 * rayon::current_num_threads() };
        fitting.min(parts * s.groups() / threads).clamp(1, s.groups().max(1))
    }

    /// Part `i` of all groups, `per_task` in each.
    fn part(i: usize, per_task: usize, s: &Sizes) -> Self {
        let first = i * per_task;
        Groups { first, count: per_task.min(s.groups() - first) }
    }
}

/// Groups of channels of one image of a plane (B, H·W, C).
#[derive(Clone, Copy)]
struct Source<'a, E> {
    /// The image.
    image: &'a [E],
    /// C.
    channels: usize,
    /// The groups.
    groups: Groups,
    /// H and W.
    grid: [usize; 2],
}

impl<'a, E: Element> Source<'a, E> {
    #[inline(always)]
    fn new(plane: &'a [E], image: usize, groups: Groups, s: &Sizes, grid: [usize; 2]) -> Self {
        let size = grid[0] * grid[1] * s.channels;
        Self { image: &plane[image * size..][..size], channels: s.channels, groups, grid }
    }

    /// Copies rows `rows` to grids of pixels (groups, H, `width`). Column j becomes column `left` +
    /// j; columns outside the grid are left out.
    #[inline(always)]
    fn copy(&self, rows: Range<usize>, (width, left): (usize, isize), to: &mut [Pixel<E>]) {
        let ([height, columns], Groups { first, count }) = (self.grid, self.groups);
        let start = (-left).max(0) as usize;
        let end = (width as isize - left).min(columns as isize).max(start as isize) as usize;
        let channels = (self.channels - first * GROUP).min(count * GROUP);
        for r in rows {
            let row = &self.image[r * columns * self.channels..][..columns * self.channels];
            for j in start..end {
                let from = &row[j * self.channels + first * GROUP..][..channels];
                let column = (j as isize + left) as usize;
                for (g, from) in from.chunks(GROUP).enumerate() {
                    let pixel = &mut to[(g * height + r) * width + column];
                    match from.try_into() {
                        Ok(whole) => pixel.0 = whole,
                        Err(_) => pixel.0[..from.len()].copy_from_slice(from),
                    }
                }
            }
        }
    }
}

/// Rows between the row that is computed and the one whose memory is prefetched for writing.
const AHEAD: usize = 2;

/// Work divided into tasks that a SIMD level runs.
trait Tasks<E: Element>: Sync {
    /// Memory that a thread reuses between tasks.
    type Scratch: Send;
    /// That memory.
    fn scratch(&self) -> Self::Scratch;
    /// Runs task `task`.
    ///
    /// # Safety
    /// The processor supports the instructions of L, and no other thread runs the same task.
    unsafe fn run<L: Lane<Element = E>>(&self, task: usize, scratch: &mut Self::Scratch);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw"))]
unsafe fn run_avx512<E: Element, T: Tasks<E>>(tasks: &T, task: usize, scratch: &mut T::Scratch) {
    // SAFETY: the caller's contract.
    unsafe { tasks.run::<E::Avx512>(task, scratch) }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn run_avx2<E: Element, T: Tasks<E>>(tasks: &T, task: usize, scratch: &mut T::Scratch) {
    // SAFETY: the caller's contract.
    unsafe { tasks.run::<E::Avx2>(task, scratch) }
}

/// Runs `count` tasks, in parallel unless operations must run serially.
fn run_tasks<E: Element>(tasks: &impl Tasks<E>, count: usize) {
    let simd = Simd::best();
    let one = |task, scratch: &mut _| {
        // SAFETY: the processor supports `best`, and each task runs once.
        unsafe {
            match simd {
                Simd::Avx512 if E::HAS_AVX512 => run_avx512(tasks, task, scratch),
                Simd::Avx512 | Simd::Avx2 => run_avx2(tasks, task, scratch),
                Simd::Plain => tasks.run::<E>(task, scratch),
            }
        }
    };
    if run_serially() {
        let mut scratch = tasks.scratch();
        (0..count).for_each(|task| one(task, &mut scratch));
    } else {
        (0..count).into_par_iter().for_each_init(|| tasks.scratch(), |s, task| one(task, s));
    }
}

/// Pointer to an output in which tasks write disjoint numbers.
#[derive(Clone, Copy)]
struct Raw<E>(*mut E);
// SAFETY: a task writes only its channels of its image.
unsafe impl<E> Send for Raw<E> {}
// SAFETY: as above.
unsafe impl<E> Sync for Raw<E> {}

/// An output plane, the value or a tangent: bias + Σ over terms of input plane × filters. Terms are
/// indices.
struct Sum<'a, E> {
    terms: Vec<[usize; 2]>,
    bias: Option<&'a [E]>,
    out: Raw<E>,
}

/// The terms of output plane `plane` of a bilinear map, by the product rule. Plane 0 is the value
/// and plane k tangent k; `planes` are the counts of the two operands, 1 without tangents.
fn product_rule(plane: usize, [a, b]: [usize; 2]) -> Vec<[usize; 2]> {
    match plane {
        0 => vec![[0, 0]],
        k => [(k < a).then_some([k, 0]), (k < b).then_some([0, k])].into_iter().flatten().collect(),
    }
}

/// Correlations with a filter per channel. A task is some groups of channels of one image.
struct Correlate<'a, E> {
    sizes: Sizes,
    /// Groups of a task; the last task of an image may have fewer.
    per_task: usize,
    inputs: Vec<&'a [E]>,
    filters: Vec<Vec<Pixel<E>>>,
    sums: Vec<Sum<'a, E>>,
}

/// A loop over a constant of at most 20 values, unrolled. The compiler alone leaves it rolled, and
/// then keeps the sums in memory.
macro_rules! unrolled {
    ($q:ident in 0..$count:tt $body:block) => {
        unrolled!($q $count $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19)
    };
    ($q:ident $count:tt $body:block $($value:literal)*) => {
        $({
            const $q: usize = $value;
            if $q < $count $body
        })*
    };
}

/// Groups of channels of one image, (groups, H, columns), in every plane of an operand.
type Grids<E> = Vec<Vec<Pixel<E>>>;

/// A group of a task: image, group, and the place of the group among the task's.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    group: usize,
    /// Index of the group among the task's.
    index: usize,
}

impl<E: Element> Correlate<'_, E> {
    /// Columns `j..j + P` of row `i` of a sum. Takes V filter columns at a time, a divisor of kw, so
    /// that a number of the input is loaded once for up to V products.
    #[inline(always)]
    unsafe fn columns<L: Lane<Element = E>, const P: usize, const V: usize>(
        &self,
        sum: &Sum<E>,
        (place, i, j): (Place, usize, usize),
        lane: usize,
        grids: &Grids<E>,
        next: *const E,
    ) -> usize {
        let (s, kw) = (&self.sizes, self.sizes.kernel[1]);
        let Place { image, group, index } = place;
        let row_of = |row: usize| (index * s.from[0] + row) * s.padded() + j;
        let channel = group * GROUP + lane;
        let count = (s.channels - channel).min(L::COUNT);
        let start = match sum.bias {
            // SAFETY: `count` channels from `channel` on are inside the bias.
            Some(bias) => unsafe {
                match count == L::COUNT {
                    true => L::load(bias[channel..channel + count].as_ptr()),
                    false => L::load_some(bias[channel..channel + count].as_ptr(), count),
                }
            },
            None => L::splat(0.0),
        };
        if lane == 0 {
            for p in 0..P {
                prefetch(next.wrapping_add((j + p) * s.channels));
            }
        }
        let mut sums = [start; P];
        for &[input, filter] in &sum.terms {
            for u in s.filter_rows(i) {
                let row = &grids[input][row_of(s.row(i, u))..][..P + kw - 1];
                let weights = &self.filters[filter][group * s.area() + u * kw..][..kw];
                for (v, weights) in weights.chunks_exact(V).enumerate() {
                    let row = &row[v * V..][..P + V - 1];
                    // SAFETY: the caller's contract.
                    let w: [L; V] = std::array::from_fn(
                        #[inline(always)]
                        |v| unsafe { load(&weights[v], lane) },
                    );
                    unrolled!(Q in 0..(P + V - 1) {
                        // SAFETY: the caller's contract.
                        let x = unsafe { load::<L>(&row[Q], lane) };
                        for (v, &w) in w.iter().enumerate() {
                            if let Some(p) = Q.checked_sub(v)
                                && p < P
                            {
                                sums[p] = x.mul_add(w, sums[p]);
                            }
                        }
                    });
                }
            }
        }
        let to = ((image * s.to[0] + i) * s.to[1] + j) * s.channels + channel;
        for (p, y) in sums.into_iter().enumerate() {
            // SAFETY: columns up to j + P and `count` channels are inside the output.
            unsafe {
                let to = sum.out.0.add(to + p * s.channels);
                match count == L::COUNT {
                    true => y.store(to),
                    false => y.store_some(to, count),
                }
            }
        }
        P
    }
}

impl<E: Element> Correlate<'_, E> {
    /// Row `i` of a sum.
    #[inline(always)]
    unsafe fn row<L: Lane<Element = E>, const V: usize>(
        &self,
        sum: &Sum<E>,
        (place, i): (Place, usize),
        lane: usize,
        grids: &Grids<E>,
        next: *const E,
    ) {
        let (mut j, width) = (0, self.sizes.to[1]);
        while j < width {
            let at = (place, i, j);
            // SAFETY: the caller's contract; at least as many columns are left.
            j += unsafe {
                match width - j {
                    left @ 14.. if left % 14 == 0 => {
                        self.columns::<L, 14, V>(sum, at, lane, grids, next)
                    }
                    left @ 7.. if left % 7 == 0 && left % 8 != 0 => {
                        self.columns::<L, 7, V>(sum, at, lane, grids, next)
                    }
                    8.. => self.columns::<L, 8, V>(sum, at, lane, grids, next),
                    4.. => self.columns::<L, 4, V>(sum, at, lane, grids, next),
                    2.. => self.columns::<L, 2, V>(sum, at, lane, grids, next),
                    _ => self.columns::<L, 1, V>(sum, at, lane, grids, next),
                }
            };
        }
    }
}

impl<E: Element> Tasks<E> for Correlate<'_, E> {
    type Scratch = Grids<E>;

    fn scratch(&self) -> Grids<E> {
        let size = self.per_task * self.sizes.from[0] * self.sizes.padded();
        self.inputs.iter().map(|_| Pixel::zeros(size)).collect()
    }

    #[inline(always)]
    unsafe fn run<L: Lane<Element = E>>(&self, task: usize, grids: &mut Grids<E>) {
        let (s, mut copied) = (&self.sizes, 0);
        let parts = s.groups().div_ceil(self.per_task);
        let (image, groups) = (task / parts, Groups::part(task % parts, self.per_task, s));
        for i in 0..s.to[0] {
            // Copies rows shortly before they are read, so that they are still in the cache.
            let below = i as isize + s.kernel[0] as isize - s.padding[0];
            let rows = copied..below.clamp(copied as isize, s.from[0] as isize) as usize;
            for (input, grid) in self.inputs.iter().zip(grids.iter_mut()) {
                let side = (s.padded(), s.padding[1]);
                Source::new(input, image, groups, s, s.from).copy(rows.clone(), side, grid);
            }
            copied = rows.end;
            for sum in &self.sums {
                for index in 0..groups.count {
                    let group = groups.first + index;
                    let at = (Place { image, group, index }, i);
                    let row = (image * s.to[0] + i + AHEAD) * s.to[1] * s.channels;
                    let next = sum.out.0.cast_const().wrapping_add(row + group * GROUP);
                    let count = (s.channels - group * GROUP).min(GROUP);
                    for lane in (0..count).step_by(L::COUNT) {
                        // SAFETY: the caller's contract.
                        unsafe {
                            match s.kernel[1] {
                                kw if kw % 7 == 0 => self.row::<L, 7>(sum, at, lane, grids, next),
                                kw if kw % 5 == 0 => self.row::<L, 5>(sum, at, lane, grids, next),
                                kw if kw % 3 == 0 => self.row::<L, 3>(sum, at, lane, grids, next),
                                _ => self.row::<L, 1>(sum, at, lane, grids, next),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pixels of a band of rows of gy and x. In f32 that is 24 KiB, so that a group's band stays in a
/// core's first cache.
const BAND: usize = 384;

/// Rows of gy in a band.
fn band(s: &Sizes) -> usize {
    (BAND / (s.to[1] + s.padded())).max(1)
}

/// Σ over terms and images of gy[i, j] x[i + u − top, j + v − left]: planes of gw. A task is a
/// range of images and some groups of channels.
struct WeightGradient<'a, E> {
    sizes: Sizes,
    /// Groups of a task; the last task of a range may have fewer.
    per_task: usize,
    x: Vec<&'a [E]>,
    gy: Vec<&'a [E]>,
    /// Terms of each plane: indices into gy and x.
    planes: Vec<Vec<[usize; 2]>>,
    /// Number of ranges of images.
    ranges: usize,
    /// Sums of each range and group: (planes, kh·kw) pixels.
    partial: Raw<Pixel<E>>,
}

impl<E: Element> WeightGradient<'_, E> {
    /// Adds the sums over rows `rows` of one image for filter columns `v..v + V` of row `u` to
    /// `to`. R neighbouring columns of gy have their own sums, so that a core can add several at a
    /// time.
    #[inline(always)]
    unsafe fn columns<L: Lane<Element = E>, const V: usize, const R: usize>(
        &self,
        terms: &[[usize; 2]],
        (rows, u, v): (&Range<usize>, usize, usize),
        (lane, index): (usize, usize),
        (gy, x): (&Grids<E>, &Grids<E>),
        to: &mut [Pixel<E>],
    ) -> usize {
        let (s, width) = (&self.sizes, self.sizes.to[1]);
        let mut sums = [[L::splat(0.0); V]; R];
        for &[g, a] in terms {
            let inside = s.rows(u);
            for i in rows.start.max(inside.start)..rows.end.min(inside.end) {
                let g = &gy[g][(index * s.to[0] + i) * width..][..width];
                let row = (index * s.from[0] + s.row(i, u)) * s.padded() + v;
                let row = &x[a][row..][..width + V - 1];
                let mut j = 0;
                while j + R <= width {
                    let (g, row) = (&g[j..j + R], &row[j..j + R + V - 1]);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller's contract.
                        let g = unsafe { load::<L>(&g[r], lane) };
                        for (c, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: the caller's contract.
                            let x = unsafe { load::<L>(&row[r + c], lane) };
                            *sum = x.mul_add(g, *sum);
                        }
                    }
                    j += R;
                }
                for j in j..width {
                    // SAFETY: the caller's contract.
                    let g = unsafe { load::<L>(&g[j], lane) };
                    for (c, sum) in sums[0].iter_mut().enumerate() {
                        // SAFETY: the caller's contract.
                        let x = unsafe { load::<L>(&row[j + c], lane) };
                        *sum = x.mul_add(g, *sum);
                    }
                }
            }
        }
        for (c, pixel) in to[u * s.kernel[1] + v..][..V].iter_mut().enumerate() {
            // SAFETY: the caller's contract.
            unsafe {
                let mut total = load::<L>(pixel, lane);
                for row in &sums {
                    total = total + row[c];
                }
                total.store(pixel.0.as_mut_ptr().add(lane));
            }
        }
        V
    }
}

impl<E: Element> WeightGradient<'_, E> {
    /// [`Self::columns`] for all columns of filter row `u`.
    #[inline(always)]
    unsafe fn filter_row<L: Lane<Element = E>>(
        &self,
        terms: &[[usize; 2]],
        (rows, u): (&Range<usize>, usize),
        lane: (usize, usize),
        grids: (&Grids<E>, &Grids<E>),
        to: &mut [Pixel<E>],
    ) {
        let mut v = 0;
        while v < self.sizes.kernel[1] {
            let at = (rows, u, v);
            // SAFETY: the caller's contract; at least as many columns are left.
            v += unsafe {
                match self.sizes.kernel[1] - v {
                    7.. => self.columns::<L, 7, 2>(terms, at, lane, grids, to),
                    5.. => self.columns::<L, 5, 2>(terms, at, lane, grids, to),
                    3.. => self.columns::<L, 3, 4>(terms, at, lane, grids, to),
                    _ => self.columns::<L, 1, 8>(terms, at, lane, grids, to),
                }
            };
        }
    }
}

impl<E: Element> Tasks<E> for WeightGradient<'_, E> {
    /// Grids of gy and of x.
    type Scratch = (Grids<E>, Grids<E>);

    fn scratch(&self) -> Self::Scratch {
        let s = &self.sizes;
        let [gy, x] = [s.to[0] * s.to[1], s.from[0] * s.padded()].map(|n| n * self.per_task);
        let grids = |count: usize, size| (0..count).map(|_| Pixel::zeros(size)).collect();
        (grids(self.gy.len(), gy), grids(self.x.len(), x))
    }

    #[inline(always)]
    unsafe fn run<L: Lane<Element = E>>(&self, task: usize, (gy, x): &mut Self::Scratch) {
        let s = &self.sizes;
        let parts = s.groups().div_ceil(self.per_task);
        let (range, groups) = (task / parts, Groups::part(task % parts, self.per_task, s));
        let size = self.planes.len() * s.area();
        let first = (range * s.groups() + groups.first) * size;
        // SAFETY: the caller runs each task once, and each has its own pixels.
        let partial = unsafe {
            std::slice::from_raw_parts_mut(self.partial.0.add(first), groups.count * size)
        };
        let band = band(s);
        for image in range * s.images / self.ranges..(range + 1) * s.images / self.ranges {
            let mut copied = 0;
            for start in (0..s.to[0]).step_by(band) {
                let rows = start..(start + band).min(s.to[0]);
                for (plane, grid) in self.gy.iter().zip(gy.iter_mut()) {
                    let source = Source::new(plane, image, groups, s, s.to);
                    source.copy(rows.clone(), (s.to[1], 0), grid);
                }
                let below = (rows.end + s.kernel[0] - 1) as isize - s.padding[0];
                let new = copied..below.clamp(copied as isize, s.from[0] as isize) as usize;
                copied = new.end;
                for (plane, grid) in self.x.iter().zip(x.iter_mut()) {
                    let side = (s.padded(), s.padding[1]);
                    Source::new(plane, image, groups, s, s.from).copy(new.clone(), side, grid);
                }
                for (index, partial) in partial.chunks_exact_mut(size).enumerate() {
                    let count = (s.channels - (groups.first + index) * GROUP).min(GROUP);
                    for (terms, to) in self.planes.iter().zip(partial.chunks_exact_mut(s.area())) {
                        for lane in (0..count).step_by(L::COUNT) {
                            for u in 0..s.kernel[0] {
                                let lane = (lane, index);
                                // SAFETY: the caller's contract.
                                unsafe {
                                    self.filter_row::<L>(terms, (&rows, u), lane, (gy, x), to);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A tensor of shape `dims` from its value, or the known one, and its tangents.
fn assembled<E: Element>(
    planes: Vec<E>,
    primal: Option<&Tensor>,
    tangents: usize,
    dims: &[usize],
) -> Result<DualTensor> {
    let all = |count: usize| -> Vec<usize> { [&[count], dims].concat() };
    let count = tangents + usize::from(primal.is_none());
    let planes = Tensor::from_vec(planes, all(count), &Device::Cpu)?;
    let value = match primal {
        Some(value) => value.clone(),
        None => planes.get(0)?,
    };
    let first = count - tangents;
    DualTensor::new(value, (tangents > 0).then(|| planes.narrow(0, first, tangents)).transpose()?)
}

/// Which planes to compute: all, or only tangents if the value is known.
fn wanted(primal: Option<&Tensor>, tangents: usize) -> Range<usize> {
    usize::from(primal.is_some())..tangents + 1
}

fn correlate<E: Element>(
    op: &'static str,
    (a, w, bias): (&DualTensor, &DualTensor, Option<&DualTensor>),
    (sizes, turned): (Sizes, bool),
    primal: Option<&Tensor>,
) -> Result<DualTensor> {
    let (held_a, held_w) = (HostDual::new(op, a)?, HostDual::new(op, w)?);
    let held_bias = bias.map(|b| HostDual::new(op, b)).transpose()?;
    let inputs = held_a.planes::<E>()?;
    let filters: Vec<_> =
        held_w.planes::<E>()?.iter().map(|w| filters(w, &sizes, turned)).collect();
    let bias = held_bias.as_ref().map(HostDual::planes::<E>).transpose()?.unwrap_or_default();
    let tangents = inputs.len().max(filters.len()).max(bias.len()) - 1;
    let dims = [sizes.images, sizes.to[0] * sizes.to[1], sizes.channels];
    let (size, planes) = (dims.iter().product::<usize>(), wanted(primal, tangents));
    let mut y = uninitialized::<E>(size * planes.len());
    let counts = [inputs.len(), filters.len()];
    let sums = planes.enumerate().map(|(slot, plane)| Sum {
        terms: product_rule(plane, counts),
        bias: bias.get(plane).copied(),
        out: Raw(y.as_mut_ptr().wrapping_add(slot * size)),
    });
    let rows = inputs.len() * sizes.kernel[0] * sizes.padded();
    let per_task = Groups::per_task::<E>(&sizes, rows, sizes.images);
    let work = Correlate { sizes, per_task, inputs, sums: sums.collect(), filters };
    run_tasks(&work, sizes.images * sizes.groups().div_ceil(per_task));
    assembled(y, primal, tangents, &dims)
}

/// Ranges × groups of channels of [`WeightGradient`]: enough for the usual number of cores, and
/// independent of it.
const TASKS: usize = 64;

fn weight_gradient<E: Element>(
    op: &'static str,
    x: &DualTensor,
    gy: &DualTensor,
    sizes: Sizes,
    dims: &[usize],
) -> Result<DualTensor> {
    let (held_x, held_gy) = (HostDual::new(op, x)?, HostDual::new(op, gy)?);
    let (x, gy) = (held_x.planes::<E>()?, held_gy.planes::<E>()?);
    let (counts, tangents) = ([gy.len(), x.len()], x.len().max(gy.len()) - 1);
    let (groups, area) = (sizes.groups(), sizes.area());
    let ranges = TASKS.div_ceil(groups.max(1)).min(sizes.images);
    let size = (1 + tangents) * area;
    let mut partial = Pixel::<E>::zeros(ranges * groups * size);
    let rows = x.len().max(gy.len()) * band(&sizes) * (sizes.to[1] + sizes.padded());
    let per_task = Groups::per_task::<E>(&sizes, rows, ranges);
    let work = WeightGradient {
        sizes,
        per_task,
        x,
        gy,
        planes: (0..=tangents).map(|plane| product_rule(plane, counts)).collect(),
        ranges,
        partial: Raw(partial.as_mut_ptr()),
    };
    run_tasks(&work, ranges * groups.div_ceil(per_task));
    let mut sums = vec![E::default(); (1 + tangents) * sizes.channels * area];
    for (i, task) in partial.chunks_exact(size).enumerate() {
        let first = i % groups * GROUP;
        for (plane, pixels) in task.chunks_exact(area).enumerate() {
            let filters = &mut sums[(plane * sizes.channels + first) * area..];
            let count = (sizes.channels - first).min(GROUP);
            for (c, filter) in filters.chunks_exact_mut(area).take(count).enumerate() {
                filter.iter_mut().zip(pixels).for_each(|(sum, pixel)| *sum += pixel.0[c]);
            }
        }
    }
    assembled(sums, None, tangents, dims)
}

impl DepthwiseConv {
    /// Sizes of the correlation for x and w of these shapes.
    ///
    /// # Errors
    /// Shapes that do not match the operation.
    pub fn sizes(&self, x: &[usize], w: &[usize]) -> Result<Sizes> {
        let ([height, width], [kh, kw]) = (self.grid, self.kernel);
        let padded = [0, 1].map(|d| self.grid[d] + 2 * self.padding[d]);
        if height * width * kh * kw == 0 || kh > padded[0] || kw > padded[1] {
            let expected = format!("filters of at least 1 × 1 and at most {padded:?}");
            let found = format!("filters of {kh} × {kw} on {height} × {width} tokens");
            return Err(Error::shape(self.name(), expected, found));
        }
        match (x, w) {
            (&[images, tokens, channels], &[filters, 1, h, w])
                if tokens == height * width && filters == channels && [h, w] == self.kernel =>
            {
                Ok(Sizes {
                    images,
                    channels,
                    from: self.grid,
                    to: [padded[0] - kh + 1, padded[1] - kw + 1],
                    kernel: self.kernel,
                    padding: self.padding.map(|p| p as isize),
                })
            }
            _ => Err(Error::shape(
                self.name(),
                format!("x (B, {}, C) and w (C, 1, {kh}, {kw})", height * width),
                format!("x {x:?} and w {w:?}"),
            )),
        }
    }

    /// conv(a, w) + bias, or with `turned` filters its adjoint in x. `sizes` are of the forward
    /// correlation.
    fn correlate(
        &self,
        a: &DualTensor,
        w: &DualTensor,
        bias: Option<&DualTensor>,
        (sizes, turned): (Sizes, bool),
        primal: Option<&Tensor>,
    ) -> Result<DualTensor> {
        let operands: Vec<&DualTensor> = [a, w].into_iter().chain(bias).collect();
        same_tangents(self.name(), &operands)?;
        if let Some(b) = bias
            && b.dims() != [sizes.channels]
        {
            let expected = format!("a bias of {} numbers", sizes.channels);
            return Err(Error::shape(self.name(), expected, format!("{:?}", b.dims())));
        }
        // On a GPU the value is computed again; it is a small part of the work.
        #[cfg(feature = "cuda")]
        if operands.iter().any(|x| x.on_gpu()) {
            return cuda::gpu::depthwise_conv(self.name(), (a, w, bias), (&sizes, turned));
        }
        let sizes = if turned { sizes.adjoint() } else { sizes };
        match common_dtype(self.name(), &operands)? {
            DType::F32 => correlate::<f32>(self.name(), (a, w, bias), (sizes, turned), primal),
            _ => correlate::<f64>(self.name(), (a, w, bias), (sizes, turned), primal),
        }
    }

    fn weight_gradient(
        &self,
        x: &DualTensor,
        gy: &DualTensor,
        sizes: Sizes,
        dims: &[usize],
    ) -> Result<DualTensor> {
        #[cfg(feature = "cuda")]
        if x.on_gpu() || gy.on_gpu() {
            return cuda::gpu::depthwise_conv_weight_gradient(self.name(), [x, gy], &sizes, dims);
        }
        match common_dtype(self.name(), &[x, gy])? {
            DType::F32 => weight_gradient::<f32>(self.name(), x, gy, sizes, dims),
            _ => weight_gradient::<f64>(self.name(), x, gy, sizes, dims),
        }
    }

    fn forward(&self, x: &[&DualTensor], primal: Option<&Tensor>) -> Result<DualTensor> {
        let sizes = self.sizes(x[0].dims(), x[1].dims())?;
        self.correlate(x[0], x[1], x.get(2).copied(), (sizes, false), primal)
    }

    fn gradients(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
        primal: Option<&Tensor>,
    ) -> Result<Vec<Option<DualTensor>>> {
        let sizes = self.sizes(&saved.dims[0], &saved.dims[1])?;
        let expected = [sizes.images, sizes.to[0] * sizes.to[1], sizes.channels];
        if gy.dims() != expected {
            let found = format!("{:?}", gy.dims());
            return Err(Error::shape(self.name(), format!("gy {expected:?}"), found));
        }
        let mut gradients = vec![None; saved.dims.len()];
        if needs_grad[0] {
            let w = saved.input(self.name(), 1)?;
            gradients[0] = Some(self.correlate(gy, w, None, (sizes, true), primal)?);
        }
        if needs_grad[1] {
            let (x, dims) = (saved.input(self.name(), 0)?, &saved.dims[1]);
            same_tangents(self.name(), &[x, gy])?;
            gradients[1] = Some(self.weight_gradient(x, gy, sizes, dims)?);
        }
        if needs_grad.get(2) == Some(&true) {
            let c = sizes.channels;
            let rows = gy.numel() / c.max(1);
            let [gb] =
                run_rows(self.name(), &SumRows, rows, [rows_of(gy)], [Output::Summed(c)], [&[c]])?;
            gradients[2] = Some(gb);
        }
        Ok(gradients)
    }
}

impl Op for DepthwiseConv {
    fn name(&self) -> &'static str {
        "depthwise_conv"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        let s = self.sizes(x[0], x[1])?;
        Ok(vec![s.images, s.to[0] * s.to[1], s.channels])
    }

    fn flops(&self, x: &[&[usize]]) -> f64 {
        self.sizes(x[0], x[1]).map_or(0.0, |s| {
            2.0 * [s.images, s.to[0] * s.to[1], s.channels, s.area()]
                .map(|n| n as f64)
                .iter()
                .product::<f64>()
        })
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !(inputs[0] && inputs[1])
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        self.forward(x, None)
    }

    fn save_set(&self, needs_grad: &[bool]) -> SaveSet {
        SaveSet { inputs: u32::from(needs_grad[1]) | u32::from(needs_grad[0]) << 1, output: false }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        self.gradients(saved, gy, needs_grad, None)
    }

    fn can_reuse_primal(&self) -> bool {
        true
    }

    fn value_given_primal(&self, x: &[&DualTensor], primal: &Tensor) -> Result<DualTensor> {
        self.forward(x, Some(primal))
    }

    fn vjp_given_primal(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
        primal: &Tensor,
    ) -> Result<Vec<Option<DualTensor>>> {
        self.gradients(saved, gy, needs_grad, Some(primal))
    }
}

/// Test shapes: filters larger than the grid, more padding than the filter, several groups of
/// channels, and rows of every length that is computed at once.
pub fn samples() -> Vec<Sample> {
    let conv = |grid, kernel, padding| DepthwiseConv { grid, kernel, padding };
    let [same, wide] = [conv([4, 5], [3, 3], [1, 1]), conv([3, 4], [7, 7], [3, 3])];
    vec![
        Sample::new(same, &[&[2, 20, 3], &[3, 1, 3, 3], &[3]]),
        Sample::new(wide, &[&[1, 12, 17], &[17, 1, 7, 7], &[17]]),
        Sample::new(conv([2, 15], [2, 3], [0, 1]), &[&[2, 30, 2], &[2, 1, 2, 3]]),
        Sample::new(conv([3, 9], [1, 2], [1, 2]), &[&[1, 27, 2], &[2, 1, 1, 2], &[2]]),
        // Rows so long that the gradient of w takes them one at a time.
        Sample::new(conv([3, 170], [3, 1], [1, 0]), &[&[1, 510, 1], &[1, 1, 3, 1]]),
        Sample::new(conv([5, 10], [2, 5], [0, 0]), &[&[3, 50, 1], &[1, 1, 2, 5]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_same_bits_for_any_number_of_threads() {
        let conv = DepthwiseConv { grid: [9, 11], kernel: [7, 7], padding: [3, 3] };
        let dual = |dims: &[usize]| {
            let count: usize = dims.iter().product();
            let numbers = |shift: usize| (0..count).map(move |i| ((i + shift) as f32 * 0.7).sin());
            let tensor = Tensor::from_vec(numbers(0).collect(), dims, &Device::Cpu).unwrap();
            let tangent = Tensor::from_vec(numbers(3).collect(), dims, &Device::Cpu).unwrap();
            DualTensor::new(tensor, Some(tangent.unsqueeze(0).unwrap())).unwrap()
        };
        let (x, w, gy) = (dual(&[5, 99, 40]), dual(&[40, 1, 7, 7]), dual(&[5, 99, 40]));
        let saved = Saved {
            inputs: vec![Some(x.clone()), Some(w.clone())],
            output: None,
            dims: vec![x.dims().to_vec(), w.dims().to_vec()],
        };
        // On a thread of a pool operations run serially, elsewhere in parallel.
        let bits = |serial: bool| -> Vec<u32> {
            let run = || {
                let y = conv.value(&[&x, &w]).unwrap();
                let gradients = conv.vjp(&saved, &gy, &[true, true]).unwrap();
                let all = gradients.into_iter().flatten().chain([y]);
                all.flat_map(|x| {
                    let (value, tangent) = x.into_parts();
                    [value, tangent.unwrap()].map(|x| x.flatten_all().unwrap().to_vec1().unwrap())
                })
                .flatten()
                .map(f32::to_bits)
                .collect()
            };
            match serial {
                false => run(),
                true => {
                    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run)
                }
            }
        };
        assert_eq!(bits(true), bits(false));
    }
}
