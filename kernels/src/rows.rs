//! Rows of numbers with their tangents, as row kernels see them.

use crate::lanes::Lane;
use crate::scalar::{MAX_TANGENTS, Scalar};
use std::marker::PhantomData;

type ElementOf<S> = <<S as Scalar>::Lane as Lane>::Element;

/// Minimum prefetch distance, in numbers.
const PREFETCH_DISTANCE: usize = 1024;

/// Prefetches a cache line. The address may be outside allocated memory.
#[inline(always)]
pub(crate) fn prefetch<E>(line: *const E) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint; it reads nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The part of a row that fills one register: start index and count of numbers that belong to the
/// row.
#[derive(Clone, Copy)]
pub struct Chunk {
    start: usize,
    count: usize,
}

impl Chunk {
    /// The chunk `by` numbers later in the row.
    #[inline(always)]
    pub fn shifted(self, by: usize) -> Self {
        Self { start: self.start + by, ..self }
    }

    /// Count of numbers in the chunk.
    #[inline(always)]
    pub fn count(self) -> usize {
        self.count
    }
}

/// Iterator over the chunks of a row. The last chunk may be partial.
pub struct Chunks<S> {
    next: usize,
    len: usize,
    scalar: PhantomData<S>,
}

/// The chunks of a row of `len` numbers, in order.
#[inline(always)]
pub fn chunks<S: Scalar>(len: usize) -> Chunks<S> {
    Chunks { next: 0, len, scalar: PhantomData }
}

impl<S: Scalar> Iterator for Chunks<S> {
    type Item = Chunk;
    #[inline(always)]
    fn next(&mut self) -> Option<Chunk> {
        if self.next >= self.len {
            return None;
        }
        let left = self.len - self.next;
        let count = if left < S::Lane::COUNT { left } else { S::Lane::COUNT };
        let chunk = Chunk { start: self.next, count };
        self.next += count;
        Some(chunk)
    }
}

/// An input row. An absent tangent reads as 0.
#[derive(Clone, Copy)]
pub struct Row<S: Scalar> {
    pub(crate) value: *const ElementOf<S>,
    pub(crate) tangents: [*const ElementOf<S>; MAX_TANGENTS],
    pub(crate) len: usize,
}

impl<S: Scalar> Row<S> {
    /// Number of columns.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the row has no columns.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Loads a chunk. Elements past the end of the row are 0.
    #[inline(always)]
    pub fn at(&self, c: Chunk) -> S {
        assert!(c.start + c.count <= self.len, "the chunk is inside the row");
        self.assemble(
            #[inline(always)]
            |from| {
                // SAFETY: the driver created this row with `len` elements, and chunks end within
                // it.
                unsafe {
                    if c.count == S::Lane::COUNT {
                        S::Lane::load(from.add(c.start))
                    } else {
                        S::Lane::load_some(from.add(c.start), c.count)
                    }
                }
            },
        )
    }

    /// Prefetches what a later row will read at chunk `c`: the next row, or for short rows the one
    /// at least `PREFETCH_DISTANCE` numbers ahead. The hardware prefetcher restarts at every pass
    /// over a row and would leave the core waiting for memory.
    #[inline(always)]
    pub fn prefetch_next(&self, c: Chunk) {
        // With one number per register this would prefetch every line sixteen times.
        if S::Lane::COUNT == 1 {
            return;
        }
        let ahead = c.start + self.len.max(PREFETCH_DISTANCE);
        prefetch(self.value.wrapping_add(ahead));
        for t in self.tangents[..S::TANGENTS].iter().filter(|t| !t.is_null()) {
            prefetch(t.wrapping_add(ahead));
        }
    }

    /// Column `i`, broadcast to the register.
    #[inline(always)]
    pub fn column(&self, i: usize) -> S {
        assert!(i < self.len, "column {i} of a row of {}", self.len);
        use crate::lanes::Element;
        // SAFETY: i < len.
        self.assemble(
            #[inline(always)]
            |from| S::Lane::splat(unsafe { *from.add(i) }.wide()),
        )
    }

    #[inline(always)]
    fn assemble(&self, read: impl Fn(*const ElementOf<S>) -> S::Lane) -> S {
        let mut tangents = [S::Lane::splat(0.0); MAX_TANGENTS];
        for (k, t) in tangents.iter_mut().enumerate() {
            if k < S::TANGENTS && !self.tangents[k].is_null() {
                *t = read(self.tangents[k]);
            }
        }
        S::from_parts(read(self.value), tangents)
    }

    /// Σ over columns of `f`, broadcast to the register.
    #[inline(always)]
    pub fn sum(&self, f: impl Fn(Chunk) -> S) -> S {
        let [total] = self.sums(
            #[inline(always)]
            |c| [f(c)],
        );
        total
    }

