//! Where the arithmetic runs: on the CPU, or, in a build with feature `cuda`, on a GPU.
//!
//! On a GPU weights, activations (those of frozen layers, too, if they fit), gradients, perturbations,
//! and what optimizers remember stay there; images, activations in files, and the vectors of [`crate::curvature`] are copied to
//! it, and losses, logits, sums and the weights that are saved from it. One stream computes
//! everything in order, so micro-batches run one after the other; on a second one the next inputs
//! come meanwhile (`device/coming.rs`).

mod coming;
mod error;
mod memory;

pub use coming::Coming;
pub(crate) use coming::meanwhile;
pub use error::Error;
pub(crate) use memory::is_full;
#[cfg(feature = "cuda")]
pub(crate) use memory::make;
pub use memory::{expected_mib, outlook, peak_mib};

use candle_core::{CpuStorage, Device, Storage, Tensor, TensorId};
use planish_kernels::bf16::split;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A device, as users name it: `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by the driver's number.
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ordinal = match text {
            "cpu" => return Ok(Choice::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        ordinal.map(Choice::Cuda).ok_or_else(|| "expected cpu, cuda or cuda:N".into())
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Choice::Cpu => write!(f, "cpu"),
            Choice::Cuda(i) => write!(f, "cuda:{i}"),
        }
    }
}

/// What a GPU's user is told: a line at a time.
type Notice = Box<dyn Fn(&str) + Send + Sync>;

/// Copies on the GPU of one weight: of the tensors that stood there last.
type Slot = Vec<(TensorId, Tensor)>;

/// Tensors of one slot that are kept on the GPU: a weight, and the same perturbed.
const KEPT: usize = 2;

/// A GPU in use.
pub struct Gpu {
    choice: Choice,
    device: Device,
    way: coming::Way,
    weights: Mutex<HashMap<usize, Slot>>,
    /// All of its memory, bytes.
    bytes: u64,
    /// Most images that fit a micro-batch, as far as is known.
    limit: AtomicUsize,
    notice: Notice,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Gpu({})", self.choice)
    }
}

static CHOSEN: OnceLock<Arc<Gpu>> = OnceLock::new();

/// Chooses the device of every objective made from now on; `notice` is told what happens on a GPU
/// that its user should know. A GPU once chosen stays.
///
/// # Errors
/// A GPU that cannot be used.
pub fn choose(choice: Choice, notice: impl Fn(&str) + Send + Sync + 'static) -> Result<(), Error> {
    let Choice::Cuda(ordinal) = choice else { return Ok(()) };
    let device = open(choice, ordinal)?;
    let [_, bytes] = memory::room(&device).map_err(|source| Error::Refused { choice, source })?;
    let (weights, limit) = (Mutex::default(), AtomicUsize::new(usize::MAX));
    let notice: Notice = Box::new(notice);
    let way = coming::Way::to(&device);
    CHOSEN.get_or_init(|| Arc::new(Gpu { choice, device, way, weights, bytes, limit, notice }));
    Ok(())
}

#[cfg(feature = "cuda")]
fn open(choice: Choice, ordinal: usize) -> Result<Device, Error> {
    planish_kernels::cuda::gpu::open(ordinal).map_err(|source| Error::Refused { choice, source })
}

#[cfg(not(feature = "cuda"))]
fn open(choice: Choice, _: usize) -> Result<Device, Error> {
    Err(Error::NotBuilt(choice))
}

/// The GPU that was chosen.
pub fn gpu() -> Option<Arc<Gpu>> {
    CHOSEN.get().cloned()
}

/// Weight `i` where `like` lies.
///
/// # Errors
/// The GPU has no room.
pub fn beside(like: &Tensor, i: usize, x: &Tensor) -> Result<Tensor, Error> {
    match gpu() {
        Some(gpu) if like.device().is_cuda() => gpu.weight(i, x),
        _ => Ok(x.clone()),
    }
}

/// What reports say: `cpu`, or `cuda:0`.
pub fn name() -> String {
    CHOSEN.get().map_or(Choice::Cpu, |gpu| gpu.choice).to_string()
}

/// Whether products on a GPU may round their operands to TF32.
static TF32: AtomicBool = AtomicBool::new(false);

/// Allows products on a GPU to round their operands to TF32.
pub fn allow_tf32() {
    TF32.store(true, Ordering::Relaxed);
    #[cfg(feature = "cuda")]
    candle_core::cuda::set_gemm_reduced_precision_f32(true);
}

/// What decides how the device that was chosen rounds; nothing on the CPU's vectors.
pub fn rounding() -> Option<&'static str> {
    let tf32 = TF32.load(Ordering::Relaxed);
    match CHOSEN.get() {
        Some(_) if tf32 => Some("cuda tf32"),
        Some(_) => Some("cuda f32"),
        None => split::allowed().then_some("cpu tiles"),
    }
}

impl Gpu {
    /// A copy there; the tensor itself if it is there already.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn put(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if x.device().is_cuda() {
            return Ok(x.clone());
        }
        // Candle copies all that a view was cut from.
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

    /// A copy there of weight `i`, kept for the next time; one that was computed there is itself.
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
        // The eldest goes first: its memory may serve the new one.
        if slot.len() == KEPT {
            slot.remove(0);
        }
        let bytes = (x.elem_count() * x.dtype().size_in_bytes()) as u64;
        let one = ("a weight", bytes, "choose a smaller model");
        let copy = self.make(one, || Ok(self.put(x)?))?;
        slot.push((x.id(), copy.clone()));
        Ok(copy)
    }

    /// Candle's name for it.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
