//! Kernel launches as data, and how grids and blocks are chosen.

use crate::error::{Error, Result};
use crate::scalar::MAX_TANGENTS;

/// An address in the memory of the device or emulator that runs the kernels. 0 is null.
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
    /// A structure passed by value, as 64-bit words.
    Words(Vec<u64>),
}

/// One kernel launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Name of the entry point.
    pub kernel: String,
    /// Source file without extension.
    pub file: &'static str,
    /// Number of blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory. At most 48 KiB, above which CUDA requires an opt-in.
    pub shared: u32,
    /// Arguments.
    pub args: Vec<Arg>,
}

/// Storage type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageType {
    /// f32.
    F32,
    /// f64, for tests of the kernels.
    F64,
    /// bf16. Computation is in f32; tangents are not supported.
    Bf16,
}

impl StorageType {
    /// The suffix in entry point names.
    pub fn suffix(self) -> &'static str {
        match self {
            StorageType::F32 => "f32",
            StorageType::F64 => "f64",
            StorageType::Bf16 => "bf16",
        }
    }

    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            StorageType::F32 => 4,
            StorageType::F64 => 8,
            StorageType::Bf16 => 2,
        }
    }

    /// The type of computation, of parameters, and of sums over rows.
    pub fn arithmetic(self) -> Self {
        if self == StorageType::Bf16 { StorageType::F32 } else { self }
    }
}

/// A tensor argument: the value, and K tangents one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Address of the value.
    pub value: Address,
    /// Address of the tangents; 0 if they are zero.
    pub tangent: Address,
}

impl Plane {
    /// Arguments for the value and the tangents from `first` on; each tangent has `size` bytes.
    pub(super) fn args(self, first: usize, size: usize) -> [Arg; 2] {
        let tangent = match self.tangent {
            0 => 0,
            at => at + (first * size) as u64,
        };
        [Arg::Pointer(self.value), Arg::Pointer(tangent)]
    }
}

/// Maximum threads per block of a row kernel: `ROW_THREADS` in rows.cuh.
const ROW_THREADS: u32 = 512;
/// Maximum threads per block of kernels without a sum over the row. Smaller blocks distribute more
/// evenly.
const ELEMENT_THREADS: u32 = 256;
/// Rows per block if one warp handles a row.
const WARP_ROWS: u32 = 4;
/// Threads per block of copies: `COPY_THREADS` in tokens.cu.
const UNIT_THREADS: u64 = 256;
/// Number of row ranges in a sum over rows. Enough for the multiprocessors of any GPU, and the same
/// on all GPUs, so that sums have the same bits.
pub(super) const SUM_BLOCKS: usize = 512;
/// Maximum columns of a row. The kernels' `int` must also reach the end of the last tile, with up
/// to 8 bf16 numbers per thread.
const MAX_COLUMNS: u64 = i32::MAX as u64 - 8 * ROW_THREADS as u64;
/// CUDA's maximum number of blocks in x and in y.
const MAX_BLOCKS: [u64; 2] = [(1 << 31) - 1, 65_535];

/// Plans launches for one storage type.
#[derive(Clone, Copy, Debug)]
pub struct Planner {
    /// Storage type.
    pub stored: StorageType,
    /// Threads per row: a multiple of 32, at most 512. `None` chooses as many as hold a row in one
    /// tile.
    pub threads: Option<u32>,
}

/// Grid, block and shared memory of a launch.
pub(super) struct Geometry {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
}

impl Planner {
    /// A planner that chooses the number of threads from the row length.
    pub fn new(stored: StorageType) -> Self {
        Self { stored, threads: None }
    }

    /// Numbers of a row that a thread holds: 16 bytes.
    fn width(&self) -> usize {
        16 / self.stored.bytes()
    }

    /// Threads for a row of `n` numbers, at most `most`: the fewest that need no more tiles.
    fn row_threads(&self, n: usize, most: u32) -> u32 {
        let tiles = n.div_ceil(self.width() * most as usize).max(1);
        let warps = n.div_ceil(tiles * self.width() * 32).max(1) as u32;
        self.threads.map_or(32 * warps, |threads| threads.clamp(32, most) / 32 * 32)
    }

    /// Tiles of a row of `n` numbers with this many threads.
    fn tiles(&self, n: usize, threads: u32) -> usize {
        n.div_ceil(self.width() * threads as usize).max(1)
    }

