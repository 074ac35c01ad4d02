//! The objective, examples and results on the objective's device.

use super::{Activations, Error, Examples, Objective, Result};
use crate::device;
use crate::models::{Layer, Weights};
use crate::vector;
use candle_core::{Device, Tensor};
use planish_kernels::DualTensor;
use std::borrow::Cow;

impl Objective {
    /// The objective with its weights on its device.
    pub(super) fn on_device(&self) -> Result<Cow<'_, Self>> {
        let Some(gpu) = self.engine.gpu() else { return Ok(Cow::Borrowed(self)) };
        let bytes = (self.weights.parameters() * self.dtype().size_in_bytes()) as u64;
        let weights: Weights = self
            .weights
            .map(|i, tensor| gpu.weight(i, tensor))
            .map_err(|error| error.for_all_weights(bytes))?;
        Ok(Cow::Owned(self.at(weights)))
    }

    /// The layer's weights on the objective's device.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn weights_of(&self, layer: &Layer) -> Result<Vec<Tensor>> {
        let one = |&i: &usize| match self.engine.gpu() {
            Some(gpu) => gpu.weight(i, self.weights.tensor(i)),
            None => Ok(self.weights.tensor(i).clone()),
        };
        Ok(layer.tensors.iter().map(one).collect::<std::result::Result<_, device::Error>>()?)
    }

    /// A tensor on the objective's device.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn to_device(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.engine.gpu().map_or_else(|| Ok(x.clone()), |gpu| gpu.to_device(x))
    }

    /// Tensors on the objective's device.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn all_to_device(&self, all: &[Tensor]) -> candle_core::Result<Vec<Tensor>> {
        all.iter().map(|x| self.to_device(x)).collect()
    }

    /// Moves examples to the objective's device if they fit; otherwise returns them unchanged.
    ///
    /// # Errors
    /// A failure on the GPU other than lack of room.
    pub fn keep_on_device(&self, examples: Activations) -> Result<Activations> {
        match self.engine.gpu() {
            Some(gpu) if gpu.has_room_for_examples(self.bytes_of(&examples)) => {
                match gpu.to_device(&examples.values.to_dtype(self.dtype())?).map_err(Error::from) {
                    Ok(values) => Ok(Activations { values, ..examples }),
                    // Another program may have taken the memory. Results do not depend on where
                    // examples are.
                    Err(error) if is_out_of_memory(&error) => Ok(examples),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(examples),
        }
    }

    fn bytes_of(&self, examples: &Activations) -> u64 {
        (examples.values.elem_count() * self.dtype().size_in_bytes()) as u64
    }

    /// Same as [`Objective::activations`], but the result stays on the objective's device if it
    /// fits there.
    ///
    /// # Errors
    /// Those of [`Objective::activations`].
    pub fn activations_on_device(
        &self,
        examples: &dyn Examples,
        stage: usize,
    ) -> Result<Activations> {
        let row = self.network.activation_len(stage) * self.dtype().size_in_bytes();
        let bytes = examples.len() as u64 * row as u64;
        if !self.engine.gpu().is_some_and(|gpu| gpu.has_room_for_examples(bytes)) {
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
                parts => Ok(vector::concat(parts)?),
            }
        };
        match whole() {
            Ok(values) => Ok(Activations { stage, values, labels: examples.labels().into() }),
            Err(error) if is_out_of_memory(&error) => self.activations(examples, stage),
            Err(error) => Err(error),
        }
    }

    /// Waits until the GPU has finished all submitted work.
    ///
    /// # Errors
    /// A failure on the GPU.
    pub fn synchronize(&self) -> Result<()> {
        self.engine.gpu().map_or(Ok(()), |gpu| Ok(gpu.device().synchronize()?))
    }

    /// The weight of each of `examples` examples in a mean over `of` examples.
    pub(super) fn example_weights(&self, of: usize, examples: usize) -> Result<DualTensor> {
        let each = Tensor::full(1.0 / of as f64, examples, &Device::Cpu)?;
        Ok(DualTensor::constant(self.to_device(&each.to_dtype(self.dtype())?)?))
    }
}

/// Copies a tensor to the CPU. A tensor that is there already is returned as it is.
pub(super) fn to_cpu(x: &Tensor) -> candle_core::Result<Tensor> {
    x.to_device(&Device::Cpu)
}

/// [`to_cpu`] of value and tangents.
pub(super) fn dual_to_cpu(x: DualTensor) -> Result<DualTensor> {
    let (value, tangent) = x.into_parts();
    let tangent = tangent.as_ref().map(to_cpu).transpose()?;
    Ok(DualTensor::new(to_cpu(&value)?, tangent)?)
}

/// Whether the error means that the GPU ran out of memory.
pub(crate) fn is_out_of_memory(error: &Error) -> bool {
    match error {
        Error::Tensor(error) | Error::Kernel(planish_kernels::Error::Candle(error)) => {
            device::is_out_of_memory(error)
        }
        Error::Device(device::Error::NoRoomForOneImage { .. }) => true,
        _ => false,
    }
}
