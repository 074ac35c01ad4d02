//! Sums and scalings: residual connections, position embeddings, LayerScale, constant factors.

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, Operand, SaveSet, Saved, rows_of, rows_of_len, run_rows, shared};
use crate::registry::Sample;
use crate::rows::{Row, RowMut, chunks};
use crate::scalar::Scalar;

/// y = a + b. b has a's shape, or the shape of a's trailing dimensions and is broadcast: a: (B, T,
/// D) with b: (B, T, D), (1, T, D), (T, D) or (D). gb sums over the broadcast dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Add;

/// y = x γ, per channel: LayerScale (Touvron et al., ICCV 2021, §2). x: (…, D), γ: (D).
/// gx = gy γ; gγ = Σ gy x over rows.
#[derive(Clone, Copy, Debug)]
pub struct LayerScale;

/// y = factor · x.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The constant factor.
    pub factor: f64,
}

/// Number of slices of a that b is broadcast over, and numbers per slice. Fails if b's shape is not
/// a trailing part of a's.
fn slices(op: &'static str, a: &[usize], b: &[usize]) -> Result<(usize, usize)> {
    let trailing: Vec<usize> = b.iter().copied().skip_while(|&n| n == 1).collect();
    let len: usize = trailing.iter().product();
    if a.ends_with(&trailing) && len > 0 {
        Ok((a.iter().product::<usize>() / len, len))
    } else {
        Err(Error::shape(op, format!("a trailing part of {a:?}"), format!("{b:?}")))
    }
}

struct AddValue;
impl RowKernel<2, 1> for AddValue {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [a, b]: [Row<S>; 2], [y]: [RowMut<S>; 1]) {
        for c in chunks::<S>(a.len()) {
            y.put(c, a.at(c) + b.at(c));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<2, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        match call.shared[1] {
            true => call.planner.bias_value(k, inputs, outputs[0], sizes),
            false => call.planner.add_value(k, inputs, outputs[0], sizes),
        }
    }
}

/// Sum over rows: the VJP of a broadcast.
pub(crate) struct SumRows;
impl RowKernel<1, 1> for SumRows {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [gy]: [Row<S>; 1], [gb]: [RowMut<S>; 1]) {
        for c in chunks::<S>(gy.len()) {
            gb.add(c, gy.at(c));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<1, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.sum_rows(k, inputs[0], outputs[0], call.scratch, sizes)
    }
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (a, b) = (x[0], x[1]);
        let (rows, len) = slices(self.name(), a.dims(), b.dims())?;
        let (rows, len, b): (usize, usize, Operand) = if rows == 1 {
            let n = a.columns().max(1);
            (len / n, n, rows_of_len(b, n))
        } else {
            (rows, len, shared(b))
        };
        let [y] = run_rows(
            self.name(),
            &AddValue,
            rows,
            [rows_of_len(a, len), b],
            [Output::PerRow(len)],
            [a.dims()],
        )?;
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
        let (rows, len) = slices(self.name(), gy.dims(), &saved.dims[1])?;
        let gb = match (needs_grad[1], rows) {
            (false, _) => None,
            (true, 1) => Some(gy.reshape(&saved.dims[1])?),
            (true, _) => {
                let [gb] = run_rows(
                    self.name(),
                    &SumRows,
                    rows,
                    [rows_of_len(gy, len)],
                    [Output::Summed(len)],
                    [&saved.dims[1]],
                )?;
                Some(gb)
            }
        };
        Ok(vec![needs_grad[0].then(|| gy.clone()), gb])
    }
}

struct Times;
impl RowKernel<2, 1> for Times {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, gamma]: [Row<S>; 2], [y]: [RowMut<S>; 1]) {
        for c in chunks::<S>(x.len()) {
            y.put(c, x.at(c) * gamma.at(c));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<2, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.layer_scale_value(k, inputs, outputs[0], sizes)
    }
}

/// Σ x gy over rows.
pub(crate) struct SumProducts;
impl RowKernel<2, 1> for SumProducts {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, gy]: [Row<S>; 2], [g]: [RowMut<S>; 1]) {
        for c in chunks::<S>(x.len()) {
            g.add(c, x.at(c) * gy.at(c));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<2, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.layer_scale_vjp_gamma(k, inputs, outputs[0], call.scratch, sizes)
    }
}

impl LayerScale {
    fn times(&self, x: &DualTensor, gamma: &DualTensor) -> Result<DualTensor> {
        let n = x.columns();
        let [y] = run_rows(
            self.name(),
            &Times,
            x.numel() / n.max(1),
            [rows_of(x), shared(gamma)],
            [Output::PerRow(n)],
            [x.dims()],
        )?;
        Ok(y)
    }
}

impl Op for LayerScale {
    fn name(&self) -> &'static str {
        "layer_scale"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !(inputs[0] && inputs[1])
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        self.times(x[0], x[1])
    }

    fn save_set(&self, needs_grad: &[bool]) -> SaveSet {
        SaveSet { inputs: u32::from(needs_grad[1]) | u32::from(needs_grad[0]) << 1, output: false }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let mut gradients = vec![None, None];
        if needs_grad[0] {
            gradients[0] = Some(self.times(gy, saved.input(self.name(), 1)?)?);
        }
        if needs_grad[1] {
            let n = gy.columns();
            let [g] = run_rows(
                self.name(),
                &SumProducts,
                gy.numel() / n.max(1),
                [rows_of(saved.input(self.name(), 0)?), rows_of(gy)],
                [Output::Summed(n)],
                [&[n]],
            )?;
            gradients[1] = Some(g);
        }
        Ok(gradients)
    }
}

struct ScaleValue(f64);
impl RowKernel<1, 1> for ScaleValue {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x]: [Row<S>; 1], [y]: [RowMut<S>; 1]) {
        for c in chunks::<S>(x.len()) {
            y.put(c, x.at(c) * self.0);
        }
    }

    fn launches(&self, _: &'static str, call: &Call<1, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.scale_value(k, inputs[0], outputs[0], sizes, self.0)
    }
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let x = x[0];
        let n = x.columns();
        let [y] = run_rows(
            self.name(),
            &ScaleValue(self.factor),
            x.numel() / n.max(1),
            [rows_of(x)],
            [Output::PerRow(n)],
            [x.dims()],
        )?;
        Ok(y)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, _: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        Ok(vec![Some(self.value(&[gy])?)])
    }
}

/// Test shapes of [`Add`].
pub fn add_samples() -> Vec<Sample> {
    let shapes: [[&[usize]; 2]; 4] = [
        [&[2, 3, 17], &[2, 3, 17]],
        [&[4, 3, 5], &[1, 3, 5]],
        [&[4, 3, 5], &[5]],
        [&[1, 3, 5], &[1, 3, 5]],
    ];
    shapes.iter().map(|dims| Sample::new(Add, dims)).collect()
}

/// Test shapes of [`LayerScale`].
pub fn layer_scale_samples() -> Vec<Sample> {
    vec![Sample::new(LayerScale, &[&[3, 4, 17], &[17]])]
}

/// Test shapes of [`Scale`].
pub fn scale_samples() -> Vec<Sample> {
    vec![Sample::new(Scale { factor: -0.7 }, &[&[3, 17]])]
}
