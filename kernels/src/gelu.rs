//! GELU, y = x Φ(x) (Hendrycks & Gimpel 2016): exact, or one of the two approximations of §2.

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
/// The factor in the logistic form.
const QUICK: f64 = 1.702;

/// How Φ is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeluForm {
    /// Φ(x) = (1 + erf(x/√2))/2, as in PyTorch and timm.
    Exact,
    /// (1 + tanh(√(2/π)(x + 0.044715 x³)))/2, the default of `jax.nn.gelu`.
    Tanh,
    /// σ(1.702 x), the QuickGELU of OpenAI's CLIP.
    Quick,
}

impl GeluForm {
    /// All forms.
    pub const ALL: [GeluForm; 3] = [GeluForm::Exact, GeluForm::Tanh, GeluForm::Quick];
}

/// y = x Φ(x), elementwise, any shape.
#[derive(Clone, Copy, Debug)]
pub struct Gelu {
    /// How Φ is computed.
    pub form: GeluForm,
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

#[inline(always)]
fn value_quick<S: Scalar>(x: S) -> S {
    x * sigmoid(x * QUICK)
}

/// σ(u) + x σ'(u) 1.702, where u = 1.702 x.
#[inline(always)]
fn slope_quick<S: Scalar>(x: S) -> S {
    let s = sigmoid(x * QUICK);
    s + x * s * (-s + 1.0) * QUICK
}

/// σ(x) = 1/(1 + e⁻ˣ). By the tanh, which no x makes overflow.
#[inline(always)]
pub(crate) fn sigmoid<S: Scalar>(x: S) -> S {
    (x * 0.5).tanh() * 0.5 + 0.5
}

impl Gelu {
    /// gelu(x).
    #[inline(always)]
    pub(crate) fn of<S: Scalar>(self, x: S) -> S {
        match self.form {
            GeluForm::Exact => value(x),
            GeluForm::Tanh => value_tanh(x),
            GeluForm::Quick => value_quick(x),
        }
    }

    /// gelu'(x).
    #[inline(always)]
    pub(crate) fn slope_of<S: Scalar>(self, x: S) -> S {
        match self.form {
            GeluForm::Exact => slope(x),
            GeluForm::Tanh => slope_tanh(x),
            GeluForm::Quick => slope_quick(x),
        }
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
        call.planner.gelu_value(k, self.0.form, inputs[0], outputs[0], sizes)
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
        call.planner.gelu_vjp(k, self.0.form, inputs, outputs[0], sizes)
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
    let one = |form| {
        [vec![7, 33], vec![2, 1, 3], vec![4, 64]].map(|dims| Sample::new(Gelu { form }, &[&dims]))
    };
    GeluForm::ALL.into_iter().flat_map(one).collect()
}
