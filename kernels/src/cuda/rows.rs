//! Row kernels: each output row depends on the same row of the inputs.

use super::launch::{Address, Arg, Geometry, Launch, Plane, Planner, i32_of, i64_of, passes};
use crate::error::{Error, Result};
use crate::gelu::GeluForm;
use crate::scalar::MAX_TANGENTS;

/// The memory that a row operation reads and writes on a GPU, and its sizes.
pub struct Call<const I: usize, const O: usize> {
    /// Planner for the storage type of the operands.
    pub planner: Planner,
    /// K, the number of tangents.
    pub tangents: usize,
    /// Inputs.
    pub inputs: [Plane; I],
    /// Which inputs are one row shared by all rows.
    pub shared: [bool; I],
    /// Outputs.
    pub outputs: [Plane; O],
    /// The labels of [`crate::cpu::RowKernel::labels`].
    pub labels: Address,
    /// Memory for partial sums, [`Planner::sum_scratch`] bytes.
    pub scratch: Address,
    /// Number of rows, and columns of the first operand.
    pub sizes: [usize; 2],
}

/// An argument of a row kernel. Determines the distance between its tangents.
#[derive(Clone, Copy)]
pub(super) enum Operand {
    /// `rows` rows of `n` numbers in the storage type.
    Rows(Plane),
    /// One row for every so many rows, in the storage type.
    Groups(Plane, usize),
    /// One shared row of `n` numbers in the arithmetic type.
    Shared(Plane),
    /// One number per row in the storage type.
    Single(Plane),
    /// A pointer without tangents.
    Plain(Address),
}

impl Operand {
    /// Address of the rows, if the operand has rows.
    fn value(&self) -> Option<Address> {
        match self {
            Operand::Rows(plane) | Operand::Single(plane) | Operand::Groups(plane, _) => {
                Some(plane.value)
            }
            Operand::Shared(_) | Operand::Plain(_) => None,
        }
    }
}

/// Which blocks a kernel uses.
pub(super) enum BlockShape {
    Row,
    SmallRow,
    Element,
}

impl Planner {
    /// y = γ (x − μ)/√(σ² + ε) + β over `rows` rows of `n`.
    pub fn layer_norm_value(
        &self,
        k: usize,
        [x, gamma, beta]: [Plane; 3],
        y: Plane,
        sizes: [usize; 2],
        eps: f64,
    ) -> Result<Vec<Launch>> {
        let operands =
            [Operand::Rows(x), Operand::Shared(gamma), Operand::Shared(beta), Operand::Rows(y)];
        let call = ("layer_norm", "layer_norm_value");
        self.row_launches(call, BlockShape::Row, k, &operands, sizes, &[Arg::F64(eps)])
    }

    /// gx of a layer norm.
    pub fn layer_norm_vjp_input(
        &self,
        k: usize,
        [x, gamma, gy]: [Plane; 3],
        gx: Plane,
        sizes: [usize; 2],
        eps: f64,
    ) -> Result<Vec<Launch>> {
        let operands =
            [Operand::Rows(x), Operand::Shared(gamma), Operand::Rows(gy), Operand::Rows(gx)];
        let call = ("layer_norm", "layer_norm_vjp_input");
        self.row_launches(call, BlockShape::Row, k, &operands, sizes, &[Arg::F64(eps)])
    }

