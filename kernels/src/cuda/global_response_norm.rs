//! Global response normalisation.

use super::launch::{Arg, Geometry, Launch, Plane, Planner, blocks_of, i32_of, i64_of, passes};
use super::rows::{BlockShape, Operand};
use crate::error::Result;

/// Channels of a block that sums over tokens.
const CHANNELS: usize = 32;
/// Rows of threads of such a block.
const TOKEN_ROWS: usize = 16;

impl Planner {
    /// Σ x² over the tokens of each image. Sizes are B, T, C.
    pub fn token_squares(
        &self,
        k: usize,
        x: Plane,
        squares: Plane,
        sizes: [usize; 3],
    ) -> Result<Vec<Launch>> {
        self.token_launches("token_squares", k, &[x], &[squares], sizes)
    }

    /// Σ x² and Σ gy x over the tokens of each image.
    pub fn token_sums(
        &self,
        k: usize,
        [x, gy]: [Plane; 2],
        sums: [Plane; 2],
        sizes: [usize; 3],
    ) -> Result<Vec<Launch>> {
        self.token_launches("token_sums", k, &[x, gy], &sums, sizes)
    }

    fn token_launches(
        &self,
        name: &'static str,
        k: usize,
        inputs: &[Plane],
        sums: &[Plane],
        [images, tokens, n]: [usize; 3],
    ) -> Result<Vec<Launch>> {
        let blocks = images * n.div_ceil(CHANNELS);
        if blocks == 0 {
            return Ok(Vec::new());
        }
        let size = self.stored.bytes();
        let each = passes(k).map(|(first, count)| {
            let mut args = Vec::new();
            for x in inputs {
                args.extend(x.args(first, images * tokens * n * size));
            }
            for sum in sums {
                args.extend(sum.args(first, images * n * size));
            }
            args.push(Arg::I64(i64_of(name, images)?));
            args.extend([Arg::I32(i32_of(name, tokens)?), Arg::I32(i32_of(name, n)?)]);
            let Geometry { grid, block, shared } = Geometry {
                grid: [blocks_of(name, blocks)?, 1, 1],
                block: [CHANNELS as u32, TOKEN_ROWS as u32, 1],
                shared: (CHANNELS * TOKEN_ROWS * self.stored.arithmetic().bytes()) as u32,
            };
            let (kernel, file) = (self.dual(name, count)?, "global_response_norm");
            Ok(Launch { kernel, file, grid, block, shared, args })
        });
        each.collect()
    }

    /// n from g², over `rows` images of `n` channels.
    pub fn global_response_norm_scale(
        &self,
        k: usize,
        squares: Plane,
        scale: Plane,
        sizes: [usize; 2],
        eps: f64,
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(squares), Operand::Rows(scale)];
        let call = ("global_response_norm", "global_response_norm_scale");
        self.row_launches(call, BlockShape::Row, k, &operands, sizes, &[Arg::F64(eps)])
    }

    /// d from g², s and γ.
    pub fn global_response_norm_slope(
        &self,
        k: usize,
        [squares, s, gamma]: [Plane; 3],
        d: Plane,
        sizes: [usize; 2],
        eps: f64,
    ) -> Result<Vec<Launch>> {
        let operands =
            [Operand::Rows(squares), Operand::Rows(s), Operand::Shared(gamma), Operand::Rows(d)];
        let call = ("global_response_norm", "global_response_norm_slope");
        self.row_launches(call, BlockShape::SmallRow, k, &operands, sizes, &[Arg::F64(eps)])
    }

    /// y = x (1 + γ n) + β. Sizes are B, T, C.
    pub fn global_response_norm_value(
        &self,
        k: usize,
        [x, scale, gamma, beta]: [Plane; 4],
        y: Plane,
        [images, tokens, n]: [usize; 3],
    ) -> Result<Vec<Launch>> {
        let operands = [
            Operand::Rows(x),
            Operand::Groups(scale, tokens),
            Operand::Shared(gamma),
            Operand::Shared(beta),
            Operand::Rows(y),
        ];
        let (call, sizes) =
            (("global_response_norm", "global_response_norm_value"), [images * tokens, n]);
        let constants = [Arg::I32(i32_of(call.1, tokens)?)];
        self.row_launches(call, BlockShape::Element, k, &operands, sizes, &constants)
    }

    /// gx = gy (1 + γ n) + d x.
    pub fn global_response_norm_vjp_input(
        &self,
        k: usize,
        [x, gy, scale, d, gamma]: [Plane; 5],
        gx: Plane,
        [images, tokens, n]: [usize; 3],
    ) -> Result<Vec<Launch>> {
        let operands = [
            Operand::Rows(x),
            Operand::Rows(gy),
            Operand::Groups(scale, tokens),
            Operand::Groups(d, tokens),
            Operand::Shared(gamma),
            Operand::Rows(gx),
        ];
        let call = ("global_response_norm", "global_response_norm_vjp_input");
        let constants = [Arg::I32(i32_of(call.1, tokens)?)];
        self.row_launches(call, BlockShape::Element, k, &operands, [images * tokens, n], &constants)
    }
}
