//! Conversion of the storage type.

use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved};
use candle_core::DType;

/// y = x converted to f32 or bf16, rounded to nearest; gx = gy converted to x's type. Does not
/// support tangents.
///
/// Used on a GPU between parts of the model stored in f32 and parts stored in bf16.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// x's type.
    pub from: DType,
    /// y's type.
    pub to: DType,
}

impl Cast {
    fn cast(&self, x: &DualTensor, [from, to]: [DType; 2]) -> Result<DualTensor> {
        let (op, dtype, tangents) = (self.name(), x.value().dtype(), x.tangents());
        if tangents > 0 {
            return Err(Error::Precision { op, dtype, tangents });
        }
        if dtype != from {
            return Err(Error::DType { op, found: vec![dtype] });
        }
        #[cfg(feature = "cuda")]
        if x.on_gpu() {
            return crate::cuda::gpu::cast(op, x, to);
        }
        Ok(DualTensor::constant(x.value().to_dtype(to)?))
    }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, _: &[bool]) -> bool {
        true
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        self.cast(x[0], [self.from, self.to])
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet::default()
    }

    fn vjp(&self, _: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        Ok(vec![Some(self.cast(gy, [self.to, self.from])?)])
    }
}