    /// y = softmax(x) along rows.
    pub fn softmax_value(
        &self,
        k: usize,
        x: Plane,
        y: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(x), Operand::Rows(y)];
        self.row_launches(("softmax", "softmax_value"), BlockShape::Row, k, &operands, sizes, &[])
    }

    /// gx of a softmax, from its output y.
    pub fn softmax_vjp(
        &self,
        k: usize,
        [y, gy]: [Plane; 2],
        gx: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(y), Operand::Rows(gy), Operand::Rows(gx)];
        self.row_launches(("softmax", "softmax_vjp"), BlockShape::Row, k, &operands, sizes, &[])
    }

    /// Cross-entropy of each row with its label (`u32`). y has one number per row.
    pub fn cross_entropy_value(
        &self,
        k: usize,
        x: Plane,
        labels: Address,
        y: Plane,
        sizes: [usize; 2],
        smoothing: f64,
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(x), Operand::Plain(labels), Operand::Single(y)];
        let call = ("cross_entropy", "cross_entropy_value");
        self.row_launches(call, BlockShape::Row, k, &operands, sizes, &[Arg::F64(smoothing)])
    }

    /// gx of the cross-entropy. gy has one number per row.
    pub fn cross_entropy_vjp(
        &self,
        k: usize,
        [x, gy]: [Plane; 2],
        labels: Address,
        gx: Plane,
        sizes: [usize; 2],
        smoothing: f64,
    ) -> Result<Vec<Launch>> {
        let operands =
            [Operand::Rows(x), Operand::Plain(labels), Operand::Single(gy), Operand::Rows(gx)];
        let call = ("cross_entropy", "cross_entropy_vjp");
        self.row_launches(call, BlockShape::Row, k, &operands, sizes, &[Arg::F64(smoothing)])
    }

    /// y = gelu(x).
    pub fn gelu_value(
        &self,
        k: usize,
        form: GeluForm,
        x: Plane,
        y: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let name = match form {
            GeluForm::Exact => "gelu_value",
            GeluForm::Tanh => "gelu_tanh_value",
            GeluForm::Quick => "gelu_quick_value",
        };
        let operands = [Operand::Rows(x), Operand::Rows(y)];
        self.row_launches(("gelu", name), BlockShape::Element, k, &operands, sizes, &[])
    }

    /// gx = gy gelu'(x).
    pub fn gelu_vjp(
        &self,
        k: usize,
        form: GeluForm,
        [x, gy]: [Plane; 2],
        gx: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let name = match form {
            GeluForm::Exact => "gelu_vjp",
            GeluForm::Tanh => "gelu_tanh_vjp",
            GeluForm::Quick => "gelu_quick_vjp",
        };
        let operands = [Operand::Rows(x), Operand::Rows(gy), Operand::Rows(gx)];
        self.row_launches(("gelu", name), BlockShape::Element, k, &operands, sizes, &[])
    }

    /// y = gelu(x + b).
    pub fn bias_gelu_value(
        &self,
        k: usize,
        form: GeluForm,
        [x, b]: [Plane; 2],
        y: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let name = match form {
            GeluForm::Exact => "bias_gelu_value",
            GeluForm::Tanh => "bias_gelu_tanh_value",
            GeluForm::Quick => "bias_gelu_quick_value",
        };
        let operands = [Operand::Rows(x), Operand::Shared(b), Operand::Rows(y)];
        self.row_launches(("gelu", name), BlockShape::Element, k, &operands, sizes, &[])
    }

    /// y = a σ(a) b.
    pub fn swiglu_value(
        &self,
        k: usize,
        [a, b]: [Plane; 2],
        y: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(a), Operand::Rows(b), Operand::Rows(y)];
        self.row_launches(("swiglu", "swiglu_value"), BlockShape::Element, k, &operands, sizes, &[])
    }

    /// ga and gb of [`Planner::swiglu_value`].
    pub fn swiglu_vjp(
        &self,
        k: usize,
        inputs: [Plane; 3],
        outputs: [Plane; 2],
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let [a, b, gy, ga, gb] =
            [inputs[0], inputs[1], inputs[2], outputs[0], outputs[1]].map(Operand::Rows);
        let operands = [a, b, gy, ga, gb];
        self.row_launches(("swiglu", "swiglu_vjp"), BlockShape::Element, k, &operands, sizes, &[])
    }

    /// y = a + b, with equal shapes.
    pub fn add_value(
        &self,
        k: usize,
        [a, b]: [Plane; 2],
        y: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(a), Operand::Rows(b), Operand::Rows(y)];
        self.row_launches(("pointwise", "add_value"), BlockShape::Element, k, &operands, sizes, &[])
    }

    /// y = a + b, where b is one row, added to every row.
    pub fn bias_value(
        &self,
        k: usize,
        [a, b]: [Plane; 2],
        y: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(a), Operand::Shared(b), Operand::Rows(y)];
        self.row_launches(
            ("pointwise", "bias_value"),
            BlockShape::Element,
            k,
            &operands,
            sizes,
            &[],
        )
    }

    /// y = r + (x + b), where b is one row, added to every row.
    pub fn bias_residual_value(
        &self,
        k: usize,
        [x, b, r]: [Plane; 3],
        y: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(x), Operand::Shared(b), Operand::Rows(r), Operand::Rows(y)];
        self.row_launches(
            ("pointwise", "bias_residual_value"),
            BlockShape::Element,
            k,
            &operands,
            sizes,
            &[],
        )
    }

    /// y = factor · x.
    pub fn scale_value(
        &self,
        k: usize,
        x: Plane,
        y: Plane,
        sizes: [usize; 2],
        factor: f64,
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(x), Operand::Rows(y)];
        let (call, constants) = (("pointwise", "scale_value"), [Arg::F64(factor)]);
        self.row_launches(call, BlockShape::Element, k, &operands, sizes, &constants)
    }

    /// y = x γ. With gy instead of x it computes gx.
    pub fn layer_scale_value(
        &self,
        k: usize,
        [x, gamma]: [Plane; 2],
        y: Plane,
        sizes: [usize; 2],
    ) -> Result<Vec<Launch>> {
        let operands = [Operand::Rows(x), Operand::Shared(gamma), Operand::Rows(y)];
        self.row_launches(
            ("pointwise", "layer_scale_value"),
            BlockShape::Element,
            k,
            &operands,
            sizes,
            &[],
        )
    }

    /// Launches of `name` from `file`, one per pass over the tangents.
    pub(super) fn row_launches(
        &self,
        call: (&'static str, &'static str),
        by: BlockShape,
        k: usize,
        operands: &[Operand],
        [rows, n]: [usize; 2],
        constants: &[Arg],
    ) -> Result<Vec<Launch>> {
        if rows * n == 0 {
            return Ok(Vec::new());
        }
        let each = passes(k).map(|pass| {
            let geometry = match by {
                BlockShape::Row => self.by_row(call.1, rows, n)?,
                BlockShape::SmallRow => self.by_small_row(call.1, rows, n)?,
                BlockShape::Element => self.by_element(call.1, rows, n)?,
            };
            self.launch(call, geometry, pass, operands, [rows, n], constants)
        });
        each.collect()
    }

    /// One launch of `name` from `file`, for `count` tangents from `first` on.
    pub(super) fn launch(
        &self,
        (file, name): (&'static str, &'static str),
        geometry: Geometry,
        (first, count): (usize, usize),
        operands: &[Operand],
        [rows, n]: [usize; 2],
        constants: &[Arg],
    ) -> Result<Launch> {
        // Each launch recomputes the values, so it must not overwrite an input that the next launch
        // reads.
        if let (true, Some((last, others))) = (first > 0, operands.split_last())
            && let (Some(at), false) = (last.value(), others.is_empty())
            && others.iter().any(|other| other.value() == Some(at))
        {
            return Err(Error::shape(
                name,
                format!("an output distinct from the inputs for more than {MAX_TANGENTS} tangents"),
                "one of the inputs",
            ));
        }
        let (size, own) = (self.stored.bytes(), self.stored.arithmetic().bytes());
        let mut args = Vec::new();
        for operand in operands {
            match *operand {
                Operand::Rows(x) => args.extend(x.args(first, rows * n * size)),
                Operand::Groups(x, each) => args.extend(x.args(first, rows / each * n * size)),
                Operand::Shared(x) => args.extend(x.args(first, n * own)),
                Operand::Single(x) => args.extend(x.args(first, rows * size)),
                Operand::Plain(at) => args.push(Arg::Pointer(at)),
            }
        }
        args.extend([Arg::I64(i64_of(name, rows)?), Arg::I32(i32_of(name, n)?)]);
        args.extend_from_slice(constants);
        let Geometry { grid, block, shared } = geometry;
        Ok(Launch { kernel: self.dual(name, count)?, file, grid, block, shared, args })
    }
}
