//! Sums over rows. Stage one writes a partial sum per range of rows; stage two adds the partial
//! sums in order.

use super::launch::{Address, Arg, Launch, Plane, Planner, i32_of, i64_of, passes, sum_blocks};
use super::rows::Operand;
use crate::error::Result;
use crate::gelu::GeluForm;

/// Partial sums that a block of stage two reads in parallel.
const PARTIALS_PER_BLOCK: u32 = 16;

impl Planner {
    /// Bytes of scratch memory for `slots` sums over `rows` rows of `n` numbers with `k` tangents
    /// in one pass.
    pub fn sum_scratch(&self, slots: usize, rows: usize, n: usize, k: usize) -> usize {
        let planes = 1 + passes(k).map(|(_, count)| count).max().unwrap_or(0);
        sum_blocks(rows) * slots * planes * n * self.stored.arithmetic().bytes()
    }

    /// gb = Σ gy over `rows` rows of `n`: the VJP of a broadcast. Like every sum over rows, gb has
    /// the arithmetic type.
    pub fn sum_rows(
        &self,
        k: usize,
        gy: Plane,
        gb: Plane,
        scratch: Address,
        [rows, n]: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(gy)];
        self.sum_launches("pointwise", "sum_rows", k, &operands, &[gb], scratch, [rows, n], &[])
    }

    /// gγ = Σ gy x over rows.
    pub fn layer_scale_vjp_gamma(
        &self,
        k: usize,
        [x, gy]: [Plane; 2],
        g_gamma: Plane,
        scratch: Address,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let (operands, name) = ([Operand::Rows(x), Operand::Rows(gy)], "layer_scale_vjp_gamma");
        self.sum_launches("pointwise", name, k, &operands, &[g_gamma], scratch, sizes, &[])
    }

    /// gγ and gβ of a layer norm.
    pub fn layer_norm_vjp_parameters(
        &self,
        k: usize,
        [x, gy]: [Plane; 2],
        [g_gamma, g_beta]: [Plane; 2],
        scratch: Address,
        sizes: [usize; 2],
        eps: f64,
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(x), Operand::Rows(gy)];
        let (name, outputs) = ("layer_norm_vjp_parameters", [g_gamma, g_beta]);
        let constants = [Arg::F64(eps)];
        self.sum_launches("layer_norm", name, k, &operands, &outputs, scratch, sizes, &constants)
    }

    /// gx = gy gelu'(x + b) and gb = Σ gx.
    pub fn bias_gelu_vjp(
        &self,
        k: usize,
        form: GeluForm,
        [x, b, gy]: [Plane; 3],
        [gx, gb]: [Plane; 2],
        scratch: Address,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let name = match form {
            GeluForm::Exact => "bias_gelu_vjp",
            GeluForm::Tanh => "bias_gelu_tanh_vjp",
            GeluForm::Quick => "bias_gelu_quick_vjp",
        };
        let operands = [Operand::Rows(x), Operand::Shared(b), Operand::Rows(gy), Operand::Rows(gx)];
        self.sum_launches("gelu", name, k, &operands, &[gb], scratch, sizes, &[])
    }

    /// Launches stage one of `name`, and stage two for each of its sums.
    #[allow(clippy::too_many_arguments)]
    fn sum_launches(
        &self,
        file: &'static str,
        name: &'static str,
        k: usize,
        operands: &[Operand],
        sums: &[Plane],
        scratch: Address,
        [rows, n]: [usize; 2],
        constants: &[Arg],
    ) -> Result<Vec<Launch>> {
        let mut launches = Vec::new();
        for pass in passes(k) {
            if n == 0 {
                break;
            }
            if rows > 0 {
                let geometry = self.by_tile(name, rows, n)?;
                let all = [operands, &[Operand::Plain(scratch)]].concat();
                let call = (file, name);
                launches.push(self.launch(call, geometry, pass, &all, [rows, n], constants)?);
            }
            for (slot, &sum) in sums.iter().enumerate() {
                let slots = [slot, sums.len()];
                launches.push(self.finish(
                    name,
                    scratch,
                    slots,
                    sum,
                    [sum_blocks(rows), n],
                    pass,
                )?);
            }
        }
        Ok(launches)
    }

    /// Stage two: adds the partial sums of `blocks` blocks.
    pub(super) fn finish(
        &self,
        op: &'static str,
        scratch: Address,
        [slot, slots]: [usize; 2],
        sum: Plane,
        [blocks, n]: [usize; 2],
        (first, count): (usize, usize),
    ) -> Result<Launch> {
        let own = self.stored.arithmetic();
        let (size, planes) = (own.bytes(), 1 + count);
        let [value, tangent] = sum.args(first, n * size);
        let columns = i32_of(op, planes * n)?;
        Ok(Launch {
            kernel: format!("sum_partials_{}", own.suffix()),
            file: "pointwise",
            grid: [(columns as u32).div_ceil(32), 1, 1],
            block: [32, PARTIALS_PER_BLOCK, 1],
            shared: 32 * PARTIALS_PER_BLOCK * size as u32,
            args: vec![
                Arg::Pointer(scratch + (slot * planes * n * size) as u64),
                Arg::I64(i64_of(op, slots * planes * n)?),
                Arg::I32(i32_of(op, blocks)?),
                Arg::I32(i32_of(op, n)?),
                Arg::I32(i32_of(op, planes)?),
                value,
                tangent,
            ],
        })
    }
}
