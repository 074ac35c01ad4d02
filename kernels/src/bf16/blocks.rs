//! One product, in blocks that fit the caches.
//!
//! Of B as many columns at a time are packed as the second-level cache holds; A's rows are packed
//! once for all columns (Goto and van de Geijn 2008). The sums of a strip of rows come out in a
//! buffer, and go to C while the next strip is multiplied: C is too large for the caches, and the
//! micro-kernel would wait for it. How K is cut depends on K alone, so a number of C does not
//! depend on who computes it.

use super::Unit;
use super::flush::{Strip, WIDTH};
use super::pack::{DEPTH, LINES, Side, Source, Tile, pack};
use std::cell::RefCell;
use std::ops::Range;

/// Steps of K between two visits to C.
const MAX_DEPTH: usize = 4096;
/// Rows of A that are packed at a time, times their depth: 8 MiB.
const MAX_A: usize = 1 << 22;
/// Columns of B that are packed at a time, times their depth: 1 MiB.
const MAX_B: usize = 1 << 19;
/// The first and the last of these where numbers have three parts: rows of A are three times as
/// long, and need their share of the second-level cache.
const SPLIT_MAX: [usize; 2] = [768, 3 << 17];

thread_local! {
    /// Packed operands and sums, kept because fresh memory costs page faults.
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers::new()) };
}

/// Packed tiles of A and B, and the sums of two strips.
struct Buffers {
    a: Vec<Tile>,
    b: Vec<Tile>,
    sums: [Vec<Tile>; 2],
}

impl Buffers {
    const fn new() -> Self {
        Self { a: Vec::new(), b: Vec::new(), sums: [Vec::new(), Vec::new()] }
    }
}

/// A group of tiles for a micro-kernel.
#[repr(C)]
pub struct Group {
    /// The first tile of A, all its parts; the next along K follows them.
    pub a: *const Tile,
    /// The first tile of B, all its parts; the next along K follows them.
    pub b: *const Tile,
    /// Tiles along K, each of so many parts.
    pub depth: usize,
    /// Tiles to those of the next 16 rows or columns.
    pub step: usize,
    /// Where the sums go, in rows of whole tiles.
    pub sums: *mut f32,
    /// Bytes from a row of them to the next.
    pub stride: usize,
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
    /// Whether C goes past the caches.
    pub stream: bool,
    /// Numbers of bf16 that stand for one of A or B: 1, rounded, or 3, exact.
    pub parts: usize,
}
// SAFETY: A and B are only read, and parts that threads take of C do not overlap.
unsafe impl Sync for Problem {}

/// Rows and columns of a unit's largest group, in tiles.
pub fn group(unit: Unit) -> [usize; 2] {
    if unit == Unit::Amx { [2, 2] } else { [1, 3] }
}

/// `n` in equal steps of at most `most`, multiples of `of`.
fn step(n: usize, most: usize, of: usize) -> usize {
    n.div_ceil(n.div_ceil(most.max(1)).max(1)).max(1).next_multiple_of(of)
}

/// Computes `rows` × `columns` of the product on this thread.
///
/// # Safety
/// The problem's pointers reach what its sizes and strides say, no other thread touches this part
/// of C, and `unit` is available and not [`Unit::Portable`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn serial(unit: Unit, p: &Problem, rows: Range<usize>, columns: Range<usize>) {
    let [tall, wide] = group(unit).map(|tiles| tiles * LINES);
    let [max_depth, max_b] = if p.parts == 1 { [MAX_DEPTH, MAX_B] } else { SPLIT_MAX };
    let depth = step(p.a.depth, max_depth, DEPTH);
    let row_step = step(rows.len(), MAX_A / p.parts / depth, tall);
    let column_step = step(columns.len(), (max_b / p.parts / depth).min(WIDTH - wide), wide);
    #[cfg(target_os = "linux")]
    // SAFETY: an available unit was granted.
    let _registers = (unit == Unit::Amx).then(|| unsafe { super::amx::Registers::new() });
    BUFFERS.with_borrow_mut(|buffers| {
        for k in (0..p.a.depth.max(1)).step_by(depth) {
            let p = Problem { start: if k == 0 { p.start } else { Start::Sum }, ..*p };
            for row in rows.clone().step_by(row_step) {
                for column in columns.clone().step_by(column_step) {
                    // SAFETY: inside A and B, by the loops' bounds; otherwise as the caller's.
                    unsafe {
                        let height = row_step.min(rows.end - row);
                        let width = column_step.min(columns.end - column);
                        let a = p.a.part(row, height, k, depth);
                        let b = p.b.part(column, width, k, depth);
                        let packed = column > columns.start;
                        block(unit, &p, (a, row, packed), (b, column), buffers);
                    }
                }
            }
        }
    });
}

