//! Tensors with tangents, cut into equal parts along their first dimension, image by image; and
//! the product rule on such parts.

use crate::dual_tensor::{DualTensor, Host};
use crate::error::Result;
use crate::lanes::Element;
use crate::product::{Multiply, Start, View};
use candle_core::{Device, Tensor};

/// A part that is read: its value, and its part of each tangent.
pub struct Part<'a, E> {
    /// The value.
    pub value: &'a [E],
    /// One slice a tangent; none if the tensor has none.
    pub tangents: Vec<&'a [E]>,
}

/// A part that is written.
pub struct PartMut<'a, E> {
    /// The value.
    pub value: &'a mut [E],
    /// One slice a tangent.
    pub tangents: Vec<&'a mut [E]>,
}

/// A tensor's memory with that of its tangents, held for reading.
pub struct Held<'a> {
    value: Host<'a>,
    tangent: Option<Host<'a>>,
    tangents: usize,
}

impl<'a> Held<'a> {
    /// Holds `x`; an error if it is strided or not on the CPU.
    pub fn new(op: &'static str, x: &'a DualTensor) -> Result<Self> {
        let tangent = x.tangent().map(|t| Host::new(op, t)).transpose()?;
        Ok(Self { value: Host::new(op, x.value())?, tangent, tangents: x.tangents() })
    }

    /// `count` equal parts.
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

/// A tensor with tangents in the making; every number of it is to be written.
pub struct Fresh<E> {
    dims: Vec<usize>,
    tangents: usize,
    value: Vec<E>,
    tangent: Vec<E>,
}

impl<E: Element> Fresh<E> {
    /// Memory for a value of this shape and K tangents.
    pub fn new(dims: &[usize], tangents: usize) -> Self {
        let size: usize = dims.iter().product();
        let (value, tangent) = (crate::cpu::blank(size), crate::cpu::blank(size * tangents));
        Self { dims: dims.to_vec(), tangents, value, tangent }
    }

    /// `count` equal parts.
    pub fn parts(&mut self, count: usize) -> Vec<PartMut<'_, E>> {
        let size = part_size(self.value.len(), count);
        let cut = self.value.chunks_mut(size);
        let mut parts: Vec<PartMut<E>> = cut
            .map(|value| PartMut { value, tangents: Vec::with_capacity(self.tangents) })
            .collect();
        // Planes follow one another, and each is cut like the value.
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

/// One thread's memory for a value with K tangents.
pub struct Scratch<E> {
    /// The value.
    pub value: Vec<E>,
    /// K planes, one after the other.
    pub tangents: Vec<E>,
}

impl<E: Element> Scratch<E> {
    /// Memory for `size` numbers, to be written before they are read.
    pub fn new(size: usize, tangents: usize) -> Self {
        Self { value: crate::cpu::blank(size), tangents: crate::cpu::blank(size * tangents) }
    }

    /// To be read.
    pub fn part(&self) -> Part<'_, E> {
        let size = self.value.len().max(1);
        Part { value: &self.value, tangents: self.tangents.chunks(size).collect() }
    }

    /// To be written.
    pub fn part_mut(&mut self) -> PartMut<'_, E> {
        let size = self.value.len().max(1);
        PartMut { value: &mut self.value, tangents: self.tangents.chunks_mut(size).collect() }
    }
}

/// The matrix `v` of `dst` becomes `factor` · A·B, and those of its tangents, by the product rule,
/// `factor` · (Ȧₖ·B + A·Ḃₖ), each product by `multiply`.
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
