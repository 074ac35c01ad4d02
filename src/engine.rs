//! What computes, and how: the device, and the rounding of matrix products.

use crate::device::{self, DeviceChoice, Gpu};
use crate::options::as_text;
use planish_kernels::Products;
use planish_kernels::bf16::split;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Why an engine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TF32 on the CPU.
    #[error("`tf32` only applies to a GPU; add `device` cuda")]
    Tf32OnCpu,
    /// Tiles on a GPU.
    #[error("`tiles` only applies to the CPU; remove `device` or `tiles`")]
    TilesOnGpu,
    /// This processor has no tiles.
    #[error(
        "`tiles`: this processor has no AMX for bf16, or the system does not permit its use; run \
         without `tiles`"
    )]
    NoTiles,
    /// The device cannot be used.
    #[error("`device` {choice}: {source}")]
    Device {
        /// The device.
        choice: DeviceChoice,
        /// The reason.
        source: device::Error,
    },
}

/// Options of an [`Engine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[cfg_attr(feature = "cli", command(next_help_heading = "Common options"))]
pub struct EngineOptions {
    /// Device: cpu, cuda or cuda:N.
    ///
    /// A CUDA device needs a build with the feature `cuda`. N is the index of the GPU.
    #[serde(with = "as_text")]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "cpu|cuda[:N]", default_value_t = Self::default().device)
    )]
    pub device: DeviceChoice,
    /// On a GPU, use TF32 for f32 matrix products: faster, but only about three significant digits
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub tf32: bool,
    /// On a CPU with AMX, compute f32 matrix products on its tiles.
    ///
    /// Each f32 is split into three bf16 numbers. The result is as accurate as f32 arithmetic. It
    /// is faster, except when other processes on the machine keep the tiles busy.
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub tiles: bool,
}

/// Operand precision of matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Operands keep their type, f32 or f64. Products of f32 are computed as the [`Engine`] says.
    #[default]
    F32,
    /// Operands are f32 rounded to bf16; see [`Products::Bf16`].
    Bf16,
}

impl Precision {
    /// Name for reports and command lines.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err("expected f32 or bf16"),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A device, and how it computes f32 products. A copy is cheap and shares the GPU.
///
/// Work runs on the threads of the rayon pool in which it is called. That is the global pool, unless
/// the caller installs another one. Operations called from a thread of the pool run on that thread
/// alone, so do not run whole commands inside `ThreadPool::install`.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    gpu: Option<Arc<Gpu>>,
    f32_products: Products,
}

impl Engine {
    /// The CPU, with ordinary vector code.
    pub const fn cpu() -> Self {
        Self { gpu: None, f32_products: Products::F32 }
    }

    /// The engine with these options. `notice` receives messages about the GPU for the user.
    ///
    /// # Errors
    /// Options that the device does not have; a GPU that cannot be used.
    pub fn new(
        options: &EngineOptions,
        notice: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let EngineOptions { device, tf32, tiles } = *options;
        let gpu = match device {
            DeviceChoice::Cpu if tf32 => return Err(Error::Tf32OnCpu),
            DeviceChoice::Cpu if tiles && !split::available() => return Err(Error::NoTiles),
            DeviceChoice::Cpu => None,
            DeviceChoice::Cuda(_) if tiles => return Err(Error::TilesOnGpu),
            DeviceChoice::Cuda(ordinal) => {
                let failed = |source| Error::Device { choice: device, source };
                Some(Arc::new(Gpu::open(ordinal, notice).map_err(failed)?))
            }
        };
        let f32_products = match (tf32, tiles) {
            (true, _) => Products::Tf32,
            (_, true) => Products::Tiles,
            _ => Products::F32,
        };
        Ok(Self { gpu, f32_products })
    }

    /// The GPU, if the device is one.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_deref()
    }

    /// How products of this precision are computed.
    pub fn products(&self, precision: Precision) -> Products {
        match precision {
            Precision::F32 => self.f32_products,
            Precision::Bf16 => Products::Bf16,
        }
    }

    /// Name of the device for reports: `cpu` or `cuda:0`.
    pub fn device_name(&self) -> String {
        self.gpu().map_or(DeviceChoice::Cpu, Gpu::choice).to_string()
    }

    /// What determines rounding; `None` for ordinary CPU vector code. Part of cache keys.
    pub fn rounding(&self) -> Option<&'static str> {
        match (&self.gpu, self.f32_products) {
            (Some(_), Products::Tf32) => Some("cuda tf32"),
            (Some(_), _) => Some("cuda f32"),
            (None, Products::Tiles) => Some("cpu tiles"),
            (None, _) => None,
        }
    }

    /// Peak GPU memory used by tensors so far, in MiB.
    pub fn peak_mib(&self) -> Option<u64> {
        self.gpu()?.peak_mib()
    }

    /// Expected GPU memory in MiB: the peak of the trial runs so far, plus `kept` bytes of
    /// activations to be stored there.
    pub fn expected_mib(&self, kept: u64) -> Option<u64> {
        Some(self.peak_mib()?.saturating_add(kept >> 20))
    }

    /// Text of a memory forecast: `mib` MiB of the process, and [`Engine::expected_mib`] of the GPU.
    pub fn memory_forecast(&self, mib: f64, kept: u64) -> String {
        match self.gpu().and_then(|gpu| Some((gpu, self.expected_mib(kept)?))) {
            Some((gpu, expected)) => format!(
                "{mib:.0} MiB of CPU memory, {expected} of {} MiB on {}",
                gpu.bytes() >> 20,
                gpu.choice()
            ),
            None => format!("{mib:.0} MiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(options: EngineOptions) -> Result<Engine, String> {
        Engine::new(&options, |_| {}).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_is_ordinary_cpu_code() {
        for engine in [Engine::cpu(), Engine::default(), built(EngineOptions::default()).unwrap()] {
            assert_eq!((engine.device_name().as_str(), engine.rounding()), ("cpu", None));
            assert_eq!(engine.products(Precision::F32), Products::F32);
            assert_eq!(engine.products(Precision::Bf16), Products::Bf16);
            assert_eq!(engine.memory_forecast(12.3, 1 << 30), "12 MiB");
        }
    }

    #[test]
    fn engines_with_and_without_tiles_coexist() {
        let tiles = built(EngineOptions { tiles: true, ..EngineOptions::default() });
        assert_eq!(tiles.is_ok(), split::available());
        if let Ok(tiles) = tiles {
            assert_eq!(tiles.products(Precision::F32), Products::Tiles);
            assert_eq!((tiles.rounding(), Engine::cpu().rounding()), (Some("cpu tiles"), None));
        }
    }

    #[test]
    fn options_of_another_device_are_rejected() {
        let options = EngineOptions::default();
        let error = built(EngineOptions { tf32: true, ..options }).unwrap_err();
        assert!(error.starts_with("`tf32` only applies to a GPU"), "{error}");
        let device = DeviceChoice::Cuda(0);
        let error = built(EngineOptions { tiles: true, device, ..options }).unwrap_err();
        assert!(error.starts_with("`tiles` only applies to the CPU"), "{error}");
    }
}
