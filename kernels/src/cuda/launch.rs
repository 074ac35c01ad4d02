//! Launches as data, and the rules by which kernels are configured.

use crate::error::{Error, Result};
use crate::scalar::MAX_TANGENTS;

/// An address in the memory of whatever runs the kernels; 0 is null.
pub type Address = u64;

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// A pointer.
    Pointer(Address),
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `double`.
    F64(f64),
    /// A structure passed by value: its bytes, in words.
    Words(Vec<u64>),
}

/// One kernel launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The entry point.
    pub kernel: String,
    /// The file it stands in, without ending.
    pub file: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory, below the 48 KiB that need no permission.
    pub shared: u32,
    /// Its arguments.
    pub args: Vec<Arg>,
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// f32.
    F32,
    /// f64, to check kernels with.
    F64,
    /// bf16, computed in f32; without tangents.
    Bf16,
}

impl Stored {
    /// As entry points spell it.
    pub fn suffix(self) -> &'static str {
        match self {
            Stored::F32 => "f32",
            Stored::F64 => "f64",
            Stored::Bf16 => "bf16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Stored::F32 => 4,
            Stored::F64 => 8,
            Stored::Bf16 => 2,
        }
    }

    /// The type that arithmetic, parameters and sums over rows are in.
    pub fn arithmetic(self) -> Self {
        if self == Stored::Bf16 { Stored::F32 } else { self }
    }
}

/// A tensor as kernels see it: its value, and its K tangents one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Where the value begins.
    pub value: Address,
    /// Where the tangents begin, 0 if they are zero.
    pub tangent: Address,
}

impl Plane {
    /// Value and tangents, the latter from tangent `first` on, planes of `size` bytes.
    pub(super) fn args(self, first: usize, size: usize) -> [Arg; 2] {
        let tangent = match self.tangent {
            0 => 0,
            at => at + (first * size) as u64,
        };
        [Arg::Pointer(self.value), Arg::Pointer(tangent)]
    }
}

/// Most threads of a block of a row kernel, `ROW_THREADS` in rows.cuh.
const ROW_THREADS: u32 = 512;
/// Most threads of a block that takes no sum over its row: smaller blocks fill a GPU more evenly.
const ELEMENT_THREADS: u32 = 256;
/// Threads of a block where one warp serves a row.
const WARP_ROWS: u32 = 4;
/// Threads of a copy's block, `COPY_THREADS` in tokens.cu.
const UNIT_THREADS: u64 = 256;
/// Blocks that rows are cut into for sums over them: enough for any GPU's multiprocessors, and the
/// same everywhere, so that sums are too.
pub(super) const SUM_BLOCKS: usize = 512;
/// Columns of a row: the kernels' `int` also counts to the end of the row's last tile, of 8 bf16 a
/// thread at most.
const MOST_COLUMNS: u64 = i32::MAX as u64 - 8 * ROW_THREADS as u64;
/// Blocks that CUDA takes in x, and in y.
const MOST_BLOCKS: [u64; 2] = [(1 << 31) - 1, 65_535];

/// Makes launches for numbers stored in one way.
#[derive(Clone, Copy, Debug)]
pub struct Planner {
    /// How they are stored.
    pub stored: Stored,
    /// Threads a row, a multiple of 32 up to 512; `None`: as many as hold a row in one tile.
    pub threads: Option<u32>,
}

/// How a row kernel is launched.
pub(super) struct Geometry {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
}

impl Planner {
    /// Launches for numbers stored so, with as many threads as rows suggest.
    pub fn new(stored: Stored) -> Self {
        Self { stored, threads: None }
    }

    /// Numbers that a thread holds of a row: 16 bytes of them.
    fn width(&self) -> usize {
        16 / self.stored.bytes()
    }

    /// Threads that serve a row of `n`, `most` at most: as few as do in the same number of tiles.
    fn row_threads(&self, n: usize, most: u32) -> u32 {
        let tiles = n.div_ceil(self.width() * most as usize).max(1);
        let warps = n.div_ceil(tiles * self.width() * 32).max(1) as u32;
        self.threads.map_or(32 * warps, |threads| threads.clamp(32, most) / 32 * 32)
    }

    /// Tiles of a row of `n` that so many threads serve.
    fn tiles(&self, n: usize, threads: u32) -> usize {
        n.div_ceil(self.width() * threads as usize).max(1)
    }

