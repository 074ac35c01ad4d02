//! One product, in blocks that fit the caches.
//!
//! A's rows are packed once for all columns; of B as many columns at a time as the second-level
//! cache holds; the micro-kernel takes a group of tiles from each (Goto and van de Geijn 2008).
//! How K is cut depends on K alone, so a number of C does not depend on who computes it.

use super::Unit;
use super::pack::{DEPTH, LINES, Side, Source, Tile, pack};
use std::cell::RefCell;
use std::ops::Range;

/// Steps of K between two visits to C.
const MAX_DEPTH: usize = 2048;
/// Columns of B that are packed at a time, about.
const COLUMNS: usize = 256;
/// Rows of A that are packed at a time; with the two above, at most 9 MiB a thread.
const MAX_ROWS: usize = 2048;
/// Columns of the widest group.
const WIDTH: usize = 3 * LINES;

thread_local! {
    /// Packed tiles of A and B, kept because fresh memory costs page faults.
    static TILES: RefCell<[Vec<Tile>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A group of tiles for a micro-kernel.
#[repr(C)]
pub struct Group {
    /// The first tile of A; the next along K follows it.
    pub a: *const Tile,
    /// Bytes to the next 16 rows' first tile.
    pub a_step: usize,
    /// The first tile of B; the next along K follows it.
    pub b: *const Tile,
    /// Bytes to the next 16 columns' first tile.
    pub b_step: usize,
    /// Tiles along K.
    pub depth: usize,
    /// What the sums start from, in rows of whole tiles; null for zero.
    pub start: *const f32,
    /// Bytes from a row of it to the next.
    pub start_stride: usize,
    /// Where the sums go, in rows of whole tiles.
    pub c: *mut f32,
    /// Bytes from a row of it to the next.
    pub c_stride: usize,
}

/// What a product starts from.
#[derive(Clone, Copy)]
pub enum Start {
    /// Zero: C is written, whatever it held.
    Zero,
    /// C itself.
    Sum,
    /// A row of as many numbers as C has columns, in every row.
    Row(*const f32),
}

/// C = start + factor · A·B.
#[derive(Clone, Copy)]
pub struct Problem {
    /// Lines are A's rows.
    pub a: Source,
    /// Lines are B's columns.
    pub b: Source,
    /// C's first number.
    pub c: *mut f32,
    /// From a row of C to the next.
    pub row_stride: usize,
    /// From a column of C to the next.
    pub col_stride: usize,
    /// See there.
    pub start: Start,
    /// See there.
    pub factor: f32,
}
// SAFETY: A and B are only read, and parts that threads take of C do not overlap.
unsafe impl Sync for Problem {}

/// Rows and columns of a unit's largest group, in tiles.
pub fn group(unit: Unit) -> [usize; 2] {
    if unit == Unit::Amx { [2, 2] } else { [1, 3] }
}

/// Computes `rows` × `columns` of the product on this thread.
///
/// # Safety
/// The problem's pointers reach what its sizes and strides say, no other thread touches this part
/// of C, and `unit` is available and not [`Unit::Portable`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn serial(unit: Unit, p: &Problem, rows: Range<usize>, columns: Range<usize>) {
    let [high, wide] = group(unit).map(|tiles| tiles * LINES);
    let even = |n: usize, most: usize| n.div_ceil(n.div_ceil(most).max(1)).max(1);
    let depth = even(p.a.depth, MAX_DEPTH);
    let row_step = even(rows.len(), MAX_ROWS).next_multiple_of(high);
    let column_step = COLUMNS / wide * wide;
    #[cfg(target_os = "linux")]
    // SAFETY: an available unit was granted.
    let _registers = (unit == Unit::Amx).then(|| unsafe { super::amx::Registers::new() });
    TILES.with_borrow_mut(|[a_tiles, b_tiles]| {
        for k in (0..p.a.depth.max(1)).step_by(depth) {
            let start = if k == 0 { p.start } else { Start::Sum };
            for row in rows.clone().step_by(row_step) {
                // SAFETY: inside A, by the loops' bounds.
                let a = unsafe { p.a.part(row, row_step.min(rows.end - row), k, depth) };
                let a_tiles = room(a_tiles, &a);
                // SAFETY: as the caller's.
                unsafe { pack(&a, Side::A, a_tiles) };
                for column in columns.clone().step_by(column_step) {
                    let width = column_step.min(columns.end - column);
                    // SAFETY: inside B, by the loops' bounds; otherwise as the caller's.
                    let b_tiles = unsafe {
                        let b = p.b.part(column, width, k, depth);
                        let b_tiles = room(b_tiles, &b);
                        pack(&b, Side::B, b_tiles);
                        b_tiles
                    };
                    let part = Part { p, start, row, column, rows: a.lines, columns: width };
                    // SAFETY: as the caller's.
                    unsafe { part.multiply(unit, a_tiles, b_tiles, a.tiles()[1]) };
                }
            }
        }
    });
}

/// Runs the micro-kernel on zeros, `times` over; see [`super::micro_kernel`].
///
/// # Safety
/// `unit` is available and not [`Unit::Portable`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn repeat(unit: Unit, depth: usize, times: usize) -> usize {
    let tiles = group(unit);
    let operands = vec![Tile([[0; 16]; 16]); (tiles[0] + tiles[1]) * depth];
    let mut sums = [[0.0f32; WIDTH]; 2 * LINES];
    let step = depth * size_of::<Tile>();
    let group = Group {
        a: operands.as_ptr(),
        a_step: step,
        b: operands[tiles[0] * depth..].as_ptr(),
        b_step: step,
        depth,
        start: std::ptr::null(),
        start_stride: 0,
        c: sums.as_mut_ptr().cast(),
        c_stride: WIDTH * size_of::<f32>(),
    };
    #[cfg(target_os = "linux")]
    // SAFETY: an available unit was granted.
    let _registers = (unit == Unit::Amx).then(|| unsafe { super::amx::Registers::new() });
    for _ in 0..times {
        // SAFETY: operands and sums hold the largest group.
        unsafe { run(unit, tiles, std::hint::black_box(&group)) };
    }
    2 * tiles[0] * tiles[1] * LINES * LINES * depth * DEPTH * times
}

