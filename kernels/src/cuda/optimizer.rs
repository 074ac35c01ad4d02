//! Kernels that process all tensors of a layer at once.

use super::launch::{Address, Arg, Launch, Planner, StorageType};
use crate::error::{Error, Result};

/// Maximum tensors per launch, as in optimizer.cu. Longer lists take several launches.
pub const MAX_TENSORS: usize = 24;
/// Number of f64 sums that `products` computes.
pub const PRODUCTS: usize = 3;
/// Numbers per block: `CHUNK` in optimizer.cu.
const CHUNK: usize = 8192;
/// Threads per block: `CHUNK_THREADS` in optimizer.cu.
const CHUNK_THREADS: u32 = 256;

/// Constants of an SGD step: b ← μ b + g, w ← w − η b, or with Nesterov momentum w ← w − η (g + μ
/// b); g is the gradient plus λ w.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// η.
    pub rate: f64,
    /// μ.
    pub momentum: f64,
    /// λ, weight decay added to the gradient.
    pub decay: f64,
    /// Whether to use Nesterov momentum.
    pub nesterov: bool,
}

/// Constants of a step of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
    /// 1 − η λ, decoupled weight decay.
    pub keep: f64,
    /// η / (1 − β₁ᵗ).
    pub scale: f64,
    /// √(1 − β₂ᵗ).
    pub root: f64,
}

/// Tensors of one launch, the first chunk of each, and the number of chunks in earlier launches.
struct Group {
    tensors: Vec<usize>,
    first: Vec<usize>,
    before: usize,
}

impl Planner {
    /// An SGD step over tensors of these sizes. Lists: weights w, gradients g, momentum buffers b
    /// (updated in place), new weights y. y may be w.
    pub fn sgd_step(
        &self,
        lists: [&[Address]; 4],
        numbers: &[usize],
        by: Sgd,
    ) -> Result<Vec<Launch>> {
        let constants = [
            Arg::F64(by.rate),
            Arg::F64(by.momentum),
            Arg::F64(by.decay),
            Arg::I32(by.nesterov.into()),
        ];
        self.tensor_launches("sgd_step", lists, numbers, |_| constants.to_vec())
    }

    /// An AdamW step. Lists: w, g, m and v (updated in place), new weights y. y may be w.
    pub fn adamw_step(
        &self,
        lists: [&[Address]; 5],
        numbers: &[usize],
        by: AdamW,
    ) -> Result<Vec<Launch>> {
        let constants = [by.beta1, by.beta2, by.eps, by.keep, by.scale, by.root];
        self.tensor_launches("adamw_step", lists, numbers, |_| constants.map(Arg::F64).to_vec())
    }

    /// Σ a², Σ a b and Σ b² over all tensors in f64, written to `total`. Without b: Σ a² and zeros.
    pub fn products(
        &self,
        a: &[Address],
        b: Option<&[Address]>,
        numbers: &[usize],
        scratch: Address,
        total: Address,
    ) -> Result<Vec<Launch>> {
        let none = vec![0; a.len()];
        let lists = [a, b.unwrap_or(&none)];
        let mut launches = self.tensor_launches("products", lists, numbers, |before| {
            vec![Arg::Pointer(scratch + (before * PRODUCTS * 8) as u64)]
        })?;
        launches.push(finish(scratch, numbers, total)?);
        Ok(launches)
    }

    /// y = x + factor · d over all tensors. y may be x.
    pub fn axpy(
        &self,
        lists: [&[Address]; 3],
        numbers: &[usize],
        factor: f64,
    ) -> Result<Vec<Launch>> {
        self.tensor_launches("axpy", lists, numbers, |_| vec![Arg::F64(factor)])
    }

    /// y = x (|w| + η) over all tensors. y may be x.
    pub fn by_magnitude(
        &self,
        lists: [&[Address]; 3],
        numbers: &[usize],
        eta: f64,
    ) -> Result<Vec<Launch>> {
        self.tensor_launches("by_magnitude", lists, numbers, |_| vec![Arg::F64(eta)])
    }