    /// One row a block, or one a warp of a block where a warp suffices; a block writes whole rows.
    /// Shared memory: two sums of 1 + K numbers a warp.
    pub(super) fn by_row(&self, op: &'static str, rows: usize, n: usize) -> Result<Geometry> {
        let threads = self.row_threads(n, ROW_THREADS);
        let rows_a_block = if threads == 32 { WARP_ROWS } else { 1 };
        let blocks = rows.div_ceil(rows_a_block as usize);
        self.geometry(op, [blocks, 1], [threads, rows_a_block], n)
    }

    /// As [`Self::by_row`], a block for every tile of a row: for kernels that need no sum over it.
    pub(super) fn by_element(&self, op: &'static str, rows: usize, n: usize) -> Result<Geometry> {
        let threads = self.row_threads(n, ELEMENT_THREADS);
        let rows_a_block = if threads == 32 { WARP_ROWS } else { 1 };
        let blocks = [rows.div_ceil(rows_a_block as usize), self.tiles(n, threads)];
        let geometry = self.geometry(op, blocks, [threads, rows_a_block], n)?;
        Ok(Geometry { shared: 0, ..geometry })
    }

    /// [`SUM_BLOCKS`] ranges of rows times the tiles of a row: for sums over rows.
    pub(super) fn by_tile(&self, op: &'static str, rows: usize, n: usize) -> Result<Geometry> {
        let threads = self.row_threads(n, ROW_THREADS);
        self.geometry(op, [sum_blocks(rows), self.tiles(n, threads)], [threads, 1], n)
    }

    fn geometry(
        &self,
        op: &'static str,
        blocks: [usize; 2],
        [x, y]: [u32; 2],
        n: usize,
    ) -> Result<Geometry> {
        small(op, "columns", n as u64, MOST_COLUMNS)?;
        let scratch = 2 * (1 + MAX_TANGENTS) * self.stored.arithmetic().bytes();
        let shared = if x == 32 { 0 } else { x / 32 * scratch as u32 };
        let across = small(op, "blocks", blocks[0] as u64, MOST_BLOCKS[0])?;
        let down = small(op, "tiles", blocks[1] as u64, MOST_BLOCKS[1])?;
        Ok(Geometry { grid: [across, down, 1], block: [x, y, 1], shared })
    }

    /// One thread for each of `units`.
    pub(super) fn by_unit(op: &'static str, units: usize) -> Result<Geometry> {
        let blocks = (units as u64).div_ceil(UNIT_THREADS);
        let grid = [small(op, "blocks", blocks, MOST_BLOCKS[0])?, 1, 1];
        Ok(Geometry { grid, block: [UNIT_THREADS as u32, 1, 1], shared: 0 })
    }

    /// An entry point that carries `k` tangents.
    pub(super) fn dual(&self, name: &str, k: usize) -> Result<String> {
        if self.stored == Stored::Bf16 && k > 0 {
            return Err(Error::shape("cuda", "bf16 without tangents", format!("{k} tangents")));
        }
        Ok(format!("{name}_{}_k{k}", self.stored.suffix()))
    }
}

/// Ranges that `rows` are cut into for a sum.
pub(super) fn sum_blocks(rows: usize) -> usize {
    rows.min(SUM_BLOCKS)
}

/// K tangents as kernels take them, two at a time: first and count. Without tangents, one pass.
pub(super) fn passes(k: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..k.max(1)).step_by(MAX_TANGENTS).map(move |first| (first, (k - first).min(MAX_TANGENTS)))
}

/// A size as the kernels' `int`.
pub(super) fn i32_of(op: &'static str, n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::shape(op, format!("at most {}", i32::MAX), n.to_string()))
}

/// A size as the kernels' `long long`.
pub(super) fn i64_of(op: &'static str, n: usize) -> Result<i64> {
    i64::try_from(n).map_err(|_| Error::shape(op, format!("at most {}", i64::MAX), n.to_string()))
}

fn small(op: &'static str, what: &str, n: u64, most: u64) -> Result<u32> {
    match u32::try_from(n) {
        Ok(small) if n <= most => Ok(small),
        _ => Err(Error::shape(op, format!("at most {most} {what} in a launch"), n.to_string())),
    }
}