/// Room for the tiles of `source`.
fn room<'a>(tiles: &'a mut Vec<Tile>, source: &Source) -> &'a mut [Tile] {
    let [across, along] = source.tiles();
    if tiles.len() < across * along {
        tiles.resize(across * along, Tile([[0; 16]; 16]));
    }
    &mut tiles[..across * along]
}

/// A part of C whose operands are packed.
struct Part<'a> {
    p: &'a Problem,
    start: Start,
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

impl Part<'_> {
    /// Every group of tiles, B's inside: A's stays in the first-level cache.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn multiply(&self, unit: Unit, a: &[Tile], b: &[Tile], depth: usize) {
        let [tall, wide] = group(unit);
        let step = depth * size_of::<Tile>();
        for i in (0..self.rows.div_ceil(LINES)).step_by(tall) {
            for j in (0..self.columns.div_ceil(LINES)).step_by(wide) {
                let size = [self.rows - i * LINES, self.columns - j * LINES];
                let (a, b) = (&a[i * depth..], &b[j * depth..]);
                let tiles = [size[0].div_ceil(LINES).min(tall), size[1].div_ceil(LINES).min(wide)];
                let mut group = Group {
                    a: a.as_ptr(),
                    a_step: step,
                    b: b.as_ptr(),
                    b_step: step,
                    depth,
                    start: std::ptr::null(),
                    start_stride: 0,
                    c: std::ptr::null_mut(),
                    c_stride: 0,
                };
                // SAFETY: this group's corner of C lies inside the part.
                unsafe {
                    let corner = Corner::new(self, i * LINES, j * LINES);
                    let whole = size.iter().zip(tiles).all(|(&n, tiles)| n >= tiles * LINES);
                    if whole && self.p.col_stride == 1 && self.p.factor == 1.0 {
                        corner.direct(&mut group);
                        run(unit, tiles, &group);
                    } else {
                        corner.staged(unit, tiles, size, &mut group);
                    }
                }
            }
        }
    }
}

