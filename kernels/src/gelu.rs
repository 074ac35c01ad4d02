//! GELU, y = x Φ(x) (Hendrycks & Gimpel 2016): exact, or the tanh approximation of §2.

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::Result;
use crate::op::{Op, SaveSet, Saved, rows_of, run_rows};
use crate::registry::Sample;
use crate::rows::{Row, RowMut, chunks};
use crate::scalar::Scalar;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// √(2/π), the inner factor of the tanh form.
const SLOPE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
/// The cubic coefficient of the tanh form.
const CUBIC: f64 = 0.044715;

/// y = x Φ(x), elementwise, any shape.
///
/// Exact: Φ(x) = (1 + erf(x/√2))/2, as in PyTorch and timm. Tanh: y = x (1 + tanh(√(2/π)(x +
/// 0.044715 x³)))/2, the default of `jax.nn.gelu`.
#[derive(Clone, Copy, Debug)]
pub struct Gelu {
    /// Whether to use the tanh approximation.
    pub tanh: bool,
}

/// x Φ(x).
#[inline(always)]
fn value<S: Scalar>(x: S) -> S {
    x * ((x * FRAC_1_SQRT_2).erf() * 0.5 + 0.5)
}

/// Φ(x) + x φ(x), where φ is the normal density.
#[inline(always)]
fn slope<S: Scalar>(x: S) -> S {
    let u = x * FRAC_1_SQRT_2;
    let density = (-(u * u)).exp() * (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
    u.erf() * 0.5 + 0.5 + x * density
}

#[inline(always)]
fn value_tanh<S: Scalar>(x: S) -> S {
    let t = ((x + x * x * x * CUBIC) * SLOPE).tanh();
    x * (t * 0.5 + 0.5)
}

#[inline(always)]
fn slope_tanh<S: Scalar>(x: S) -> S {
    let square = x * x;
    let t = ((x + x * square * CUBIC) * SLOPE).tanh();
    let inner = (square * (3.0 * CUBIC) + 1.0) * SLOPE;
    t * 0.5 + 0.5 + x * (-(t * t) + 1.0) * inner * 0.5
}

impl Gelu {
    /// gelu(x).
    #[inline(always)]
    pub(crate) fn of<S: Scalar>(self, x: S) -> S {
        if self.tanh { value_tanh(x) } else { value(x) }
    }

    /// gelu'(x).
    #[inline(always)]
    pub(crate) fn slope_of<S: Scalar>(self, x: S) -> S {
        if self.tanh { slope_tanh(x) } else { slope(x) }
    }
}

struct Value(Gelu);
impl RowKernel<1, 1> for Value {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x]: [Row<S>; 1], [y]: [RowMut<S>; 1]) {
        for c in chunks::<S>(x.len()) {
            y.put(c, self.0.of(x.at(c)));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<1, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.gelu_value(k, self.0.tanh, inputs[0], outputs[0], sizes)
    }
}

struct Vjp(Gelu);
impl RowKernel<2, 1> for Vjp {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, gy]: [Row<S>; 2], [gx]: [RowMut<S>; 1]) {
        for c in chunks::<S>(x.len()) {
            gx.put(c, gy.at(c) * self.0.slope_of(x.at(c)));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<2, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.gelu_vjp(k, self.0.tanh, inputs, outputs[0], sizes)
    }
}

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
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
        let [y] = run_rows(
            self.name(),
            &Value(*self),
            rows,
            [rows_of(x)],
            [Output::PerRow(n)],
            [x.dims()],
        )?;
        Ok(y)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet { inputs: 1, output: false }
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let x = saved.input(self.name(), 0)?;
        let (n, rows) = (x.columns(), x.numel() / x.columns().max(1));
        let [gx] = run_rows(
            self.name(),
            &Vjp(*self),
            rows,
            [rows_of(x), rows_of(gy)],
            [Output::PerRow(n)],
            [x.dims()],
        )?;
        Ok(vec![Some(gx)])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    [false, true]
        .into_iter()
        .flat_map(|tanh| {
            [vec![7, 33], vec![2, 1, 3], vec![4, 64]]
                .map(|dims| Sample::new(Gelu { tanh }, &[&dims]))
        })
        .collect()
}
