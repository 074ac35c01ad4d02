//! Image files, read and decoded each time they are asked for: none is kept.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;
use super::decode::{Flaw, Frame, channels, decode};

/// An image file that was decoded in spite of a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFile {
    /// The file.
    pub path: PathBuf,
    /// The decoder's first warning.
    pub warning: String,
}

/// Image files by their folders. What is held of a file is its name and, once asked for, its
/// hash: some hundred bytes.
#[derive(Debug, Default)]
pub(super) struct Files {
    folders: Vec<PathBuf>,
    entries: Vec<Entry>,
    /// What was damaged in the files decoded so far, by their numbers.
    damage: Mutex<BTreeMap<usize, String>>,
}

#[derive(Debug)]
struct Entry {
    folder: usize,
    name: OsString,
    hash: OnceLock<[u8; 32]>,
}

impl Files {
    /// Adds the files `names` of one folder.
    pub fn add(&mut self, folder: &Path, names: impl IntoIterator<Item = OsString>) {
        let at = self.folders.len();
        let entry = |name| Entry { folder: at, name, hash: OnceLock::new() };
        self.entries.extend(names.into_iter().map(entry));
        self.folders.push(folder.to_owned());
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the file of that number is.
    pub fn path(&self, row: usize) -> Option<PathBuf> {
        let entry = self.entries.get(row)?;
        Some(self.folders.get(entry.folder)?.join(&entry.name))
    }

    /// The image of that number; `None` past the last. If the file is damaged, [`Files::damaged`]
    /// names it from then on.
    pub fn frame(&self, row: usize) -> Option<Result<Frame, Error>> {
        let path = self.path(row)?;
        let frame = fs::read(&path).map_err(Flaw::Read).and_then(|bytes| decode(&bytes));
        if let Ok(Frame { damage: Some(damage), .. }) = &frame {
            let mut known = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(row).or_insert_with(|| damage.clone());
        }
        Some(frame.map_err(|flaw| Error::Image { path, flaw }))
    }

    /// Channels of the image of that number, 1 or 3, by its header; `None` if it has none.
    pub fn channels(&self, row: usize) -> Option<usize> {
        channels(&fs::read(self.path(row)?).ok()?)
    }

    /// The damaged files among those decoded so far, by their numbers.
    pub fn damaged(&self) -> BTreeMap<usize, DamagedFile> {
        let known = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let file = |(&row, warning): (&usize, &String)| {
            Some((row, DamagedFile { path: self.path(row)?, warning: warning.clone() }))
        };
        known.iter().filter_map(file).collect()
    }

    /// SHA-256 of the file's bytes as they were when first asked for; zeros if it cannot be
    /// read, as no image can be made of it either.
    pub fn hash(&self, row: usize) -> [u8; 32] {
        let read = || self.path(row).and_then(|path| fs::read(path).ok());
        let hash = || read().map_or([0; 32], |bytes| Sha256::digest(bytes).into());
        self.entries.get(row).map_or([0; 32], |entry| *entry.hash.get_or_init(hash))
    }
}
