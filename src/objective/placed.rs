//! The objective on the device that was chosen for it, and its micro-batches there.

use super::fed::Fed;
use super::{Activations, Error, Examples, Objective, Result};
use crate::device::{self, Gpu};
use crate::vector;
use crate::vit::{Layer, Weights};
use candle_core::{Device, Tensor};
use planish_kernels::DualTensor;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

impl Objective {
    /// The objective with its weights where the arithmetic runs.
    pub(super) fn placed(&self) -> Result<Cow<'_, Self>> {
        let Some(gpu) = &self.gpu else { return Ok(Cow::Borrowed(self)) };
        let bytes = (self.weights.parameters() * self.dtype().size_in_bytes()) as u64;
        let weights: Weights = self
            .weights
            .map(|i, tensor| gpu.weight(i, tensor))
            .map_err(|error| error.of_all(bytes))?;
        Ok(Cow::Owned(self.at(weights)))
    }

    /// The layer's weights where the arithmetic runs.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn weights_of(&self, layer: &Layer) -> Result<Vec<Tensor>> {
        let one = |&i: &usize| match &self.gpu {
            Some(gpu) => gpu.weight(i, self.weights.tensor(i)),
            None => Ok(self.weights.tensor(i).clone()),
        };
        Ok(layer.tensors.iter().map(one).collect::<std::result::Result<_, device::Error>>()?)
    }

    /// A tensor where the arithmetic runs.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn here(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.gpu.as_ref().map_or_else(|| Ok(x.clone()), |gpu| gpu.put(x))
    }

    /// Tensors where the arithmetic runs.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn all_here(&self, all: &[Tensor]) -> candle_core::Result<Vec<Tensor>> {
        all.iter().map(|x| self.here(x)).collect()
    }

    /// Examples where the arithmetic runs, for as long as they are kept, if they fit there.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn hold(&self, examples: Activations) -> Result<Activations> {
        match &self.gpu {
            Some(gpu) if gpu.holds(self.bytes_of(&examples)) => {
                match gpu.put(&examples.values.to_dtype(self.dtype())?).map_err(Error::from) {
                    Ok(values) => Ok(Activations { values, ..examples }),
                    // Others may take what was free; no result depends on the place.
                    Err(error) if no_room(&error) => Ok(examples),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(examples),
        }
    }

    fn bytes_of(&self, examples: &Activations) -> u64 {
        (examples.values.elem_count() * self.dtype().size_in_bytes()) as u64
    }

    /// As [`Objective::activations`], kept where the arithmetic runs if they fit there.
    ///
    /// # Errors
    /// As those of [`Objective::activations`].
    pub fn activations_here(&self, examples: &dyn Examples, stage: usize) -> Result<Activations> {
        let row = self.config.numbers_at(stage) * self.dtype().size_in_bytes();
        let bytes = examples.len() as u64 * row as u64;
        if !self.gpu.as_ref().is_some_and(|gpu| gpu.holds(bytes)) {
            return self.activations(examples, stage);
        }
        let whole = || -> Result<Tensor> {
            let mut parts = Vec::new();
            self.forward((examples, self.even_chunks(examples)?), stage, |part| {
                parts.push(part);
                Ok(())
            })?;
            match &parts[..] {
                [one] => Ok(one.clone()),
                parts => Ok(vector::end_to_end(parts)?),
            }
        };
        match whole() {
            Ok(values) => Ok(Activations { stage, values, labels: examples.labels().into() }),
            Err(error) if no_room(&error) => self.activations(examples, stage),
            Err(error) => Err(error),
        }
    }

    /// Waits until a GPU has done all that it was sent.
    ///
    /// # Errors
    /// What went wrong there.
    pub fn wait(&self) -> Result<()> {
        self.gpu.as_ref().map_or(Ok(()), |gpu| Ok(gpu.device().synchronize()?))
    }

    /// The weight of each of a micro-batch's examples in a mean over `of`.
    pub(super) fn shares(&self, of: usize, examples: usize) -> Result<DualTensor> {
        let each = Tensor::full(1.0 / of as f64, examples, &Device::Cpu)?;
        Ok(DualTensor::constant(self.here(&each.to_dtype(self.dtype())?)?))
    }
}

/// A copy in the CPU's memory; the tensor itself if it is there already.
pub(super) fn back(x: &Tensor) -> candle_core::Result<Tensor> {
    x.to_device(&Device::Cpu)
}

/// [`back`] of value and tangents.
pub(super) fn all_back(x: DualTensor) -> Result<DualTensor> {
    let (value, tangent) = x.into_parts();
    let tangent = tangent.as_ref().map(back).transpose()?;
    Ok(DualTensor::new(back(&value)?, tangent)?)
}

/// Applies `work` to one micro-batch after the other, while the next is read, its images decoded,
/// and sent. One that has no room even without the next beside it is halved, and so are those that
/// follow; a single image without room is [`device::Error::NotForOne`].
pub(super) fn one_by_one<T>(
    gpu: &Gpu,
    (examples, chunks): (&Fed, Vec<Range<usize>>),
    work: impl Fn(Range<usize>) -> Result<T>,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut queue: VecDeque<Range<usize>> = chunks.into();
    let mut room_for_two = true;
    while let Some(range) = queue.pop_front() {
        if range.len() > gpu.limit() {
            let middle = range.start + range.len() / 2;
            queue.push_front(middle..range.end);
            queue.push_front(range.start..middle);
            continue;
        }
        let next = queue.front().cloned();
        if let Some(next) = &next {
            examples.ahead_at(&next.clone().collect::<Vec<_>>());
        }
        let found = match next.filter(|next| room_for_two && next.len() <= gpu.limit()) {
            Some(next) => examples.meanwhile(gpu, next, || work(range.clone())),
            None => work(range.clone()),
        };
        match found {
            Err(error) if no_room(&error) && examples.forget() => {
                room_for_two = false;
                queue.push_front(range);
            }
            Err(error) if range.len() > 1 && no_room(&error) => {
                gpu.too_many(range.len());
                queue.push_front(range);
            }
            Err(error) if no_room(&error) => return Err(gpu.not_for_one().into()),
            found => take(found?)?,
        }
    }
    Ok(())
}

/// Whether the GPU had no room.
pub(crate) fn no_room(error: &Error) -> bool {
    match error {
        Error::Tensor(error) | Error::Kernel(planish_kernels::Error::Candle(error)) => {
            device::is_full(error)
        }
        Error::Device(device::Error::NotForOne { .. }) => true,
        _ => false,
    }
}
