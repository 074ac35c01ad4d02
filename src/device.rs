//! Where the arithmetic runs: on the CPU, or, in a build with feature `cuda`, on a GPU.
//!
//! On a GPU weights, activations (those of frozen layers, too, if they fit), gradients, perturbations,
//! and what optimizers remember stay there; images, activations in files, and the vectors of [`crate::curvature`] are copied to
//! it, and losses, logits, sums and the weights that are saved from it. One stream computes
//! everything in order, so micro-batches run one after the other; on a second one the next inputs
//! come meanwhile (`device/coming.rs`).

mod coming;

pub use coming::Coming;
pub(crate) use coming::meanwhile;

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

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A build without feature `cuda`.
    #[error(
        "--device {0}: this planish was built for the CPU alone; build it with `cargo build \
         --release --features cuda`, or run with --device cpu"
    )]
    NotBuilt(Choice),
    /// No driver, one that is too old, or no such GPU.
    #[error("--device {choice}: {source}")]
    Refused {
        /// What was asked for.
        choice: Choice,
        /// Why not.
        source: planish_kernels::Error,
    },
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
    let [_, bytes] = room(&device).map_err(|source| Error::Refused { choice, source })?;
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

/// Bytes of the device's memory that are free, and all.
#[cfg(feature = "cuda")]
fn room(device: &Device) -> planish_kernels::Result<[u64; 2]> {
    planish_kernels::cuda::gpu::room(device)
}

#[cfg(not(feature = "cuda"))]
fn room(_: &Device) -> planish_kernels::Result<[u64; 2]> {
    Ok([0; 2])
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
pub fn beside(like: &Tensor, i: usize, x: &Tensor) -> candle_core::Result<Tensor> {
    match gpu() {
        Some(gpu) if like.device().is_cuda() => gpu.weight(i, x),
        _ => Ok(x.clone()),
    }
}

/// What reports say: `cpu`, or `cuda:0`.
pub fn name() -> String {
    CHOSEN.get().map_or(Choice::Cpu, |gpu| gpu.choice).to_string()
}

/// Most of the GPU's memory that tensors took at once so far, in MiB.
pub fn peak_mib() -> Option<u64> {
    CHOSEN.get()?.peak_mib()
}

/// What forecasts add on a GPU: the most memory that what was tried beforehand took of it, with
/// `kept` bytes of activations beside that if they stay there; nothing on the CPU.
pub fn outlook(kept: u64) -> String {
    let Some((gpu, peak)) = CHOSEN.get().and_then(|gpu| Some((gpu, gpu.peak_mib()?))) else {
        return String::new();
    };
    let kept = if gpu.keeps(kept) { kept >> 20 } else { 0 };
    format!(" and {} of {}'s {} MiB", peak + kept, gpu.choice, gpu.bytes >> 20)
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
    /// The GPU has no room.
    pub fn weight(&self, i: usize, x: &Tensor) -> candle_core::Result<Tensor> {
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
        let copy = self.put(x)?;
        slot.push((x.id(), copy.clone()));
        Ok(copy)
    }

    /// Candle's name for it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All of its memory, bytes: what micro-batches follow, for what is free differs from run to run,
    /// and results with their sizes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of its memory that are free.
    pub fn free(&self) -> u64 {
        room(&self.device).map_or(0, |[free, _]| free)
    }

    /// Whether examples of so many bytes are kept there between passes: an eighth of what is free.
    /// No result depends on the place.
    pub fn holds(&self, bytes: u64) -> bool {
        bytes <= self.free() / 8
    }

    /// Whether frozen layers' activations of so many bytes stay there: half of what is free.
    pub fn keeps(&self, bytes: u64) -> bool {
        bytes <= self.free() / 2
    }

    /// Most images that a micro-batch may have, as far as is known.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Notes that so many images at once are too many, and tells so.
    pub fn too_many(&self, images: usize) {
        let half = (images / 2).max(1);
        if self.limit.fetch_min(half, Ordering::Relaxed) > half {
            (self.notice)(&format!(
                "note: {} has no room for {images} images at once: going on with {half}",
                self.choice
            ));
        }
    }

    #[cfg(feature = "cuda")]
    fn peak_mib(&self) -> Option<u64> {
        planish_kernels::cuda::gpu::peak_mib(&self.device)
    }

    #[cfg(not(feature = "cuda"))]
    fn peak_mib(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
