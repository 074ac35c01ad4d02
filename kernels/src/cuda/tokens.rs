//! Token rearrangements and conversions of the storage type. A block of K tangents is treated as K
//! times as many images.

use super::launch::{Address, Arg, Geometry, Launch, Planner, blocks_of, i32_of, i64_of};
use crate::error::{Error, Result};

/// Numbers per thread of a cast: `CAST_WIDTH` in cast.cu.
const CAST_WIDTH: usize = 8;
/// Side of the square that a block transposes: `SQUARE` in tokens.cu.
const SQUARE: u32 = 32;
/// Rows of threads that transpose it.
const SQUARE_ROWS: u32 = 8;

impl Planner {
    /// (B, C, H, W) → (B, N, C·h·w), or its adjoint. Sizes are C, H, W, and h, w of a patch.
    pub fn patches(
        &self,
        adjoint: bool,
        [from, to]: [Address; 2],
        images: usize,
        [channels, height, width]: [usize; 3],
        [h, w]: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let name = if adjoint { "patches_vjp" } else { "patches_value" };
        if h == 0 || w == 0 || !height.is_multiple_of(h) || !width.is_multiple_of(w) {
            let expected = format!("images that {h} × {w} patches tile");
            return Err(Error::shape(name, expected, format!("images of {height} × {width}")));
        }
        // The contiguous piece is one row of pixels of a patch.
        let unit = self.unit(&[w], &[from, to]);
        let of = |pixels: usize| pixels * self.stored.bytes() / unit;
        let sizes = [channels, height, of(width), h, of(w)];
        let mut args = vec![Arg::Pointer(from), Arg::Pointer(to), Arg::I64(i64_of(name, images)?)];
        for size in sizes {
            args.push(Arg::I32(i32_of(name, size)?));
        }
        copy(name, unit, images * channels * height * of(width), args)
    }

    /// (B, H·W, C) → (B, (H/h)·(W/w), C·h·w), or its adjoint. Sizes are H, W, C, and h, w of a
    /// patch.
    pub fn token_patches(
        &self,
        adjoint: bool,
        [from, to]: [Address; 2],
        images: usize,
        [height, width, channels]: [usize; 3],
        [h, w]: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let name = if adjoint { "token_patches_vjp" } else { "token_patches_value" };
        if h == 0 || w == 0 || !height.is_multiple_of(h) || !width.is_multiple_of(w) {
            let expected = format!("a grid that {h} × {w} patches tile");
            return Err(Error::shape(name, expected, format!("{height} × {width} tokens")));
        }
        let mut args = vec![Arg::Pointer(from), Arg::Pointer(to), Arg::I64(i64_of(name, images)?)];
        for size in [height, width, channels, h, w] {
            args.push(Arg::I32(i32_of(name, size)?));
        }
        copy(name, self.stored.bytes(), images * height * width * channels, args)
    }

    /// (B, T, D) → (B, D, T). Sizes are T and D.
    pub fn transpose_tokens(
        &self,
        [from, to]: [Address; 2],
        images: usize,
        [tokens, n]: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let name = "transpose_tokens_value";
        if images * tokens * n == 0 {
            return Ok(Vec::new());
        }
        let unit = self.stored.bytes();
        let blocks = images * tokens.div_ceil(SQUARE as usize) * n.div_ceil(SQUARE as usize);
        let args = vec![
            Arg::Pointer(from),
            Arg::Pointer(to),
            Arg::I32(i32_of(name, tokens)?),
            Arg::I32(i32_of(name, n)?),
        ];
        Ok(vec![Launch {
            kernel: format!("{name}_b{unit}"),
            file: "tokens",
            grid: [blocks_of(name, blocks)?, 1, 1],
            block: [SQUARE, SQUARE_ROWS, 1],
            // A column more than the square, so that its columns are in different banks.
            shared: SQUARE * (SQUARE + 1) * unit as u32,
            args,
        }])
    }

    /// `count` numbers from index `first` of each of `images` images of `len` numbers: some tokens
    /// of an image, or some rows of a weight.
    pub fn slice_value(
        &self,
        [x, y]: [Address; 2],
        images: usize,
        len: usize,
        [first, count]: [usize; 2],
    ) -> Result<Vec<Launch>> {
        self.slice("slice_value", [x, y], images, len, [first, count], images * count)
    }

    /// VJP of the slice. gx is zero outside it.
    pub fn slice_vjp(
        &self,
        [gy, gx]: [Address; 2],
        images: usize,
        len: usize,
        [first, count]: [usize; 2],
    ) -> Result<Vec<Launch>> {
        self.slice("slice_vjp", [gy, gx], images, len, [first, count], images * len)
    }

    fn slice(
        &self,
        name: &'static str,
        [from, to]: [Address; 2],
        images: usize,
        len: usize,
        [first, count]: [usize; 2],
        written: usize,
    ) -> Result<Vec<Launch>> {
        if first.checked_add(count).is_none_or(|end| end > len) {
            let found = format!("{count} numbers from index {first} on");
            return Err(Error::shape(name, format!("a range within {len} numbers"), found));
        }
        let unit = self.unit(&[len, first, count], &[from, to]);
        let of = |numbers: usize| i64_of(name, numbers * self.stored.bytes() / unit);
        let args = vec![
            Arg::Pointer(from),
            Arg::Pointer(to),
            Arg::I64(i64_of(name, images)?),
            Arg::I64(of(len)?),
            Arg::I64(of(first)?),
            Arg::I64(of(count)?),
        ];
        copy(name, unit, written * self.stored.bytes() / unit, args)
    }

