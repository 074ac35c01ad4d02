//! The device that computes: the CPU, or an NVIDIA GPU in a build with feature `cuda`.
//!
//! On a GPU, weights, activations (also those of frozen layers, if they fit), gradients,
//! perturbations and optimizer state stay in its memory. Images, activations cached in files, and
//! the vectors of [`crate::curvature`] are uploaded. Losses, logits, sums and weights to be saved
//! are downloaded. One stream runs all computation in order, so micro-batches run one after the
//! other. A second stream uploads the next inputs meanwhile (`device/upload.rs`).

mod error;
mod memory;
mod upload;

pub use error::Error;
pub(crate) use memory::{allocate, is_out_of_memory};
pub use upload::PendingUpload;
pub(crate) use upload::overlap;

use candle_core::{CpuStorage, Device, DeviceLocation, Storage, Tensor, TensorId};
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

/// A device as users write it: `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its ordinal in the driver.
    Cuda(usize),
}

impl DeviceChoice {
    /// The choice that selects a device.
    fn of(device: &Device) -> Self {
        match device.location() {
            DeviceLocation::Cuda { gpu_id } => DeviceChoice::Cuda(gpu_id),
            _ => DeviceChoice::Cpu,
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ordinal = match text {
            "cpu" => return Ok(DeviceChoice::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        ordinal.map(DeviceChoice::Cuda).ok_or_else(|| "expected cpu, cuda or cuda:N".into())
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            DeviceChoice::Cpu => write!(f, "cpu"),
            DeviceChoice::Cuda(i) => write!(f, "cuda:{i}"),
        }
    }
}

/// Receives messages for the user, one line each.
type Notice = Box<dyn Fn(&str) + Send + Sync>;

/// Copies of one weight on the GPU, for the tensors last used as that weight.
type Slot = Vec<(TensorId, Tensor)>;

/// Copies kept per weight: the weight and its perturbed version.
const COPIES_PER_WEIGHT: usize = 2;

/// A GPU in use, with its cached weights.
pub struct Gpu {
    choice: DeviceChoice,
    device: Device,
    uploads: upload::UploadStream,
    weights: Mutex<HashMap<usize, Slot>>,
    /// Total memory of the GPU, in bytes.
    bytes: u64,
    /// Largest micro-batch known to fit; `usize::MAX` until one did not fit.
    limit: AtomicUsize,
    notice: Notice,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Gpu({})", self.choice)
    }
}

#[cfg(feature = "cuda")]
fn open(choice: DeviceChoice, ordinal: usize) -> Result<Device, Error> {
    planish_kernels::cuda::gpu::open(ordinal).map_err(|source| Error::Refused { choice, source })
}

#[cfg(not(feature = "cuda"))]
fn open(choice: DeviceChoice, _: usize) -> Result<Device, Error> {
    Err(Error::NotBuilt(choice))
}

impl Gpu {
    /// Opens a GPU, by its ordinal in the driver. `notice` receives messages for the user.
    ///
    /// # Errors
    /// The GPU cannot be used.
    pub fn open(
        ordinal: usize,
        notice: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let choice = DeviceChoice::Cuda(ordinal);
        let device = open(choice, ordinal)?;
        let [_, bytes] =
            memory::free_and_total(&device).map_err(|source| Error::Refused { choice, source })?;
        Ok(Self {
            choice,
            uploads: upload::UploadStream::new(&device),
            device,
            weights: Mutex::default(),
            bytes,
            limit: AtomicUsize::new(usize::MAX),
            notice: Box::new(notice),
        })
    }

    /// The GPU, as users write it.
    pub fn choice(&self) -> DeviceChoice {
        self.choice
    }

    /// A copy on the GPU. A tensor that is there already is returned as it is.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn to_device(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if x.device().is_cuda() {
            return Ok(x.clone());
        }
        // Candle would copy the whole buffer that a view is part of.
        let (first, numbers) = {
            let (storage, layout) = x.storage_and_layout();
            let numbers = match &*storage {
                Storage::Cpu(CpuStorage::F32(all)) => all.len(),
                Storage::Cpu(CpuStorage::F64(all)) => all.len(),
                _ => x.elem_count(),
            };
            (layout.start_offset(), numbers)
        };
        match first == 0 && numbers == x.elem_count() {
            true => x.to_device(&self.device),
            false => x.force_contiguous()?.to_device(&self.device),
        }
    }

    /// A copy of weight `i` on the GPU, cached for the next call. A tensor that is there already is
    /// returned as it is.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub fn weight(&self, i: usize, x: &Tensor) -> Result<Tensor, Error> {
        if x.device().is_cuda() {
            return Ok(x.clone());
        }
        let mut slots = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(i).or_default();
        if let Some((_, copy)) = slot.iter().find(|(id, _)| *id == x.id()) {
            return Ok(copy.clone());
        }
        // Drop the oldest copy first: its memory can hold the new one.
        if slot.len() == COPIES_PER_WEIGHT {
            slot.remove(0);
        }
        let bytes = (x.elem_count() * x.dtype().size_in_bytes()) as u64;
        let one = ("a weight", bytes, "choose a smaller model");
        let copy = allocate(&self.device, one, || Ok(self.to_device(x)?))?;
        slot.push((x.id(), copy.clone()));
        Ok(copy)
    }

    /// The candle device.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_round_trip_as_text() {
        for (text, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:12", DeviceChoice::Cuda(12)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert!(
            ["", "gpu", "cuda:", "cuda:-1", "CPU"]
                .iter()
                .all(|t| t.parse::<DeviceChoice>().is_err())
        );
    }

    #[test]
    fn two_versions_of_a_weight_are_kept() {
        let gpu = Gpu {
            choice: DeviceChoice::Cuda(0),
            device: Device::Cpu,
            uploads: upload::UploadStream::new(&Device::Cpu),
            weights: Mutex::default(),
            bytes: 1 << 30,
            limit: AtomicUsize::new(usize::MAX),
            notice: Box::new(|_| {}),
        };
        let tensors = [1f32, 2.0, 3.0].map(|x| Tensor::new(&[x], &Device::Cpu).unwrap());
        for round in [[0, 1], [1, 2], [0, 2]] {
            for i in round {
                let copy = gpu.weight(7, &tensors[i]).unwrap();
                assert_eq!(copy.to_vec1::<f32>().unwrap(), [(i + 1) as f32]);
            }
            assert_eq!(gpu.weights.lock().unwrap()[&7].len(), 2);
        }
        gpu.halve_limit(9);
        gpu.halve_limit(64);
        assert_eq!(gpu.max_images(), 4);
    }
}
