//! Where activations are to be kept: in memory, in files, or nowhere.

use super::{Error, Layout, Result, folder};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a user wants activations to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum CachePolicy {
    /// wherever they fit
    #[default]
    Auto,
    /// in memory
    Ram,
    /// in files
    Disk,
    /// nowhere: the frozen layers are run for each batch
    Off,
}

impl CachePolicy {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            CachePolicy::Auto => "auto",
            CachePolicy::Ram => "ram",
            CachePolicy::Disk => "disk",
            CachePolicy::Off => "off",
        }
    }
}

/// Where they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In memory, for this run alone.
    Ram,
    /// In files, for other runs, too.
    Disk,
    /// Nowhere: the frozen layers are run for each batch.
    Off,
}

impl Mode {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Ram => "ram",
            Mode::Disk => "disk",
            Mode::Off => "off",
        }
    }
}

/// What the choice rests on.
pub struct Choice<'a> {
    /// What was asked for.
    pub policy: CachePolicy,
    /// Bytes of the CPU's memory that may be taken.
    pub ram: u64,
    /// Whether they fit a GPU's memory, and may lie there as they are.
    pub there: bool,
    /// `--cache-dir`, if it was given.
    pub folder: Option<PathBuf>,
    /// What one view takes.
    pub layout: &'a Layout,
    /// Views of each image.
    pub views: usize,
    /// Whether the lowest stage is the image's own: then nothing is computed, only prepared.
    pub pixels: bool,
    /// The keys of the views, a file each. Finding them reads every image and frozen weight once.
    pub keys: &'a dyn Fn() -> Result<Vec<String>>,
}

/// Where activations are kept, and what is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where.
    pub mode: Mode,
    /// Whether that memory is a GPU's.
    pub device: bool,
    /// Bytes of the CPU's memory that they may take, should the GPU's not do.
    pub ram: u64,
    /// Bytes of all views, in memory or on the disk.
    pub bytes: u64,
    /// The folder of the files.
    pub folder: PathBuf,
    /// The views' keys; none but with files.
    pub keys: Vec<String>,
    /// Which of their files are there already.
    pub there: Vec<bool>,
    /// Files in the folder that another version of planish wrote, and that this one cannot use.
    pub other_format: usize,
}

impl Plan {
    /// A plan without files: to keep so many bytes in memory, or nothing.
    pub fn without_files(mode: Mode, bytes: u64) -> Plan {
        let (keys, there) = (Vec::new(), Vec::new());
        let folder = PathBuf::new();
        Plan { mode, device: false, ram: bytes, bytes, folder, keys, there, other_format: 0 }
    }

    /// Bytes of the CPU's memory, and of a GPU's, that activations are to take.
    pub fn memory(&self) -> [u64; 2] {
        match (self.mode, self.device) {
            (Mode::Ram, false) => [self.bytes, 0],
            (Mode::Ram, true) => [0, self.bytes],
            _ => [0, 0],
        }
    }

    /// Views that must be computed.
    pub fn missing(&self, views: usize) -> usize {
        match self.mode {
            Mode::Ram => views,
            Mode::Disk => self.there.iter().filter(|there| !**there).count(),
            Mode::Off => 0,
        }
    }
}

/// Chooses a place. `Auto` takes, in this order: the files, if all are there; the disk, if a folder
/// was named and has room; memory, if the activations fit a GPU's, or what is allowed of the CPU's; the disk, if they
/// take at most half of what is free and are more than prepared images; nothing.
///
/// # Errors
/// Where a place was asked for by name: too little memory or room, a folder that cannot be written.
pub fn plan(of: &Choice) -> Result<Plan> {
    let bytes = of.layout.bytes().saturating_mul(of.views as u64);
    let in_files = || -> Result<Plan> {
        let folder = of.folder.clone().map_or_else(folder::default_folder, Ok)?;
        let keys = (of.keys)()?;
        let there: Vec<bool> =
            keys.iter().map(|key| folder::path(&folder, key).is_file()).collect();
        let found = folder::list(&folder).unwrap_or_default();
        let other_format =
            found.iter().filter(|entry| matches!(entry.found, folder::Found::OtherFormat)).count();
        let mode = Mode::Disk;
        Ok(Plan { mode, device: false, ram: 0, bytes, folder, keys, there, other_format })
    };
    let fits = of.there || bytes <= of.ram;
    let memory = || Plan { device: of.there, ram: of.ram, ..Plan::without_files(Mode::Ram, bytes) };
    let needed = |plan: &Plan| of.layout.file_bytes().saturating_mul(plan.missing(of.views) as u64);
    match of.policy {
        CachePolicy::Off => return Ok(Plan::without_files(Mode::Off, 0)),
        CachePolicy::Ram if !fits => {
            return Err(Error::NoMemory { needed: bytes, allowed: of.ram });
        }
        CachePolicy::Ram => return Ok(memory()),
        CachePolicy::Disk => {
            let plan = in_files()?;
            // A folder that only others may write to serves as long as it has everything.
            if plan.missing(of.views) > 0 {
                folder::check_room(&plan.folder, needed(&plan))?;
            }
            return Ok(plan);
        }
        CachePolicy::Auto => {}
    }
    let folder = of.folder.clone().map_or_else(folder::default_folder, Ok);
    let Ok(folder) = folder else {
        return Ok(if fits { memory() } else { Plan::without_files(Mode::Off, 0) });
    };
    let named = of.folder.is_some();
    let all = of.layout.file_bytes().saturating_mul(of.views as u64);
    let free = || folder::room(&folder).unwrap_or(0);
    // Keys are worth finding only where files may be, or may come. Images without a digest have
    // none, which is no reason to stop where nobody asked for files by name.
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
    Ok(if fits { memory() } else { Plan::without_files(Mode::Off, 0) })
}