/// Runs the unit's micro-kernel.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn run(unit: Unit, [rows, columns]: [usize; 2], group: &Group) {
    // SAFETY: the caller's promise.
    unsafe {
        match unit {
            #[cfg(target_os = "linux")]
            Unit::Amx => super::amx::multiply(rows, columns, group),
            _ => {
                debug_assert_eq!(rows, 1);
                super::avx512::multiply(columns, group);
            }
        }
    }
}

/// Where a group's sums start and go.
struct Corner<'a> {
    p: &'a Problem,
    c: *mut f32,
    start: Start,
}

impl<'a> Corner<'a> {
    /// Of row `i` and column `j` of the part.
    unsafe fn new(part: &Part<'a>, i: usize, j: usize) -> Self {
        let p = part.p;
        let (row, column) = (part.row + i, part.column + j);
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                p,
                c: p.c.add(row * p.row_stride + column * p.col_stride),
                start: match part.start {
                    Start::Row(x) => Start::Row(x.add(column)),
                    other => other,
                },
            }
        }
    }

    /// Straight to C, in whole tiles.
    fn direct(&self, group: &mut Group) {
        group.c = self.c;
        group.c_stride = self.p.row_stride * size_of::<f32>();
        (group.start, group.start_stride) = match self.start {
            Start::Zero => (std::ptr::null(), 0),
            Start::Sum => (self.c.cast_const(), group.c_stride),
            Start::Row(x) => (x, 0),
        };
    }

    /// Through a buffer of whole tiles: at C's edges, for a factor, and where columns are apart.
    /// Without a factor sums start as they do in [`Self::direct`], so the two agree to the bit.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn staged(
        &self,
        unit: Unit,
        tiles: [usize; 2],
        [rows, columns]: [usize; 2],
        group: &mut Group,
    ) {
        let mut buffer = [[0.0f32; WIDTH]; 2 * LINES];
        let [rows, columns] = [rows.min(tiles[0] * LINES), columns.min(tiles[1] * LINES)];
        // SAFETY: rows and columns lie inside C, and the buffer holds the largest group.
        unsafe {
            let plain = self.p.factor == 1.0;
            if plain && !matches!(self.start, Start::Zero) {
                for (i, line) in buffer.iter_mut().enumerate().take(rows) {
                    self.read(i, &mut line[..columns]);
                }
            }
            group.c = buffer.as_mut_ptr().cast();
            group.c_stride = WIDTH * size_of::<f32>();
            if plain {
                (group.start, group.start_stride) = (group.c.cast_const(), group.c_stride);
            }
            run(unit, tiles, group);
            for (i, line) in buffer.iter_mut().enumerate().take(rows) {
                if !plain {
                    let mut from = [0.0; WIDTH];
                    self.read(i, &mut from[..columns]);
                    for (x, from) in line.iter_mut().zip(from) {
                        *x = from + self.p.factor * *x;
                    }
                }
                self.write(i, &line[..columns]);
            }
        }
    }

    /// What row `i` starts from.
    unsafe fn read(&self, i: usize, line: &mut [f32]) {
        let c = self.c.wrapping_add(i * self.p.row_stride);
        // SAFETY: the caller's promise.
        unsafe {
            match self.start {
                Start::Zero => line.fill(0.0),
                Start::Row(row) => row.copy_to_nonoverlapping(line.as_mut_ptr(), line.len()),
                Start::Sum if self.p.col_stride == 1 => {
                    c.copy_to_nonoverlapping(line.as_mut_ptr(), line.len());
                }
                Start::Sum => {
                    for (j, x) in line.iter_mut().enumerate() {
                        *x = *c.add(j * self.p.col_stride);
                    }
                }
            }
        }
    }

    /// Row `i`.
    unsafe fn write(&self, i: usize, line: &[f32]) {
        let c = self.c.wrapping_add(i * self.p.row_stride);
        // SAFETY: the caller's promise.
        unsafe {
            if self.p.col_stride == 1 {
                c.copy_from_nonoverlapping(line.as_ptr(), line.len());
            } else {
                for (j, &x) in line.iter().enumerate() {
                    *c.add(j * self.p.col_stride) = x;
                }
            }
        }
    }
}
