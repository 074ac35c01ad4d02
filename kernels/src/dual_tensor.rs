//! Tensors with K tangents.

use crate::cuda::Rearrange;
use crate::error::{Error, Result};
use crate::lanes::Element;
use candle_core::{CpuStorage, DType, Device, Layout, Storage, Tensor};
use rayon::prelude::*;
use std::ops::Deref;

/// x + Σ εₖ ẋₖ: a value of any shape, and an optional block of tangents of shape (K, …).
///
/// A zero tangent is absent, so nothing is computed for it. Clones share memory.
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

    /// A value of shape S with an optional block of tangents of shape (K, S).
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

    /// K; 0 without tangents.
    pub fn tangents(&self) -> usize {
        self.tangent.as_ref().map_or(0, |t| t.dims()[0])
    }

    /// The shape of the value.
    pub fn dims(&self) -> &[usize] {
        self.value.dims()
    }

    /// Count of numbers in the value.
    pub fn numel(&self) -> usize {
        self.value.elem_count()
    }

    /// Size of the last dimension; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.value.dims().last().copied().unwrap_or(1)
    }

    /// Value and tangents.
    pub fn into_parts(self) -> (Tensor, Option<Tensor>) {
        (self.value, self.tangent)
    }

    /// Applies a linear rearrangement to the value and to each tangent.
    ///
    /// `f` receives a tensor and its number of extra leading dimensions: 0 for the value, 1 for the
    /// block of tangents.
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

    /// Whether the tensor is on a GPU.
    pub fn on_gpu(&self) -> bool {
        self.value.device().is_cuda()
    }

    /// On the CPU, [`Self::rearrange`] with `on_cpu`. On a GPU, the equivalent rearrangement `how`,
    /// with a result of shape `dims`.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    pub(crate) fn rearranged(
        &self,
        op: &'static str,
        how: Rearrange,
        dims: &[usize],
        on_cpu: impl Fn(&Tensor, usize) -> candle_core::Result<Tensor>,
    ) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if self.on_gpu() {
            return crate::cuda::gpu::rearranged(op, self, how, dims);
        }
        self.rearrange(on_cpu)
    }

    /// The same numbers with another shape.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        self.rearrange(|x, lead| {
            let shape: Vec<usize> = x.dims()[..lead].iter().chain(dims).copied().collect();
            x.reshape(shape)
        })
    }

    /// Sum of two tensors of equal shape. An absent tangent counts as zero.
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

/// a + b. Candle's addition synchronises its threads on a spin barrier, which costs more than the
/// sum.
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
    let total = if sa.len() < SERIAL || crate::cpu::run_serially() {
        sa.iter().zip(sb).map(add).collect()
    } else {
        sa.par_iter().zip(sb).with_min_len(SERIAL).map(add).collect()
    };
    Ok(Tensor::from_vec(total, a.dims(), &Device::Cpu)?)
}

/// Below this many numbers a second thread costs more than it saves.
const SERIAL: usize = 1 << 15;

/// Expected location of the tensors of [`Host`].
const CPU: &str = "the CPU";

/// Read access to a tensor's CPU memory.
pub struct Host<'a> {
    // The type of candle's guard is private.
    guard: Box<dyn Deref<Target = Storage> + 'a>,
    layout: Layout,
}

impl<'a> Host<'a> {
    /// Locks `x` for reading. Fails if `x` is strided or not on the CPU.
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

/// The common type of all operands, f32 or f64. Fails if they differ.
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
