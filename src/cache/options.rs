//! Options of the cache.

use super::CachePolicy;
use crate::options::Error;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the frozen layers' activations are cached, and with which type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Cache options"))]
pub struct CacheOptions {
    /// Cache for activations of frozen layers: `ram` for this run, `disk` for later runs too, `off`,
    /// or `auto`, chosen by available space
    #[cfg_attr(feature = "cli", arg(
        long, value_enum, value_name = "auto|ram|disk|off", default_value_t = Self::default().cache,
        hide_possible_values = true
    ))]
    pub cache: CachePolicy,
    /// Maximum CPU memory for cached activations, in MiB; on a GPU, half of its free memory
    #[cfg_attr(feature = "cli", arg(long, value_name = "MIB", default_value_t = Self::default().cache_ram, hide_short_help = true))]
    pub cache_ram: u64,
    /// Type of the cached activations. bf16 halves the size and rounds each value to nearest;
    /// computation is in f32
    #[cfg_attr(feature = "cli", arg(
        long, value_enum, value_name = "f32|bf16", default_value_t = Self::default().cache_dtype,
        hide_possible_values = true, hide_short_help = true
    ))]
    pub cache_dtype: CacheDtype,
    /// Folder of the cache files [default: planish in the user's cache folder]
    #[cfg_attr(feature = "cli", arg(long, value_name = "DIR", hide_short_help = true))]
    pub cache_dir: Option<PathBuf>,
}

/// Type of cached activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum CacheDtype {
    /// unchanged
    #[default]
    F32,
    /// rounded to nearest, ties to even
    Bf16,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            cache: CachePolicy::Auto,
            cache_ram: 4096,
            cache_dtype: CacheDtype::F32,
            cache_dir: None,
        }
    }
}

impl CacheOptions {
    /// Whether activations are rounded to bf16.
    pub fn half(&self) -> bool {
        self.cache_dtype == CacheDtype::Bf16
    }

    /// Limit of CPU memory, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.cache_ram.saturating_mul(1 << 20)
    }

    /// Refuses options that have no effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> Result<(), Error> {
        if self.cache_dir.is_some() && matches!(self.cache, CachePolicy::Ram | CachePolicy::Off) {
            let (option, applies_to) = ("cache_dir".into(), "`cache` disk or auto".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        Ok(())
    }
}
