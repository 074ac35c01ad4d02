//! Concatenates tensors as they arrive. Concatenating them at the end would hold all data twice.

use super::Result;
use candle_core::{DType, Device, Tensor};
use planish_kernels::Host;

/// Rows gathered so far.
pub(crate) struct RowBuffer {
    rows: usize,
    expected: usize,
    row: Vec<usize>,
    values: Values,
}

enum Values {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl RowBuffer {
    /// An empty buffer for `expected` rows.
    pub fn new(expected: usize, dtype: DType) -> Self {
        let values = match dtype {
            DType::F64 => Values::Double(Vec::new()),
            _ => Values::Single(Vec::new()),
        };
        Self { rows: 0, expected, row: Vec::new(), values }
    }

    /// Adds the rows of a tensor (n, …) of the buffer's type.
    pub fn add(&mut self, part: &Tensor) -> Result<()> {
        if self.rows == 0 {
            self.row = part.dims()[1..].to_vec();
        }
        let whole = self.expected * self.row.iter().product::<usize>();
        let host = Host::new("gather", part)?;
        match &mut self.values {
            Values::Single(all) => {
                all.reserve_exact(whole.saturating_sub(all.len()));
                all.extend_from_slice(host.slice()?);
            }
            Values::Double(all) => {
                all.reserve_exact(whole.saturating_sub(all.len()));
                all.extend_from_slice(host.slice()?);
            }
        }
        self.rows += part.dim(0)?;
        Ok(())
    }

    /// All rows, (N, …).
    pub fn finish(self) -> Result<Tensor> {
        let shape: Vec<usize> = std::iter::once(self.rows).chain(self.row).collect();
        Ok(match self.values {
            Values::Single(all) => Tensor::from_vec(all, shape, &Device::Cpu)?,
            Values::Double(all) => Tensor::from_vec(all, shape, &Device::Cpu)?,
        })
    }
}
