//! A change of the type that numbers are stored in.

use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Keep, Kept, Op};
use candle_core::DType;

/// y = x in another type, f32 or bf16, to the nearest; gx = gy in x's type. Without tangents.
///
/// It stands between what a GPU computes on numbers stored in f32 and on such stored in bf16.
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

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        self.cast(x[0], [self.from, self.to])
    }

    fn keep(&self, _: &[bool]) -> Keep {
        Keep::default()
    }

    fn vjp(&self, _: &Kept, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        Ok(vec![Some(self.cast(gy, [self.to, self.from])?)])
    }
}
