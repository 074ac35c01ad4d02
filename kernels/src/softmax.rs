//! Softmax over the last dimension.

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::Result;
use crate::op::{Op, SaveSet, Saved, rows_of, run_rows};
use crate::registry::Sample;
use crate::rows::{Row, RowMut, chunks};
use crate::scalar::Scalar;

/// yᵢ = exp(xᵢ − m) / Σⱼ exp(xⱼ − m), where m is the row's maximum. x, y: (…, N).
///
/// VJP from the output: gxᵢ = yᵢ (gyᵢ − Σⱼ gyⱼ yⱼ).
#[derive(Clone, Copy, Debug)]
pub struct Softmax;

pub(crate) struct Value;
impl RowKernel<1, 1> for Value {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x]: [Row<S>; 1], [y]: [RowMut<S>; 1]) {
        // The maximum needs no tangent: softmax does not change if x is shifted.
        let m = x.detached_max();
        let total = x.sum(
            #[inline(always)]
            |c| {
                x.prefetch_next(c);
                y.prefetch_next(c);
                let e = (x.at(c) - m).exp();
                y.put(c, e);
                e
            },
        );
        let scale = S::constant(1.0) / total;
        let e = y.read();
        for c in chunks::<S>(x.len()) {
            y.put(c, e.at(c) * scale);
        }
    }

    fn launches(&self, _: &'static str, call: &Call<1, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.softmax_value(k, inputs[0], outputs[0], sizes)
    }
}

pub(crate) struct Vjp;
impl RowKernel<2, 1> for Vjp {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [y, gy]: [Row<S>; 2], [gx]: [RowMut<S>; 1]) {
        let mean = y.sum(
            #[inline(always)]
            |c| {
                y.prefetch_next(c);
                gy.prefetch_next(c);
                y.at(c) * gy.at(c)
            },
        );
        for c in chunks::<S>(y.len()) {
            gx.put(c, y.at(c) * (gy.at(c) - mean));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<2, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.softmax_vjp(k, inputs, outputs[0], sizes)
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !inputs.contains(&true)
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let x = x[0];
        let (n, rows) = (x.columns(), x.numel() / x.columns().max(1));
        let [y] =
            run_rows(self.name(), &Value, rows, [rows_of(x)], [Output::PerRow(n)], [x.dims()])?;
        Ok(y)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet { inputs: 0, output: true }
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let y = saved.output(self.name())?;
        let (n, rows) = (y.columns(), y.numel() / y.columns().max(1));
        let [gx] = run_rows(
            self.name(),
            &Vjp,
            rows,
            [rows_of(y), rows_of(gy)],
            [Output::PerRow(n)],
            [y.dims()],
        )?;
        Ok(vec![Some(gx)])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    [vec![5, 17], vec![2, 3, 32], vec![3, 1]]
        .map(|dims| Sample::new(Softmax, &[&dims]))
        .into_iter()
        .collect()
}
