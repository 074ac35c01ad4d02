//! One product, in blocks that fit the caches.
//!
//! Columns of B are packed in blocks that fit the L2 cache; rows of A are packed once for all
//! columns (Goto and van de Geijn 2008). The sums of a strip of rows go to a buffer, which is
//! written to C while the next strip is multiplied. C is too large for the caches, and the
//! micro-kernel would wait for it. The split along K depends only on K, so the bits of C do not
//! depend on which thread computes it.

use super::Unit;
use super::flush::{Strip, WIDTH};
use super::pack::{DEPTH, LINES, Side, Source, Tile, pack};
use std::cell::RefCell;
use std::ops::Range;

/// Maximum number of steps along K between two updates of C.
const MAX_DEPTH: usize = 4096;
/// Maximum of (packed rows of A) × depth: 8 MiB.
const MAX_A: usize = 1 << 22;
/// Maximum of (packed columns of B) × depth: 1 MiB.
const MAX_B: usize = 1 << 19;
/// [`MAX_DEPTH`] and [`MAX_B`] for operands in three parts: rows of A are three times as long and
/// need their share of the L2 cache.
const SPLIT_MAX: [usize; 2] = [768, 3 << 17];

thread_local! {
    /// Packed operands and sums. Reused, because fresh memory costs page faults.
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

/// The operands of one micro-kernel call: a group of tiles.
#[repr(C)]
pub struct Group {
    /// The first tile of A, with all its parts. The next tile along K follows.
    pub a: *const Tile,
    /// The first tile of B, with all its parts. The next tile along K follows.
    pub b: *const Tile,
    /// Number of tiles along K, each with all its parts.
    pub depth: usize,
    /// Distance, in tiles, to the tiles of the next 16 rows or columns.
    pub step: usize,
    /// Output of the sums, in rows of whole tiles.
    pub sums: *mut f32,
    /// Bytes between rows of sums.
    pub stride: usize,
}

/// The initial value of a product.
#[derive(Clone, Copy)]
pub enum Start {
    /// Zero: C is overwritten.
    Zero,
    /// The content of C.
    Sum,
    /// A row with as many numbers as C has columns, for every row of C.
    Row(*const f32),
}

/// C = start + factor · A·B.
#[derive(Clone, Copy)]
pub struct Problem {
    /// A, whose lines are its rows.
    pub a: Source,
    /// B, whose lines are its columns.
    pub b: Source,
    /// The first number of C.
    pub c: *mut f32,
    /// Distance between rows of C.
    pub row_stride: usize,
    /// Distance between columns of C.
    pub col_stride: usize,
    /// Initial value.
    pub start: Start,
    /// The factor.
    pub factor: f32,
    /// Whether C is written with non-temporal stores.
    pub stream: bool,
    /// bf16 numbers per number of A or B: 1 (rounded) or 3 (exact).
    pub parts: usize,
}
// SAFETY: A and B are only read, and threads write disjoint parts of C.
unsafe impl Sync for Problem {}

/// Rows and columns of a unit's largest group, in tiles.
pub fn group(unit: Unit) -> [usize; 2] {
    if unit == Unit::Amx { [2, 2] } else { [1, 3] }
}

/// Size of equal steps that cover `n`, each at most about `most`, rounded up to a multiple of `of`.
fn step(n: usize, most: usize, of: usize) -> usize {
    n.div_ceil(n.div_ceil(most.max(1)).max(1)).max(1).next_multiple_of(of)
}

/// Computes `rows` × `columns` of the product on this thread.
///
/// # Safety
/// The problem's pointers are valid for its sizes and strides, no other thread uses this part of C,
/// and `unit` is available and not [`Unit::Portable`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn serial(unit: Unit, p: &Problem, rows: Range<usize>, columns: Range<usize>) {
    let [tall, wide] = group(unit).map(|tiles| tiles * LINES);
    let [max_depth, max_b] = if p.parts == 1 { [MAX_DEPTH, MAX_B] } else { SPLIT_MAX };
    let depth = step(p.a.depth, max_depth, DEPTH);
    let row_step = step(rows.len(), MAX_A / p.parts / depth, tall);
    let column_step = step(columns.len(), (max_b / p.parts / depth).min(WIDTH - wide), wide);
    #[cfg(target_os = "linux")]
    // SAFETY: AMX is available, so the permission was given.
    let _registers = (unit == Unit::Amx).then(|| unsafe { super::amx::Registers::new() });
    BUFFERS.with_borrow_mut(|buffers| {
        for k in (0..p.a.depth.max(1)).step_by(depth) {
            let p = Problem { start: if k == 0 { p.start } else { Start::Sum }, ..*p };
            for row in rows.clone().step_by(row_step) {
                for column in columns.clone().step_by(column_step) {
                    // SAFETY: inside A and B by the bounds of the loops; otherwise the caller's
                    // contract.
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

/// One block of columns against one block of rows, strip by strip.
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
    let b_tiles = reserve_tiles(&mut buffers.b, b.tiles(), p.parts);
    let a_tiles = reserve_tiles(&mut buffers.a, a.tiles(), p.parts);
    let mut previous: Option<Strip> = None;
    // SAFETY: the caller's contract.
    unsafe {
        let pack = if p.parts == 1 { pack::<1> } else { pack::<3> };
        pack(&b, Side::B, b_tiles);
        if !packed {
            pack(&a, Side::A, a_tiles);
        }
        for (i, tiles) in a_tiles.chunks(tall * depth * p.parts).enumerate() {
            let height = (tall * LINES).min(a.lines - i * tall * LINES);
            let sums = reserve_tiles(&mut buffers.sums[i % 2], [tall * WIDTH / LINES, 1], 1);
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
    // SAFETY: the caller's contract.
    unsafe {
        match unit {
            #[cfg(target_os = "linux")]
            Unit::Amx => super::amx::multiply(parts, rows, columns, group),
            _ => super::avx512::multiply(columns, group),
        }
    }
}

/// Runs the micro-kernel `times` times on zeros; see [`super::micro_kernel`].
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
    // SAFETY: AMX is available, so the permission was given.
    let _registers = (unit == Unit::Amx).then(|| unsafe { super::amx::Registers::new() });
    for _ in 0..times {
        // SAFETY: operands and sums have the size of the largest group.
        unsafe { run(unit, parts, tiles, std::hint::black_box(&group)) };
    }
    2 * tiles[0] * tiles[1] * LINES * LINES * depth * DEPTH * times
}

/// Space for `across` × `along` tiles of `parts` parts.
fn reserve_tiles(tiles: &mut Vec<Tile>, [across, along]: [usize; 2], parts: usize) -> &mut [Tile] {
    let count = across * along * parts;
    if tiles.len() < count {
        tiles.resize(count, Tile([[0; 16]; 16]));
    }
    &mut tiles[..count]
}