/// One block of columns against one of rows, strip by strip.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn block(
    unit: Unit,
    p: &Problem,
    (a, row, packed): (Source, usize, bool),
    (b, column): (Source, usize),
    buffers: &mut Buffers,
) {
    let [tall, wide] = group(unit);
    let depth = a.tiles()[1];
    let b_tiles = room(&mut buffers.b, b.tiles(), p.parts);
    let a_tiles = room(&mut buffers.a, a.tiles(), p.parts);
    let mut previous: Option<Strip> = None;
    // SAFETY: the caller's promise.
    unsafe {
        let pack = if p.parts == 1 { pack::<1> } else { pack::<3> };
        pack(&b, Side::B, b_tiles);
        if !packed {
            pack(&a, Side::A, a_tiles);
        }
        for (i, tiles) in a_tiles.chunks(tall * depth * p.parts).enumerate() {
            let height = (tall * LINES).min(a.lines - i * tall * LINES);
            let sums = room(&mut buffers.sums[i % 2], [tall * WIDTH / LINES, 1], 1);
            let strip = Strip::new(row + i * tall * LINES, column, [height, b.lines], sums);
            let groups = b.tiles()[0].div_ceil(wide);
            for (j, right) in b_tiles.chunks(wide * depth * p.parts).enumerate() {
                let size = [height.div_ceil(LINES), wide.min(b.tiles()[0] - j * wide)];
                let sums = strip.sums.add(j * wide * LINES);
                run(unit, p.parts, size, &Group::new(tiles, right, [depth, p.parts], sums));
                if let Some(previous) = &previous {
                    previous
                        .flush(p, j * previous.height / groups..(j + 1) * previous.height / groups);
                }
            }
            previous = Some(strip);
        }
        if let Some(last) = previous {
            last.flush(p, 0..last.height);
        }
        std::arch::x86_64::_mm_sfence();
    }
}

impl Group {
    fn new(a: &[Tile], b: &[Tile], [depth, parts]: [usize; 2], sums: *mut f32) -> Self {
        let stride = WIDTH * size_of::<f32>();
        Self { a: a.as_ptr(), b: b.as_ptr(), depth, step: depth * parts, sums, stride }
    }
}

/// Runs the unit's micro-kernel.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn run(unit: Unit, parts: usize, [rows, columns]: [usize; 2], group: &Group) {
    // SAFETY: the caller's promise.
    unsafe {
        match unit {
            #[cfg(target_os = "linux")]
            Unit::Amx => super::amx::multiply(parts, rows, columns, group),
            _ => super::avx512::multiply(columns, group),
        }
    }
}

/// Runs the micro-kernel on zeros, `times` over; see [`super::micro_kernel`].
///
/// # Safety
/// `unit` is available and not [`Unit::Portable`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn repeat(unit: Unit, parts: usize, depth: usize, times: usize) -> usize {
    let tiles = group(unit);
    let operands = vec![Tile([[0; 16]; 16]); (tiles[0] + tiles[1]) * depth * parts];
    let mut sums = vec![0.0f32; tiles[0] * LINES * WIDTH];
    let (a, b) = operands.split_at(tiles[0] * depth * parts);
    let group = Group::new(a, b, [depth, parts], sums.as_mut_ptr());
    #[cfg(target_os = "linux")]
    // SAFETY: an available unit was granted.
    let _registers = (unit == Unit::Amx).then(|| unsafe { super::amx::Registers::new() });
    for _ in 0..times {
        // SAFETY: operands and sums hold the largest group.
        unsafe { run(unit, parts, tiles, std::hint::black_box(&group)) };
    }
    2 * tiles[0] * tiles[1] * LINES * LINES * depth * DEPTH * times
}

/// Room for tiles across and along, of so many parts.
fn room(tiles: &mut Vec<Tile>, [across, along]: [usize; 2], parts: usize) -> &mut [Tile] {
    let count = across * along * parts;
    if tiles.len() < count {
        tiles.resize(count, Tile([[0; 16]; 16]));
    }
    &mut tiles[..count]
}