    /// One row per block, or one row per warp if a warp is sufficient. A block writes whole rows.
    /// Shared memory: two sums of 1 + K numbers per warp.
    pub(super) fn by_row(&self, op: &'static str, rows: usize, n: usize) -> Result<Geometry> {
        self.by_row_of(op, rows, n, ROW_THREADS)
    }

    /// Same as [`Self::by_row`], with at most half as many threads per block, for kernels that need
    /// many registers.
    pub(super) fn by_small_row(&self, op: &'static str, rows: usize, n: usize) -> Result<Geometry> {
        self.by_row_of(op, rows, n, ELEMENT_THREADS)
    }

    fn by_row_of(&self, op: &'static str, rows: usize, n: usize, most: u32) -> Result<Geometry> {
        let threads = self.row_threads(n, most);
        let rows_a_block = if threads == 32 { WARP_ROWS } else { 1 };
        let blocks = rows.div_ceil(rows_a_block as usize);
        self.geometry(op, [blocks, 1], [threads, rows_a_block], n)
    }

    /// Same as [`Self::by_row`], but one block per tile of a row. For kernels without a sum over
    /// the row.
    pub(super) fn by_element(&self, op: &'static str, rows: usize, n: usize) -> Result<Geometry> {
        let threads = self.row_threads(n, ELEMENT_THREADS);
        let rows_a_block = if threads == 32 { WARP_ROWS } else { 1 };
        let blocks = [rows.div_ceil(rows_a_block as usize), self.tiles(n, threads)];
        let geometry = self.geometry(op, blocks, [threads, rows_a_block], n)?;
        Ok(Geometry { shared: 0, ..geometry })
    }

    /// [`SUM_BLOCKS`] ranges of rows × tiles of a row. For sums over rows.
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
        small(op, "columns", n as u64, MAX_COLUMNS)?;
        let scratch = 2 * (1 + MAX_TANGENTS) * self.stored.arithmetic().bytes();
        let shared = if x == 32 { 0 } else { x / 32 * scratch as u32 };
        let across = small(op, "blocks", blocks[0] as u64, MAX_BLOCKS[0])?;
        let down = small(op, "tiles", blocks[1] as u64, MAX_BLOCKS[1])?;
        Ok(Geometry { grid: [across, down, 1], block: [x, y, 1], shared })
    }

    /// One thread per unit.
    pub(super) fn by_unit(op: &'static str, units: usize) -> Result<Geometry> {
        let blocks = (units as u64).div_ceil(UNIT_THREADS);
        let grid = [small(op, "blocks", blocks, MAX_BLOCKS[0])?, 1, 1];
        Ok(Geometry { grid, block: [UNIT_THREADS as u32, 1, 1], shared: 0 })
    }

    /// Entry point name for `k` tangents.
    pub(super) fn dual(&self, name: &str, k: usize) -> Result<String> {
        if self.stored == StorageType::Bf16 && k > 0 {
            return Err(Error::shape("cuda", "bf16 without tangents", format!("{k} tangents")));
        }
        Ok(format!("{name}_{}_k{k}", self.stored.suffix()))
    }
}

/// Number of ranges for a sum over `rows` rows.
pub(super) fn sum_blocks(rows: usize) -> usize {
    rows.min(SUM_BLOCKS)
}

/// Splits K tangents into passes of at most two: first tangent and count. One pass without
/// tangents.
pub(super) fn passes(k: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..k.max(1)).step_by(MAX_TANGENTS).map(move |first| (first, (k - first).min(MAX_TANGENTS)))
}

/// A size as an `int` of the kernels.
pub(super) fn i32_of(op: &'static str, n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::shape(op, format!("at most {}", i32::MAX), n.to_string()))
}

/// A size as a `long long` of the kernels.
pub(super) fn i64_of(op: &'static str, n: usize) -> Result<i64> {
    i64::try_from(n).map_err(|_| Error::shape(op, format!("at most {}", i64::MAX), n.to_string()))
}

/// A number of blocks in y or z.
pub(super) fn tiles_of(op: &'static str, n: usize) -> Result<u32> {
    small(op, "tiles", n as u64, MAX_BLOCKS[1])
}

/// A number of blocks in x.
pub(super) fn blocks_of(op: &'static str, n: usize) -> Result<u32> {
    small(op, "blocks", n as u64, MAX_BLOCKS[0])
}

fn small(op: &'static str, what: &str, n: u64, most: u64) -> Result<u32> {
    match u32::try_from(n) {
        Ok(small) if n <= most => Ok(small),
        _ => Err(Error::shape(op, format!("at most {most} {what} in a launch"), n.to_string())),
    }
}