    /// Bytes of scratch memory for [`Self::products`].
    pub fn products_scratch(numbers: &[usize]) -> usize {
        chunks(numbers) * PRODUCTS * 8
    }

    fn tensor_launches<const P: usize>(
        &self,
        name: &'static str,
        lists: [&[Address]; P],
        numbers: &[usize],
        constants: impl Fn(usize) -> Vec<Arg>,
    ) -> Result<Vec<Launch>> {
        if self.stored == StorageType::Bf16 {
            return Err(Error::shape(name, "f32 or f64", "bf16"));
        }
        if let Some(found) = lists.iter().map(|list| list.len()).find(|&n| n != numbers.len()) {
            let expected = format!("{} tensors in every list", numbers.len());
            return Err(Error::shape(name, expected, found.to_string()));
        }
        let each = groups(numbers).into_iter().map(|group| {
            let count = chunks_of(&group, numbers);
            let grid = u32::try_from(count).ok().filter(|&n| n <= i32::MAX as u32);
            let Some(grid) = grid else {
                return Err(Error::shape(
                    name,
                    "at most 2147483647 chunks in a launch",
                    count.to_string(),
                ));
            };
            let mut args = vec![Arg::Words(table(&group, lists, numbers))];
            args.extend(constants(group.before));
            Ok(Launch {
                kernel: format!("{name}_{}", self.stored.suffix()),
                file: "optimizer",
                grid: [grid, 1, 1],
                block: [CHUNK_THREADS, 1, 1],
                shared: CHUNK_THREADS / 32 * (PRODUCTS * 8) as u32,
                args,
            })
        });
        each.collect()
    }
}

fn chunks(numbers: &[usize]) -> usize {
    numbers.iter().map(|n| n.div_ceil(CHUNK)).sum()
}

fn chunks_of(group: &Group, numbers: &[usize]) -> usize {
    group.tensors.iter().map(|&i| numbers[i].div_ceil(CHUNK)).sum()
}

/// Non-empty tensors, in groups of at most one launch.
fn groups(numbers: &[usize]) -> Vec<Group> {
    let some: Vec<usize> = (0..numbers.len()).filter(|&i| numbers[i] > 0).collect();
    let mut before = 0;
    let make = |tensors: &[usize]| {
        let mut first = Vec::with_capacity(tensors.len());
        let mut next = 0;
        for &i in tensors {
            first.push(next);
            next += numbers[i].div_ceil(CHUNK);
        }
        let group = Group { tensors: tensors.to_vec(), first, before };
        before += next;
        group
    };
    some.chunks(MAX_TENSORS).map(make).collect()
}

/// The structure `Tensors<P>` of optimizer.cu.
fn table<const P: usize>(group: &Group, lists: [&[Address]; P], numbers: &[usize]) -> Vec<u64> {
    let mut words = Vec::with_capacity((P + 1) * MAX_TENSORS + MAX_TENSORS / 2 + 1);
    let mut column = |of: &dyn Fn(usize) -> u64| {
        words.extend((0..MAX_TENSORS).map(|slot| group.tensors.get(slot).map_or(0, |&i| of(i))));
    };
    for list in lists {
        column(&|i| list[i]);
    }
    column(&|i| numbers[i] as u64);
    // 25 first chunks, of which at most (number of tensors + 1) are read, and the number of
    // tensors.
    let mut ints: Vec<u32> = group.first.iter().map(|&n| n as u32).collect();
    ints.resize(MAX_TENSORS + 1, i32::MAX as u32);
    ints.push(group.tensors.len() as u32);
    words.extend(ints.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32));
    words
}

fn finish(scratch: Address, numbers: &[usize], total: Address) -> Result<Launch> {
    let chunks = super::launch::i32_of("products", chunks(numbers))?;
    Ok(Launch {
        kernel: "finish_products".into(),
        file: "optimizer",
        grid: [1, 1, 1],
        block: [CHUNK_THREADS, 1, 1],
        shared: CHUNK_THREADS / 32 * (PRODUCTS * 8) as u32,
        args: vec![Arg::Pointer(scratch), Arg::I32(chunks), Arg::Pointer(total)],
    })
}
