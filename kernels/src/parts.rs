//! Tensors with tangents, divided into equal slices along the first dimension (one per image), and
//! the product rule on such slices.

use crate::cpu::run_serially;
use crate::cuda::Rearrange;
use crate::dual_tensor::{DualTensor, Host, common_dtype};
use crate::error::Result;
use crate::lanes::Element;
use crate::product::{Multiply, Start, View};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// A slice for reading: of the value, and of each tangent.
pub struct Part<'a, E> {
    /// The value.
    pub value: &'a [E],
    /// One slice per tangent. Empty without tangents.
    pub tangents: Vec<&'a [E]>,
}

/// A slice for writing.
pub struct PartMut<'a, E> {
    /// The value.
    pub value: &'a mut [E],
    /// One slice per tangent.
    pub tangents: Vec<&'a mut [E]>,
}

/// Read access to the CPU memory of a tensor and its tangents.
pub struct HostDual<'a> {
    value: Host<'a>,
    tangent: Option<Host<'a>>,
    tangents: usize,
}

impl<'a> HostDual<'a> {
    /// Locks `x` for reading. Fails if `x` is strided or not on the CPU.
    pub fn new(op: &'static str, x: &'a DualTensor) -> Result<Self> {
        let tangent = x.tangent().map(|t| Host::new(op, t)).transpose()?;
        Ok(Self { value: Host::new(op, x.value())?, tangent, tangents: x.tangents() })
    }

    /// The value and each tangent.
    pub fn planes<E: Element>(&self) -> Result<Vec<&[E]>> {
        let value = self.value.slice::<E>()?;
        let tangent = self.tangent.as_ref().map(Host::slice::<E>).transpose()?.unwrap_or_default();
        let plane = |k: usize| &tangent[k * value.len()..(k + 1) * value.len()];
        Ok(std::iter::once(value).chain((0..self.tangents).map(plane)).collect())
    }

    /// `count` equal slices.
    pub fn parts<E: Element>(&self, count: usize) -> Result<Vec<Part<'_, E>>> {
        let value = self.value.slice::<E>()?;
        let size = part_size(value.len(), count);
        let tangent = self.tangent.as_ref().map(Host::slice::<E>).transpose()?.unwrap_or_default();
        let part = |(i, part): (usize, &'_ [E])| {
            let planes = (0..self.tangents).map(|k| k * value.len() + i * size);
            planes.map(|at| &tangent[at..at + part.len()]).collect()
        };
        Ok(value.chunks(size).enumerate().map(|c| Part { value: c.1, tangents: part(c) }).collect())
    }
}

/// Memory of a new tensor with tangents. Every number must be written before [`Self::into_dual`].
pub struct DualBuffer<E> {
    dims: Vec<usize>,
    tangents: usize,
    value: Vec<E>,
    tangent: Vec<E>,
}

impl<E: Element> DualBuffer<E> {
    /// Memory for a value of shape `dims` and K tangents.
    pub fn new(dims: &[usize], tangents: usize) -> Self {
        let size: usize = dims.iter().product();
        let (value, tangent) =
            (crate::cpu::uninitialized(size), crate::cpu::uninitialized(size * tangents));
        Self { dims: dims.to_vec(), tangents, value, tangent }
    }

    /// `count` equal slices.
    pub fn parts(&mut self, count: usize) -> Vec<PartMut<'_, E>> {
        let size = part_size(self.value.len(), count);
        let cut = self.value.chunks_mut(size);
        let mut parts: Vec<PartMut<E>> = cut
            .map(|value| PartMut { value, tangents: Vec::with_capacity(self.tangents) })
            .collect();
        // Tangents are stored one after the other, each divided like the value.
        for (i, tangent) in self.tangent.chunks_mut(size).enumerate() {
            parts[i % count].tangents.push(tangent);
        }
        parts
    }

    /// The tensor.
    pub fn into_dual(self) -> Result<DualTensor> {
        let value = Tensor::from_vec(self.value, &self.dims[..], &Device::Cpu)?;
        let dims: Vec<usize> = std::iter::once(self.tangents).chain(self.dims).collect();
        let tangent = match self.tangents {
            0 => None,
            _ => Some(Tensor::from_vec(self.tangent, dims, &Device::Cpu)?),
        };
        DualTensor::new(value, tangent)
    }
}

