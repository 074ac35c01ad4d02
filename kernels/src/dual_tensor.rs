//! A tensor with K tangents.

use crate::cuda::Move;
use crate::error::{Error, Result};
use crate::lanes::Element;
use candle_core::{CpuStorage, DType, Device, Layout, Storage, Tensor};
use rayon::prelude::*;
use std::ops::Deref;

/// x + Σ εₖ ẋₖ: a value of some shape and, where it has tangents, their block of shape (K, …).
///
/// A tangent that is zero is absent, so that work on it is never done. Cloning shares memory.
#[derive(Clone, Debug)]
pub struct DualTensor {
    value: Tensor,
    tangent: Option<Tensor>,
}

impl DualTensor {
    /// A value without tangents.
    pub fn constant(value: Tensor) -> Self {
        Self { value, tangent: None }
    }

    /// A value of shape S with a block of tangents of shape (K, S).
    pub fn new(value: Tensor, tangent: Option<Tensor>) -> Result<Self> {
        if let Some(t) = &tangent
            && (t.rank() != value.rank() + 1 || t.dims()[1..] != *value.dims())
        {
            return Err(Error::shape(
                "dual tensor",
                format!("tangents of shape (K, {:?})", value.dims()),
                format!("{:?}", t.dims()),
            ));
        }
        Ok(Self { value, tangent })
    }

    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The tangents, (K, …).
    pub fn tangent(&self) -> Option<&Tensor> {
        self.tangent.as_ref()
    }

    /// K, or 0.
    pub fn tangents(&self) -> usize {
        self.tangent.as_ref().map_or(0, |t| t.dims()[0])
    }

    /// The shape of the value.
    pub fn dims(&self) -> &[usize] {
        self.value.dims()
    }

    /// Numbers in the value.
    pub fn numel(&self) -> usize {
        self.value.elem_count()
    }

    /// The last dimension; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.value.dims().last().copied().unwrap_or(1)
    }

    /// Value and tangents.
    pub fn into_parts(self) -> (Tensor, Option<Tensor>) {
        (self.value, self.tangent)
    }

    /// Applies a linear rearrangement to the value and to each tangent.
    ///
    /// `f` takes a tensor and the number of leading dimensions that are not the operand's own
    /// (0 for the value, 1 for the block of tangents).
    pub fn rearrange(
        &self,
        f: impl Fn(&Tensor, usize) -> candle_core::Result<Tensor>,
    ) -> Result<Self> {
        let value = f(&self.value, 0)?.contiguous()?;
        let tangent = match &self.tangent {
            Some(t) => Some(f(t, 1)?.contiguous()?),
            None => None,
        };
        Ok(Self { value, tangent })
    }

    /// Whether it lies on a GPU.
    pub fn on_gpu(&self) -> bool {
        self.value.device().is_cuda()
    }

    /// [`Self::rearrange`] by `on_cpu`, or the same thing, told as data, into the shape `dims` on a
    /// GPU.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    pub(crate) fn moved(
        &self,
        op: &'static str,
        how: Move,
        dims: &[usize],
        on_cpu: impl Fn(&Tensor, usize) -> candle_core::Result<Tensor>,
    ) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if self.on_gpu() {
            return crate::cuda::gpu::moved(op, self, how, dims);
        }
        self.rearrange(on_cpu)
    }

    /// The same numbers under another shape.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        self.rearrange(|x, lead| {
            let shape: Vec<usize> = x.dims()[..lead].iter().chain(dims).copied().collect();
            x.reshape(shape)
        })
    }

    /// Sum with another of the same shape; an absent tangent counts as zero.
    pub fn plus(&self, other: &Self) -> Result<Self> {
        let value = sum(&self.value, &other.value)?;
        let tangent = match (&self.tangent, &other.tangent) {
            (Some(a), Some(b)) => Some(sum(a, b)?),
            (Some(t), None) | (None, Some(t)) => Some(t.clone()),
            (None, None) => None,
        };
        Ok(Self { value, tangent })
    }
}

/// a + b; candle's own addition spins its threads on a barrier, which costs more than the sum.
fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        return crate::cuda::gpu::plus(a, b);
    }
    match a.dtype() {
        DType::F32 => sum_typed::<f32>(a, b),
        _ => sum_typed::<f64>(a, b),
    }
}

fn sum_typed<E: Element>(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (ha, hb) = (Host::new("sum", a)?, Host::new("sum", b)?);
    let (sa, sb) = (ha.slice::<E>()?, hb.slice::<E>()?);
    if sa.len() != sb.len() {
        return Err(Error::shape("sum", format!("{:?}", a.dims()), format!("{:?}", b.dims())));
    }
    let add = |(x, y): (&E, &E)| *x + *y;
    let total = if sa.len() < SERIAL || crate::cpu::stays_here() {
        sa.iter().zip(sb).map(add).collect()
    } else {
        sa.par_iter().zip(sb).with_min_len(SERIAL).map(add).collect()
    };
    Ok(Tensor::from_vec(total, a.dims(), &Device::Cpu)?)
}

/// Numbers below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 15;

/// Where [`Host`] wants tensors.
const CPU: &str = "the CPU";

/// A tensor's memory on the CPU, held for reading.
pub struct Host<'a> {
    // The guard's type is a private matter of candle's.
    guard: Box<dyn Deref<Target = Storage> + 'a>,
    layout: Layout,
}

impl<'a> Host<'a> {
    /// Holds `x`; an error if it is strided or not on the CPU.
    pub fn new(op: &'static str, x: &'a Tensor) -> Result<Self> {
        let (guard, layout) = x.storage_and_layout();
        if layout.contiguous_offsets().is_none() {
            return Err(Error::Strided {
                op,
                shape: x.dims().to_vec(),
                strides: layout.stride().to_vec(),
            });
        }
        if !matches!(*guard, Storage::Cpu(_)) {
            let found = format!("{:?}", x.device().location());
            return Err(Error::Device { op, expected: CPU, found });
        }
        let layout = layout.clone();
        Ok(Self { guard: Box::new(guard), layout })
    }

    /// The numbers, row-major.
    pub fn slice<E: Element>(&self) -> Result<&[E]> {
        match (&**self.guard, self.layout.contiguous_offsets()) {
            (Storage::Cpu(storage), Some((start, end))) => {
                Ok(&cpu_slice::<E>(storage)?[start..end])
            }
            _ => Err(Error::Device { op: "slice", expected: CPU, found: "another device".into() }),
        }
    }
}

fn cpu_slice<E: Element>(storage: &CpuStorage) -> Result<&[E]> {
    Ok(storage.as_slice::<E>()?)
}

/// The one type of all operands, or an error naming them.
pub fn common_dtype(op: &'static str, operands: &[&DualTensor]) -> Result<DType> {
    let found: Vec<DType> = operands
        .iter()
        .flat_map(|x| std::iter::once(x.value.dtype()).chain(x.tangent.iter().map(Tensor::dtype)))
        .collect();
    match found.first() {
        Some(&d) if matches!(d, DType::F32 | DType::F64) && found.iter().all(|&f| f == d) => Ok(d),
        _ => Err(Error::DType { op, found }),
    }
}
