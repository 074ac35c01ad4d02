//! Chooses where activations are cached: in memory, in files, or not at all.

use super::{ActivationLayout, Error, Result, folder};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the user wants activations to be cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum CachePolicy {
    /// automatically, by available space
    #[default]
    Auto,
    /// in memory
    Ram,
    /// in files
    Disk,
    /// not at all: run the frozen layers for each batch
    Off,
}

impl CachePolicy {
    /// Its name in options.
    pub fn name(self) -> &'static str {
        match self {
            CachePolicy::Auto => "auto",
            CachePolicy::Ram => "ram",
            CachePolicy::Disk => "disk",
            CachePolicy::Off => "off",
        }
    }
}

/// Where they are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// In memory, for this run only.
    Ram,
    /// In files, also for later runs.
    Disk,
    /// Not at all: the frozen layers are run for each batch.
    Off,
}

impl CacheMode {
    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            CacheMode::Ram => "ram",
            CacheMode::Disk => "disk",
            CacheMode::Off => "off",
        }
    }
}

/// Inputs of the choice.
pub struct StorageChoice<'a> {
    /// The policy asked for.
    pub policy: CachePolicy,
    /// Limit of CPU memory, bytes.
    pub ram: u64,
    /// Whether they fit into a GPU's memory, and may be stored there unchanged.
    pub there: bool,
    /// `cache_dir`, if it was given.
    pub folder: Option<PathBuf>,
    /// Bytes of one view.
    pub layout: &'a ActivationLayout,
    /// Number of views of each image.
    pub views: usize,
    /// Whether the lowest stage is that of the images. Then nothing is computed, only prepared.
    pub pixels: bool,
    /// The keys of the views, one file each. Computing them reads every image and frozen weight
    /// once.
    pub keys: &'a dyn Fn() -> Result<Vec<String>>,
}

/// Where activations are cached, and which files already exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePlan {
    /// Where.
    pub mode: CacheMode,
    /// Whether that memory is on a GPU.
    pub device: bool,
    /// Limit of CPU memory, bytes, if the GPU's memory is not enough.
    pub ram: u64,
    /// Bytes of all views, in memory or on the disk.
    pub bytes: u64,
    /// The folder of the files.
    pub folder: PathBuf,
    /// The keys of the views; empty if no files are used.
    pub keys: Vec<String>,
    /// Which of the files exist.
    pub there: Vec<bool>,
    /// Number of files in the folder written by another version of planish, which this version
    /// cannot use.
    pub other_format: usize,
}

impl StoragePlan {
    /// A plan without files: these bytes in memory, or no cache.
    pub fn without_files(mode: CacheMode, bytes: u64) -> StoragePlan {
        let (keys, there) = (Vec::new(), Vec::new());
        let folder = PathBuf::new();
        StoragePlan { mode, device: false, ram: bytes, bytes, folder, keys, there, other_format: 0 }
    }

    /// Bytes of CPU memory, and of GPU memory, that activations will use.
    pub fn memory(&self) -> [u64; 2] {
        match (self.mode, self.device) {
            (CacheMode::Ram, false) => [self.bytes, 0],
            (CacheMode::Ram, true) => [0, self.bytes],
            _ => [0, 0],
        }
    }

    /// Number of views that must be computed.
    pub fn missing(&self, views: usize) -> usize {
        match self.mode {
            CacheMode::Ram => views,
            CacheMode::Disk => self.there.iter().filter(|there| !**there).count(),
            CacheMode::Off => 0,
        }
    }
}

/// Chooses a place. `Auto` uses the first of these that applies: the files, if all exist; the disk,
/// if a folder was given and has room; memory, if the activations fit into a GPU's or into the
/// limit for the CPU's; the disk, if they need at most half of the free space and are more than
/// prepared images; no cache.
///
/// # Errors
/// For a place that was asked for explicitly: not enough memory or room, or a folder that is not
/// writable.
pub fn plan(of: &StorageChoice) -> Result<StoragePlan> {
    let bytes = of.layout.bytes().saturating_mul(of.views as u64);
    let in_files = || -> Result<StoragePlan> {
        let folder = of.folder.clone().map_or_else(folder::default_folder, Ok)?;
        let keys = (of.keys)()?;
        let there: Vec<bool> =
            keys.iter().map(|key| folder::path(&folder, key).is_file()).collect();
        let found = folder::list(&folder).unwrap_or_default();
        let other_format = found
            .iter()
            .filter(|entry| matches!(entry.found, folder::CacheFileKind::OtherFormat))
            .count();
        let mode = CacheMode::Disk;
        Ok(StoragePlan { mode, device: false, ram: 0, bytes, folder, keys, there, other_format })
    };
    let fits = of.there || bytes <= of.ram;
    let memory = || StoragePlan {
        device: of.there,
        ram: of.ram,
        ..StoragePlan::without_files(CacheMode::Ram, bytes)
    };
    let needed =
        |plan: &StoragePlan| of.layout.file_bytes().saturating_mul(plan.missing(of.views) as u64);
    match of.policy {
        CachePolicy::Off => return Ok(StoragePlan::without_files(CacheMode::Off, 0)),
        CachePolicy::Ram if !fits => {
            return Err(Error::NoMemory { needed: bytes, allowed: of.ram });
        }
        CachePolicy::Ram => return Ok(memory()),
        CachePolicy::Disk => {
            let plan = in_files()?;
            // A read-only folder is usable if it has all files.
            if plan.missing(of.views) > 0 {
                folder::check_room(&plan.folder, needed(&plan))?;
            }
            return Ok(plan);
        }
        CachePolicy::Auto => {}
    }
    let folder = of.folder.clone().map_or_else(folder::default_folder, Ok);
    let Ok(folder) = folder else {
        return Ok(if fits { memory() } else { StoragePlan::without_files(CacheMode::Off, 0) });
    };
    let named = of.folder.is_some();
    let all = of.layout.file_bytes().saturating_mul(of.views as u64);
    let free = || folder::room(&folder).unwrap_or(0);
    // Keys are needed only if files may exist or be written. Images without a digest have no keys;
    // this is an error only if files were asked for explicitly.
    let files = (named || folder.is_dir() || !fits).then(|| in_files().ok()).flatten();
    if let Some(plan) = files {
        let complete = plan.missing(of.views) == 0;
        let room = match named {
            true => needed(&plan) <= free(),
            false => !fits && all <= free() / 2,
        };
        if complete || (room && !of.pixels) {
            return Ok(plan);
        }
    }
    Ok(if fits { memory() } else { StoragePlan::without_files(CacheMode::Off, 0) })
}