fn part_size(len: usize, count: usize) -> usize {
    (len / count.max(1)).max(1)
}

/// Thread-local memory for a value with K tangents.
pub struct Scratch<E> {
    /// The value.
    pub value: Vec<E>,
    /// K tangents, one after the other.
    pub tangents: Vec<E>,
}

impl<E: Element> Scratch<E> {
    /// Memory for `size` numbers per tangent and for the value. Must be written before it is read.
    pub fn new(size: usize, tangents: usize) -> Self {
        Self {
            value: crate::cpu::uninitialized(size),
            tangents: crate::cpu::uninitialized(size * tangents),
        }
    }

    /// For reading.
    pub fn part(&self) -> Part<'_, E> {
        let size = self.value.len().max(1);
        Part { value: &self.value, tangents: self.tangents.chunks(size).collect() }
    }

    /// For writing.
    pub fn part_mut(&mut self) -> PartMut<'_, E> {
        let size = self.value.len().max(1);
        PartMut { value: &mut self.value, tangents: self.tangents.chunks_mut(size).collect() }
    }
}

/// Runs `image` for each image, in parallel unless operations must run serially.
pub(crate) fn for_each_image<T: Send>(images: Vec<T>, image: impl Fn(T) + Send + Sync) {
    if run_serially() {
        images.into_iter().for_each(image);
    } else {
        images.into_par_iter().for_each(image);
    }
}

/// A rearrangement of the numbers of one image on the CPU.
pub(crate) trait RearrangeImage: Sync {
    /// Writes every number of `to` from a number of `from`.
    fn rearrange<E: Copy>(&self, from: &[E], to: &mut [E]);
}

/// Rearranges every image of `x` and of its tangents into the shape `dims`, (B, …). On the CPU by
/// `image`, on a GPU by the equivalent `how`.
#[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
pub(crate) fn rearranged_images(
    op: &'static str,
    x: &DualTensor,
    how: Rearrange,
    dims: &[usize],
    image: &impl RearrangeImage,
) -> Result<DualTensor> {
    #[cfg(feature = "cuda")]
    if x.on_gpu() {
        return crate::cuda::gpu::rearranged(op, x, how, dims);
    }
    match common_dtype(op, &[x])? {
        DType::F32 => rearranged_typed::<f32>(op, x, dims, image),
        _ => rearranged_typed::<f64>(op, x, dims, image),
    }
}

fn rearranged_typed<E: Element>(
    op: &'static str,
    x: &DualTensor,
    dims: &[usize],
    image: &impl RearrangeImage,
) -> Result<DualTensor> {
    let (held, mut y) = (HostDual::new(op, x)?, DualBuffer::<E>::new(dims, x.tangents()));
    let images = held.parts::<E>(dims[0])?.into_iter().zip(y.parts(dims[0]));
    for_each_image(images.collect(), |(from, mut to): (Part<E>, PartMut<E>)| {
        image.rearrange(from.value, to.value);
        for (from, to) in from.tangents.iter().zip(&mut to.tangents) {
            image.rearrange(from, to);
        }
    });
    y.into_dual()
}

/// Matrix product with tangents: the matrix `v` of `dst` becomes `factor` · A·B, and its tangents
/// become `factor` · (Ȧₖ·B + A·Ḃₖ). Each product is computed by `multiply`.
pub(crate) fn dual_product<E: Element>(
    multiply: Multiply<E>,
    (dst, v): (&mut PartMut<E>, View),
    (a, va): (&Part<E>, View),
    (b, vb): (&Part<E>, View),
    factor: f64,
) {
    multiply((dst.value, v), Start::Zero, (a.value, va), (b.value, vb), factor);
    for (k, out) in dst.tangents.iter_mut().enumerate() {
        let mut start = Start::Zero;
        if let Some(t) = a.tangents.get(k) {
            multiply((out, v), start, (t, va), (b.value, vb), factor);
            start = Start::Sum;
        }
        if let Some(t) = b.tangents.get(k) {
            multiply((out, v), start, (a.value, va), (t, vb), factor);
            start = Start::Sum;
        }
        if matches!(start, Start::Zero) {
            v.indices().for_each(|i| out[i] = E::default());
        }
    }
}
