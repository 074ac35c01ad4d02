//! Some rows of a weight, for a product that needs only those. Linear, so tangents are transformed
//! like values.

use crate::cuda::Rearrange;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use crate::registry::Sample;

/// Rows `from..to` of a weight or bias: (O, …) → (to − from, …). The VJP fills the rest with zeros.
#[derive(Clone, Copy, Debug)]
pub struct WeightRows {
    /// The first row.
    pub from: usize,
    /// One past the last.
    pub to: usize,
}

impl WeightRows {
    fn slice(&self, adjoint: bool, of: &[usize]) -> Rearrange {
        let row: usize = of[1..].iter().product();
        let (first, count) = (self.from * row, (self.to - self.from) * row);
        Rearrange::Slice { adjoint, len: of[0] * row, first, count }
    }
}

impl Op for WeightRows {
    fn name(&self) -> &'static str {
        "weight_rows"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        match x[0] {
            [rows, rest @ ..] if self.from < self.to && self.to <= *rows => {
                Ok(std::iter::once(self.to - self.from).chain(rest.iter().copied()).collect())
            }
            found => {
                let expected = format!("(O, …) with O at least {}", self.to);
                Err(Error::shape(self.name(), expected, format!("{found:?}")))
            }
        }
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let dims = self.shape(&[x[0].dims()])?;
        let how = self.slice(false, x[0].dims());
        x[0].rearranged(self.name(), how, &dims, |x, lead| {
            x.narrow(lead, self.from, self.to - self.from)
        })
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let after = saved.dims[0][0] - self.to;
        let how = self.slice(true, &saved.dims[0]);
        let gx = gy.rearranged(self.name(), how, &saved.dims[0], |g, lead| {
            g.pad_with_zeros(lead, self.from, after)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(WeightRows { from: 1, to: 3 }, &[&[4, 5]]),
        Sample::new(WeightRows { from: 0, to: 2 }, &[&[3]]),
    ]
}
