//! Depthwise convolutions.

use super::launch::{
    Address, Arg, Geometry, Launch, Plane, Planner, blocks_of, i32_of, i64_of, passes, tiles_of,
};
use crate::depthwise_conv::Sizes;
use crate::error::{Error, Result};

/// Channels of a block.
const CHANNELS: usize = 32;
/// Neighbouring columns that a thread computes: `RUN` in depthwise_conv.cu.
const RUN: usize = 4;
/// Runs of columns of a block.
const RUNS: usize = 8;
/// Maximum places of a filter row in a block of the weight's gradient.
const PLACES: usize = 16;
/// Maximum number of row ranges in a sum over rows. There are also blocks for the channels and
/// places, so fewer ranges than in other sums suffice.
const RANGES: usize = 64;
/// Shared memory of a launch, in bytes.
const SHARED: usize = 48 << 10;

impl Planner {
    /// y = conv(x, w) + b, where b may be absent.
    pub fn depthwise_conv_value(
        &self,
        k: usize,
        [x, w]: [Plane; 2],
        b: Option<Plane>,
        y: Plane,
        sizes: &Sizes,
    ) -> Result<Vec<Launch>> {
        let b = b.unwrap_or(Plane { value: 0, tangent: 0 });
        self.correlate("depthwise_conv_value", k, [x, w], Some(b), y, sizes)
    }

    /// gx of a depthwise convolution with these `sizes`.
    pub fn depthwise_conv_vjp_input(
        &self,
        k: usize,
        [gy, w]: [Plane; 2],
        gx: Plane,
        sizes: &Sizes,
    ) -> Result<Vec<Launch>> {
        self.correlate("depthwise_conv_vjp_input", k, [gy, w], None, gx, &sizes.adjoint())
    }

    fn correlate(
        &self,
        name: &'static str,
        k: usize,
        [from, w]: [Plane; 2],
        b: Option<Plane>,
        to: Plane,
        s: &Sizes,
    ) -> Result<Vec<Launch>> {
        let runs = s.images * s.to[0] * s.to[1].div_ceil(RUN);
        if runs * s.channels == 0 {
            return Ok(Vec::new());
        }
        let (size, own) = (self.stored.bytes(), self.stored.arithmetic().bytes());
        let each = passes(k).map(|(first, count)| {
            let staged = CHANNELS * s.kernel[1] * (1 + count) * own;
            if staged > SHARED {
                let expected = format!("at most {SHARED} bytes for a row of filters");
                return Err(Error::shape(name, expected, format!("{staged}")));
            }
            let mut args = Vec::from(from.args(first, s.images * s.image_of_input() * size));
            args.extend(w.args(first, s.filter_numbers() * own));
            if let Some(b) = b {
                args.extend(b.args(first, s.channels * own));
            }
            args.extend(to.args(first, s.images * s.image_of_output() * size));
            let blocks = blocks_of(name, runs.div_ceil(RUNS))?;
            let grid = [blocks, tiles_of(name, s.channels.div_ceil(CHANNELS))?, 1];
            let block = [CHANNELS as u32, RUNS as u32, 1];
            let geometry = Geometry { grid, block, shared: staged as u32 };
            self.conv(name, geometry, args, s, count)
        });
        each.collect()
    }

    /// gw of a depthwise convolution. `scratch` has [`Planner::sum_scratch`] bytes for one sum over
    /// the rows of the grids of gy, of as many numbers as w has.
    pub fn depthwise_conv_vjp_weight(
        &self,
        k: usize,
        [x, gy]: [Plane; 2],
        gw: Plane,
        scratch: Address,
        s: &Sizes,
    ) -> Result<Vec<Launch>> {
        let name = "depthwise_conv_vjp_weight";
        let (size, n) = (self.stored.bytes(), s.filter_numbers());
        let ranges = (s.images * s.to[0]).min(RANGES);
        let mut launches = Vec::new();
        for pass @ (first, count) in passes(k) {
            if n == 0 {
                break;
            }
            if ranges > 0 {
                let mut args = Vec::from(x.args(first, s.images * s.image_of_input() * size));
                args.extend(gy.args(first, s.images * s.image_of_output() * size));
                args.push(Arg::Pointer(scratch));
                let places = s.kernel[1].min(PLACES);
                let rows = s.kernel[0] * s.kernel[1].div_ceil(places);
                let groups = tiles_of(name, s.channels.div_ceil(CHANNELS))?;
                let grid = [ranges as u32, groups, tiles_of(name, rows)?];
                let block = [CHANNELS as u32, places as u32, 1];
                let geometry = Geometry { grid, block, shared: 0 };
                launches.push(self.conv(name, geometry, args, s, count)?);
            }
            launches.push(self.finish(name, scratch, [0, 1], gw, [ranges, n], pass)?);
        }
        Ok(launches)
    }

    fn conv(
        &self,
        name: &'static str,
        Geometry { grid, block, shared }: Geometry,
        mut args: Vec<Arg>,
        s: &Sizes,
        count: usize,
    ) -> Result<Launch> {
        args.push(Arg::I64(i64_of(name, s.images)?));
        i32_of(name, s.filter_numbers())?;
        let ([height, width], [rows, cols], [kh, kw]) = (s.from, s.to, s.kernel);
        for size in [height, width, rows, cols, s.channels, kh, kw] {
            args.push(Arg::I32(i32_of(name, size)?));
        }
        for side in s.padding {
            let found = i32::try_from(side);
            let error = |_| Error::shape(name, "padding of at most 2³¹ numbers", side.to_string());
            args.push(Arg::I32(found.map_err(error)?));
        }
        let kernel = self.dual(name, count)?;
        Ok(Launch { kernel, file: "depthwise_conv", grid, block, shared, args })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::StorageType;

    #[test]
    fn filters_that_do_not_fit_shared_memory_are_errors() {
        let plane = Plane { value: 16, tangent: 16 };
        let sizes = |kw: usize| Sizes {
            images: 1,
            channels: 3,
            from: [1, kw],
            to: [1, 1],
            kernel: [1, kw],
            padding: [0, 0],
        };
        let plan = Planner::new(StorageType::F32);
        let value = |kw| plan.depthwise_conv_value(2, [plane; 2], None, plane, &sizes(kw));
        assert_eq!(value(128).unwrap().len(), 1);
        let text = value(129).unwrap_err().to_string();
        assert!(text.contains("49152 bytes for a row of filters, found 49536"), "{text}");
    }
}
