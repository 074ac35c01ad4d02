//! Layer norm over the last dimension (Ba et al. 2016).

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::Result;
use crate::op::{Op, SaveSet, Saved, rows_of, run_rows, shared};
use crate::registry::Sample;
use crate::rows::{Row, RowMut, chunks};
use crate::scalar::Scalar;

/// y = γ (x − μ)/√(σ² + ε) + β; x, y: (…, D), γ and β: (D).
///
/// μ and σ² are the row's mean and population variance. The variance is computed from centred
/// numbers in a second pass, so that a large mean does not cause cancellation.
///
/// VJP, with x̂ = (x − μ)/√(σ² + ε) and h = γ gy: gx = (h − mean(h) − x̂ mean(h x̂))/√(σ² + ε); gγ
/// = Σ gy x̂ and gβ = Σ gy over rows.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// ε, added to the variance.
    pub eps: f64,
}

/// Mean and 1/√(variance + ε) of a row.
#[inline(always)]
fn moments<S: Scalar>(x: Row<S>, eps: f64) -> (S, S) {
    let per_column = 1.0 / x.len() as f64;
    let mean = x.sum(
        #[inline(always)]
        |c| x.at(c),
    ) * per_column;
    let variance = x.sum(
        #[inline(always)]
        |c| {
            x.prefetch_next(c);
            let d = x.at(c) - mean;
            d * d
        },
    ) * per_column;
    (mean, S::constant(1.0) / (variance + eps).sqrt())
}

struct Value(LayerNorm);
impl RowKernel<3, 1> for Value {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, gamma, beta]: [Row<S>; 3], [y]: [RowMut<S>; 1]) {
        let (mean, inverse) = moments(x, self.0.eps);
        for c in chunks::<S>(x.len()) {
            y.put(c, (x.at(c) - mean) * inverse * gamma.at(c) + beta.at(c));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<3, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.layer_norm_value(k, inputs, outputs[0], sizes, self.0.eps)
    }
}

struct VjpInput(LayerNorm);
impl RowKernel<3, 1> for VjpInput {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, gamma, gy]: [Row<S>; 3], [gx]: [RowMut<S>; 1]) {
        let (mean, inverse) = moments(x, self.0.eps);
        let per_column = 1.0 / x.len() as f64;
        let of_h = x.sum(
            #[inline(always)]
            |c| gamma.at(c) * gy.at(c),
        ) * per_column;
        let of_hx = x.sum(
            #[inline(always)]
            |c| gamma.at(c) * gy.at(c) * (x.at(c) - mean),
        ) * inverse
            * per_column;
        for c in chunks::<S>(x.len()) {
            let normal = (x.at(c) - mean) * inverse;
            gx.put(c, (gamma.at(c) * gy.at(c) - of_h - normal * of_hx) * inverse);
        }
    }

    fn launches(&self, _: &'static str, call: &Call<3, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.layer_norm_vjp_input(k, inputs, outputs[0], sizes, self.0.eps)
    }
}

struct VjpParameters(LayerNorm);
impl RowKernel<2, 2> for VjpParameters {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, gy]: [Row<S>; 2], [g_gamma, g_beta]: [RowMut<S>; 2]) {
        let (mean, inverse) = moments(x, self.0.eps);
        for c in chunks::<S>(x.len()) {
            g_gamma.add(c, gy.at(c) * (x.at(c) - mean) * inverse);
            g_beta.add(c, gy.at(c));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<2, 2>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        let (planner, scratch) = (call.planner, call.scratch);
        planner.layer_norm_vjp_parameters(k, inputs, outputs, scratch, sizes, self.0.eps)
    }
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !inputs[0]
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (x, gamma, beta) = (x[0], x[1], x[2]);
        let (n, rows) = (x.columns(), x.numel() / x.columns().max(1));
        let [y] = run_rows(
            self.name(),
            &Value(*self),
            rows,
            [rows_of(x), shared(gamma), shared(beta)],
            [Output::PerRow(n)],
            [x.dims()],
        )?;
        Ok(y)
    }

    fn save_set(&self, needs_grad: &[bool]) -> SaveSet {
        SaveSet { inputs: 1 | u32::from(needs_grad[0]) << 1, output: false }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let x = saved.input(self.name(), 0)?;
        let (n, rows) = (x.columns(), x.numel() / x.columns().max(1));
        let mut gradients = vec![None, None, None];
        if needs_grad[0] {
            let gamma = saved.input(self.name(), 1)?;
            let [gx] = run_rows(
                self.name(),
                &VjpInput(*self),
                rows,
                [rows_of(x), shared(gamma), rows_of(gy)],
                [Output::PerRow(n)],
                [x.dims()],
            )?;
            gradients[0] = Some(gx);
        }
        if needs_grad[1] || needs_grad[2] {
            let [g_gamma, g_beta] = run_rows(
                self.name(),
                &VjpParameters(*self),
                rows,
                [rows_of(x), rows_of(gy)],
                [Output::Summed(n), Output::Summed(n)],
                [&[n], &[n]],
            )?;
            gradients[1] = Some(g_gamma);
            gradients[2] = Some(g_beta);
        }
        Ok(gradients)
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    [(vec![6, 33], 1e-6), (vec![2, 3, 16], 1e-12), (vec![4, 5], 0.1)]
        .map(|(dims, eps)| {
            let d = dims[dims.len() - 1];
            Sample::new(LayerNorm { eps }, &[&dims, &[d], &[d]])
        })
        .into_iter()
        .collect()
}