    /// Several sums over columns in one pass.
    #[inline(always)]
    pub fn sums<const N: usize>(&self, f: impl Fn(Chunk) -> [S; N]) -> [S; N] {
        let totals = self.fold(
            [S::constant(0.0); N],
            #[inline(always)]
            |mut totals, c| {
                for (total, term) in totals.iter_mut().zip(f(c)) {
                    let full = c.count == S::Lane::COUNT;
                    *total = *total + if full { term } else { term.keep_first(c.count, 0.0) };
                }
                totals
            },
            #[inline(always)]
            |mut a, b| {
                for (a, b) in a.iter_mut().zip(b) {
                    *a = *a + b;
                }
                a
            },
        );
        totals.map(S::sum)
    }

    /// The maximum of the row, with zero tangents.
    #[inline(always)]
    pub fn detached_max(&self) -> S {
        let best = self.fold(
            S::constant(f64::NEG_INFINITY),
            #[inline(always)]
            |best, c| {
                let x = self.at(c);
                best.detached_max(if c.count == S::Lane::COUNT {
                    x
                } else {
                    x.keep_first(c.count, f64::NEG_INFINITY)
                })
            },
            #[inline(always)]
            |a, b| a.detached_max(b),
        );
        best.detached_reduce_max()
    }

    /// Reduces all chunks. Four accumulators are independent, because an addition has a latency of
    /// several cycles and a core executes several at a time.
    #[inline(always)]
    fn fold<T: Copy>(&self, start: T, add: impl Fn(T, Chunk) -> T, join: impl Fn(T, T) -> T) -> T {
        let full = self.len / S::Lane::COUNT;
        let chunk = |i: usize| Chunk { start: i * S::Lane::COUNT, count: S::Lane::COUNT };
        let mut parts = [start; 4];
        let mut i = 0;
        while i + 4 <= full {
            for (k, part) in parts.iter_mut().enumerate() {
                *part = add(*part, chunk(i + k));
            }
            i += 4;
        }
        while i < full {
            parts[0] = add(parts[0], chunk(i));
            i += 1;
        }
        let (start, count) = (full * S::Lane::COUNT, self.len % S::Lane::COUNT);
        if count > 0 {
            parts[0] = add(parts[0], Chunk { start, count });
        }
        join(join(parts[3], parts[2]), join(parts[1], parts[0]))
    }
}

/// An output row: written, or added to if it is a sum over rows.
#[derive(Clone, Copy)]
pub struct RowMut<S: Scalar> {
    pub(crate) value: *mut ElementOf<S>,
    pub(crate) tangents: [*mut ElementOf<S>; MAX_TANGENTS],
    pub(crate) len: usize,
}

impl<S: Scalar> RowMut<S> {
    /// Stores a chunk.
    #[inline(always)]
    pub fn put(&self, c: Chunk, x: S) {
        assert!(c.start + c.count <= self.len, "the chunk is inside the row");
        let write = |to: *mut ElementOf<S>, lane: S::Lane| {
            // SAFETY: the driver created this row with `len` elements for this call only.
            unsafe {
                if c.count == S::Lane::COUNT {
                    lane.store(to.add(c.start));
                } else {
                    lane.store_some(to.add(c.start), c.count);
                }
            }
        };
        write(self.value, x.value());
        for k in 0..S::TANGENTS {
            write(self.tangents[k], x.tangent(k));
        }
    }

    /// Adds to a chunk, for sums over rows.
    #[inline(always)]
    pub fn add(&self, c: Chunk, x: S) {
        self.put(c, self.read().at(c) + x);
    }

    /// Same as [`Row::prefetch_next`].
    #[inline(always)]
    pub fn prefetch_next(&self, c: Chunk) {
        self.read().prefetch_next(c);
    }

    /// Stores column `i` from a register whose elements are all equal.
    #[inline(always)]
    pub fn put_column(&self, i: usize, x: S) {
        self.put(Chunk { start: i, count: 1 }, x);
    }

    /// Stores the only number of the row.
    #[inline(always)]
    pub fn put_one(&self, x: S) {
        self.put_column(0, x);
    }

    /// The same row, for reading back.
    #[inline(always)]
    pub fn read(&self) -> Row<S> {
        let mut tangents = [std::ptr::null(); MAX_TANGENTS];
        for (k, t) in tangents.iter_mut().enumerate() {
            if k < S::TANGENTS {
                *t = self.tangents[k].cast_const();
            }
        }
        Row { value: self.value.cast_const(), tangents, len: self.len }
    }
}
