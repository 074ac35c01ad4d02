//! Some rows of a weight, for a product that needs only those; linear, so a tangent goes the same
//! way as its value.

use crate::cuda::Move;
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Keep, Kept, Op};
use crate::registry::Sample;

/// Rows `from..to` of a weight or bias: (O, …) → (to − from, …). The VJP fills the others with zeros.
#[derive(Clone, Copy, Debug)]
pub struct WeightRows {
    /// The first row.
    pub from: usize,
    /// One past the last.
    pub to: usize,
}

impl WeightRows {
    fn slice(&self, back: bool, of: &[usize]) -> Move {
        let row: usize = of[1..].iter().product();
        let (first, count) = (self.from * row, (self.to - self.from) * row);
        Move::Slice { back, len: of[0] * row, first, count }
    }
}

impl Op for WeightRows {
    fn name(&self) -> &'static str {
        "weight_rows"
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let Self { from, to } = *self;
        match x[0].dims().first() {
            Some(&rows) if from < to && to <= rows => {
                let mut dims = x[0].dims().to_vec();
                dims[0] = to - from;
                let how = self.slice(false, x[0].dims());
                x[0].moved(self.name(), how, &dims, |x, lead| x.narrow(lead, from, to - from))
            }
            _ => {
                let expected = format!("(O, …) with O at least {to}");
                Err(Error::shape(self.name(), expected, format!("{:?}", x[0].dims())))
            }
        }
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, kept: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let after = kept.dims[0][0] - self.to;
        let how = self.slice(true, &kept.dims[0]);
        let gx = gy.moved(self.name(), how, &kept.dims[0], |g, lead| {
            g.pad_with_zeros(lead, self.from, after)
        })?;
        Ok(vec![Some(gx)])
    }
}

/// Shapes to check it on.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(WeightRows { from: 1, to: 3 }, &[&[4, 5]]),
        Sample::new(WeightRows { from: 0, to: 2 }, &[&[3]]),
    ]
}