    /// Puts `prefix` numbers of t in front of the `len` numbers of each image (or row). Each group of
    /// `share` consecutive images has its own t: the batch for the value, and the same for each
    /// tangent. Address 0 stands for zeros.
    pub fn prepend_value(
        &self,
        [t, x]: [Address; 2],
        y: Address,
        [images, share]: [usize; 2],
        [prefix, len]: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let name = "prepend_value";
        let unit = self.unit(&[prefix, len], &[t, x, y]);
        let of = |numbers: usize| i64_of(name, numbers * self.stored.bytes() / unit);
        let args = vec![
            Arg::Pointer(t),
            Arg::Pointer(x),
            Arg::Pointer(y),
            Arg::I64(i64_of(name, images)?),
            Arg::I64(i64_of(name, share)?),
            Arg::I64(of(prefix)?),
            Arg::I64(of(len)?),
        ];
        copy(name, unit, images * (prefix + len) * self.stored.bytes() / unit, args)
    }

    /// Mean over the tokens after the first `skip`, (B, T, D) → (B, D), or its adjoint.
    pub fn mean_tokens(
        &self,
        adjoint: bool,
        [from, to]: [Address; 2],
        images: usize,
        [tokens, n]: [usize; 2],
        skip: usize,
    ) -> Result<Vec<Launch>> {
        let name = if adjoint { "mean_tokens_vjp" } else { "mean_tokens_value" };
        if skip >= tokens {
            let found = format!("{skip} of {tokens} tokens left out");
            return Err(Error::shape(name, "at least one token in the mean", found));
        }
        let mut args = vec![Arg::Pointer(from), Arg::Pointer(to), Arg::I64(i64_of(name, images)?)];
        for size in [tokens, n, skip] {
            args.push(Arg::I32(i32_of(name, size)?));
        }
        let written = if adjoint { images * tokens * n } else { images * n };
        let suffix = self.stored.suffix();
        unit_launch("tokens", name, format!("{name}_{suffix}"), written, args)
    }

    /// Rounds f32 numbers to bf16.
    pub fn to_bf16([x, y]: [Address; 2], numbers: usize) -> Result<Vec<Launch>> {
        cast("cast_f32_bf16", [x, y], numbers)
    }

    /// Widens bf16 numbers to f32.
    pub fn from_bf16([x, y]: [Address; 2], numbers: usize) -> Result<Vec<Launch>> {
        cast("cast_bf16_f32", [x, y], numbers)
    }

    /// The largest copy unit in bytes, 2 to 16, that divides all lengths and addresses.
    fn unit(&self, lengths: &[usize], addresses: &[Address]) -> usize {
        let size = self.stored.bytes();
        let fits = |unit: &usize| {
            lengths.iter().all(|n| (n * size).is_multiple_of(*unit))
                && addresses.iter().all(|at| at.is_multiple_of(*unit as u64))
        };
        [16, 8, 4].into_iter().find(fits).unwrap_or(2)
    }
}

fn copy(name: &'static str, unit: usize, written: usize, args: Vec<Arg>) -> Result<Vec<Launch>> {
    unit_launch("tokens", name, format!("{name}_b{unit}"), written, args)
}

fn cast(name: &'static str, [x, y]: [Address; 2], numbers: usize) -> Result<Vec<Launch>> {
    let args = vec![Arg::Pointer(x), Arg::Pointer(y), Arg::I64(i64_of(name, numbers)?)];
    unit_launch("cast", name, name.into(), numbers.div_ceil(CAST_WIDTH), args)
}

fn unit_launch(
    file: &'static str,
    name: &'static str,
    kernel: String,
    units: usize,
    args: Vec<Arg>,
) -> Result<Vec<Launch>> {
    if units == 0 {
        return Ok(Vec::new());
    }
    let Geometry { grid, block, shared } = Planner::by_unit(name, units)?;
    Ok(vec![Launch { kernel, file, grid, block, shared, args }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::StorageType;

    #[test]
    fn mismatched_sizes_are_errors() {
        let plan = Planner::new(StorageType::F32);
        let at = [16, 32];
        let assert_error = |found: Result<Vec<Launch>>, op: &str, part: &str| {
            let text = found.unwrap_err().to_string();
            assert!(text.starts_with(op) && text.contains(part), "{text}");
        };
        for patch in [[0, 2], [2, 0], [3, 2], [2, 3]] {
            let found = plan.patches(false, at, 1, [3, 4, 4], patch);
            assert_error(found, "patches_value", "found images of 4 × 4");
        }
        for patch in [[0, 2], [2, 0], [3, 2], [2, 3]] {
            let found = plan.token_patches(true, at, 1, [4, 4, 3], patch);
            assert_error(found, "token_patches_vjp", "found 4 × 4 tokens");
        }
        let found = plan.transpose_tokens(at, 1 << 31, [1, 1]);
        assert_error(found, "transpose_tokens_value", "blocks in a launch");
        for [first, count] in [[0, 9], [8, 1], [usize::MAX, 1]] {
            assert_error(
                plan.slice_value(at, 1, 8, [first, count]),
                "slice_value",
                "a range within 8 numbers",
            );
            assert_error(
                plan.slice_vjp(at, 1, 8, [first, count]),
                "slice_vjp",
                "a range within 8 numbers",
            );
        }
        for (adjoint, op) in [(false, "mean_tokens_value"), (true, "mean_tokens_vjp")] {
            assert_error(
                plan.mean_tokens(adjoint, at, 1, [5, 8], 5),
                op,
                "found 5 of 5 tokens left out",
            );
        }
    }
}
