//! SwiGLU's gate (Shazeer 2020, arXiv 2002.05202).

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::gelu::sigmoid;
use crate::op::{Op, SaveSet, Saved, rows_of, run_rows};
use crate::registry::Sample;
use crate::rows::{Row, RowMut, chunks};
use crate::scalar::Scalar;

/// y = a σ(a) b, elementwise: the SiLU of a times b. a and b have the same shape.
///
/// ga = gy b σ(a)(1 + a (1 − σ(a))); gb = gy a σ(a).
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu;

struct Value;
impl RowKernel<2, 1> for Value {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [a, b]: [Row<S>; 2], [y]: [RowMut<S>; 1]) {
        for c in chunks::<S>(a.len()) {
            let x = a.at(c);
            y.put(c, x * sigmoid(x) * b.at(c));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<2, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.swiglu_value(k, inputs, outputs[0], sizes)
    }
}

struct Vjp;
impl RowKernel<3, 2> for Vjp {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [a, b, gy]: [Row<S>; 3], [ga, gb]: [RowMut<S>; 2]) {
        for c in chunks::<S>(a.len()) {
            let (x, g) = (a.at(c), gy.at(c));
            let s = sigmoid(x);
            ga.put(c, g * b.at(c) * s * (x * (-s + 1.0) + 1.0));
            gb.put(c, g * x * s);
        }
    }

    fn launches(&self, _: &'static str, call: &Call<3, 2>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.swiglu_vjp(k, inputs, outputs, sizes)
    }
}

impl Op for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match x[0] == x[1] {
            true => Ok(x[0].to_vec()),
            false => {
                let found = format!("{:?} and {:?}", x[0], x[1]);
                Err(Error::shape(self.name(), "two inputs of one shape", found))
            }
        }
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !inputs[0]
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (a, b) = (x[0], x[1]);
        self.shape(&[a.dims(), b.dims()])?;
        let n = a.columns();
        let operands = [rows_of(a), rows_of(b)];
        let (rows, outputs) = (a.numel() / n.max(1), [Output::PerRow(n)]);
        let [y] = run_rows(self.name(), &Value, rows, operands, outputs, [a.dims()])?;
        Ok(y)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet { inputs: 0b11, output: false }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let (a, b) = (saved.input(self.name(), 0)?, saved.input(self.name(), 1)?);
        let n = a.columns();
        let operands = [rows_of(a), rows_of(b), rows_of(gy)];
        let (rows, outputs) = (a.numel() / n.max(1), [Output::PerRow(n), Output::PerRow(n)]);
        let dims = [a.dims(), b.dims()];
        let [ga, gb] = run_rows(self.name(), &Vjp, rows, operands, outputs, dims)?;
        Ok(vec![needs_grad[0].then_some(ga), needs_grad[1].then_some(gb)])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    [vec![7, 33], vec![2, 1, 3], vec![4, 64]]
        .map(|dims| Sample::new(SwiGlu, &[&dims, &dims]))
        .into()
}
