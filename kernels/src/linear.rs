//! The linear layer.

use crate::cpu::Output;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved, rows_of_len, run_rows};
use crate::pointwise::SumRows;
use crate::product::{Products, Target, View, product};
use crate::registry::Sample;
use candle_core::Tensor;

/// y = x Wᵀ + b; x: (…, I), W: (O, I), b: (O) or absent, y: (…, O).
///
/// gx = gy W; gW = gyᵀ x; gb = Σ gy over rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear {
    /// How matrix products are computed.
    pub products: Products,
}

impl Linear {
    /// Number of rows, inputs and outputs for `x` and weight `w`.
    fn sizes(&self, x: &[usize], w: &[usize]) -> Result<[usize; 3]> {
        match (x.last(), w) {
            (Some(&i), &[o, wi]) if i == wi && i > 0 => Ok([x.iter().product::<usize>() / i, i, o]),
            _ => Err(Error::shape(
                self.name(),
                "x (…, I) and W (O, I)",
                format!("x {x:?} and W {w:?}"),
            )),
        }
    }

    fn forward(&self, x: &[&DualTensor], primal: Option<&Tensor>) -> Result<DualTensor> {
        let (x, w, b) = (x[0], x[1], x.get(2).copied());
        let [rows, i, o] = self.sizes(x.dims(), w.dims())?;
        let dims = self.shape(&[x.dims(), w.dims()])?;
        product(
            self,
            (x, View::matrix(rows, i)),
            (w, View::matrix(o, i).t()),
            Target {
                dims: &dims,
                view: View::matrix(rows, o),
                bias: b,
                primal,
                products: self.products,
            },
            1.0,
        )
    }

    fn gradients(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
        primal: Option<&Tensor>,
    ) -> Result<Vec<Option<DualTensor>>> {
        let [rows, i, o] = self.sizes(&saved.dims[0], &saved.dims[1])?;
        let gy_view = View::matrix(rows, o);
        let mut gradients = vec![None; saved.dims.len()];
        if needs_grad[0] {
            gradients[0] = Some(product(
                self,
                (gy, gy_view),
                (saved.input(self.name(), 1)?, View::matrix(o, i)),
                Target {
                    dims: &saved.dims[0],
                    view: View::matrix(rows, i),
                    bias: None,
                    primal,
                    products: self.products,
                },
                1.0,
            )?);
        }
        if needs_grad[1] {
            let target = Target {
                dims: &saved.dims[1],
                view: View::matrix(o, i),
                bias: None,
                primal: None,
                products: self.products,
            };
            gradients[1] = Some(product(
                self,
                (gy, gy_view.t()),
                (saved.input(self.name(), 0)?, View::matrix(rows, i)),
                target,
                1.0,
            )?);
        }
        if needs_grad.get(2) == Some(&true) {
            let [gb] = run_rows(
                self.name(),
                &SumRows,
                rows,
                [rows_of_len(gy, o)],
                [Output::Summed(o)],
                [&[o]],
            )?;
            gradients[2] = Some(gb);
        }
        Ok(gradients)
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        let [_, _, o] = self.sizes(x[0], x[1])?;
        let lead = x[0].split_last().map_or(&[][..], |(_, lead)| lead);
        Ok(lead.iter().copied().chain([o]).collect())
    }

    fn flops(&self, x: &[&[usize]]) -> f64 {
        self.sizes(x[0], x[1])
            .map_or(0.0, |sizes| 2.0 * sizes.map(|n| n as f64).iter().product::<f64>())
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !(inputs[0] && inputs[1])
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        self.forward(x, None)
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
        self.gradients(saved, gy, needs_grad, None)
    }

    fn can_reuse_primal(&self) -> bool {
        true
    }

    fn value_given_primal(&self, x: &[&DualTensor], primal: &Tensor) -> Result<DualTensor> {
        self.forward(x, Some(primal))
    }

    fn vjp_given_primal(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
        primal: &Tensor,
    ) -> Result<Vec<Option<DualTensor>>> {
        self.gradients(saved, gy, needs_grad, Some(primal))
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(Linear::default(), &[&[3, 5, 7], &[4, 7], &[4]]),
        Sample::new(Linear::default(), &[&[6, 3], &[2, 3]]),
        Sample::new(Linear::default(), &[&[1, 17], &[1, 17], &[1]]),
    ]
}
