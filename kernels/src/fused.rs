//! A bias fused with the operation after it. On a GPU this saves one pass over the activations. On
//! the CPU a product starts from its bias, which costs nothing.

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::gelu::{Gelu, GeluForm};
use crate::op::{Op, SaveSet, Saved, rows_of, run_rows, shared};
use crate::pointwise::SumRows;
use crate::registry::Sample;
use crate::rows::{Row, RowMut, chunks};
use crate::scalar::Scalar;

/// y = gelu(x + b); x: (…, D), b: (D). gx = gy gelu'(x + b); gb = Σ gx over rows.
#[derive(Clone, Copy, Debug)]
pub struct BiasGelu {
    /// The form of the GELU.
    pub form: GeluForm,
}

/// y = r + (x + b): a projection's bias and the residual connection around it. x, r: (…, D), b:
/// (D). gx = gr = gy; gb = Σ gy over rows.
#[derive(Clone, Copy, Debug)]
pub struct BiasResidual;

/// Rows and columns of x, after checking that b has as many columns.
fn sizes(op: &'static str, x: &[usize], b: &[usize]) -> Result<[usize; 2]> {
    let n = x.last().copied().unwrap_or(0);
    match b == [n] && n > 0 {
        true => Ok([x.iter().product::<usize>() / n, n]),
        false => Err(Error::shape(op, "x (…, D) and b (D)", format!("x {x:?} and b {b:?}"))),
    }
}

struct GeluValue(Gelu);
impl RowKernel<2, 1> for GeluValue {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, b]: [Row<S>; 2], [y]: [RowMut<S>; 1]) {
        for c in chunks::<S>(x.len()) {
            y.put(c, self.0.of(x.at(c) + b.at(c)));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<2, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.bias_gelu_value(k, self.0.form, inputs, outputs[0], sizes)
    }
}

struct GeluVjp(Gelu);
impl RowKernel<3, 2> for GeluVjp {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, b, gy]: [Row<S>; 3], [gx, gb]: [RowMut<S>; 2]) {
        for c in chunks::<S>(x.len()) {
            let g = gy.at(c) * self.0.slope_of(x.at(c) + b.at(c));
            gx.put(c, g);
            gb.add(c, g);
        }
    }

    fn launches(&self, _: &'static str, call: &Call<3, 2>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, scratch, sizes, .. } = *call;
        call.planner.bias_gelu_vjp(k, self.0.form, inputs, outputs, scratch, sizes)
    }
}

impl Op for BiasGelu {
    fn name(&self) -> &'static str {
        "bias_gelu"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !inputs.contains(&true)
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (x, b) = (x[0], x[1]);
        let [rows, n] = sizes(self.name(), x.dims(), b.dims())?;
        let kernel = GeluValue(Gelu { form: self.form });
        let operands = [rows_of(x), shared(b)];
        let outputs = [Output::PerRow(n)];
        let [y] = run_rows(self.name(), &kernel, rows, operands, outputs, [x.dims()])?;
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
        let (x, b) = (saved.input(self.name(), 0)?, saved.input(self.name(), 1)?);
        let [rows, n] = sizes(self.name(), x.dims(), b.dims())?;
        let [gx, gb] = run_rows(
            self.name(),
            &GeluVjp(Gelu { form: self.form }),
            rows,
            [rows_of(x), shared(b), rows_of(gy)],
            [Output::PerRow(n), Output::Summed(n)],
            [x.dims(), b.dims()],
        )?;
        Ok(vec![needs_grad[0].then_some(gx), needs_grad[1].then_some(gb)])
    }
}

struct ResidualValue;
impl RowKernel<3, 1> for ResidualValue {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, b, r]: [Row<S>; 3], [y]: [RowMut<S>; 1]) {
        for c in chunks::<S>(x.len()) {
            y.put(c, r.at(c) + (x.at(c) + b.at(c)));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<3, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.bias_residual_value(k, inputs, outputs[0], sizes)
    }
}

impl Op for BiasResidual {
    fn name(&self) -> &'static str {
        "bias_residual"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (x, b, r) = (x[0], x[1], x[2]);
        let [rows, n] = sizes(self.name(), x.dims(), b.dims())?;
        let operands = [rows_of(x), shared(b), rows_of(r)];
        let outputs = [Output::PerRow(n)];
        let [y] = run_rows(self.name(), &ResidualValue, rows, operands, outputs, [r.dims()])?;
        Ok(y)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let [rows, n] = sizes(self.name(), gy.dims(), &saved.dims[1])?;
        let gb = match needs_grad[1] {
            true => {
                let outputs = [Output::Summed(n)];
                let operands = [rows_of(gy)];
                let [gb] = run_rows(self.name(), &SumRows, rows, operands, outputs, [&[n]])?;
                Some(gb)
            }
            false => None,
        };
        Ok(vec![needs_grad[0].then(|| gy.clone()), gb, needs_grad[2].then(|| gy.clone())])
    }
}

/// Test shapes of [`BiasGelu`].
pub fn bias_gelu_samples() -> Vec<Sample> {
    let one = |form| {
        [vec![7, 33], vec![2, 1, 3], vec![4, 64]]
            .map(|dims| Sample::new(BiasGelu { form }, &[&dims, &dims[dims.len() - 1..]]))
    };
    GeluForm::ALL.into_iter().flat_map(one).collect()
}

/// Test shapes of [`BiasResidual`].
pub fn bias_residual_samples() -> Vec<Sample> {
    [vec![7, 33], vec![2, 1, 3], vec![4, 64]]
        .map(|dims| Sample::new(BiasResidual, &[&dims, &dims[dims.len() - 1..], &dims]))
        .into()
}
