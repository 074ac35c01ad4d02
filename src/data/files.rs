//! Image files, read and decoded on every access; nothing is cached.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;
use super::decode::{DecodeError, Frame, channels, decode};

/// An image file that was decoded despite a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFile {
    /// The file.
    pub path: PathBuf,
    /// The decoder's first warning.
    pub warning: String,
}

/// Image files by folder. Per file, only the name and, once computed, the hash are in memory: some
/// hundred bytes.
#[derive(Debug, Default)]
pub(super) struct Files {
    folders: Vec<PathBuf>,
    entries: Vec<Entry>,
    /// Warnings of the files decoded so far, by file number.
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

    /// Adds one file.
    pub fn add_to(&mut self, folder: &Path, name: OsString) {
        if self.folders.last().is_none_or(|last| last != folder) {
            return self.add(folder, [name]);
        }
        let folder = self.folders.len() - 1;
        self.entries.push(Entry { folder, name, hash: OnceLock::new() });
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Path of the file with this number.
    pub fn path(&self, row: usize) -> Option<PathBuf> {
        let entry = self.entries.get(row)?;
        Some(self.folders.get(entry.folder)?.join(&entry.name))
    }

    /// Decodes the image with this number; `None` past the last. A damaged file is listed by
    /// [`Files::damaged`] afterwards.
    pub fn frame(&self, row: usize) -> Option<Result<Frame, Error>> {
        let path = self.path(row)?;
        let frame = fs::read(&path).map_err(DecodeError::Read).and_then(|bytes| decode(&bytes));
        if let Ok(Frame { damage: Some(damage), .. }) = &frame {
            let mut known = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(row).or_insert_with(|| damage.clone());
        }
        Some(frame.map_err(|cause| Error::Image { path, cause }))
    }

    /// Channels of the image with this number, 1 or 3, according to its header; `None` if it has
    /// none.
    pub fn channels(&self, row: usize) -> Option<usize> {
        channels(&fs::read(self.path(row)?).ok()?)
    }

    /// The damaged files among those decoded so far, by number.
    pub fn damaged(&self) -> BTreeMap<usize, DamagedFile> {
        let known = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let file = |(&row, warning): (&usize, &String)| {
            Some((row, DamagedFile { path: self.path(row)?, warning: warning.clone() }))
        };
        known.iter().filter_map(file).collect()
    }

    /// SHA-256 of the file's bytes on first access; zeros if it cannot be read, since it then gives
    /// no image.
    pub fn hash(&self, row: usize) -> [u8; 32] {
        let read = || self.path(row).and_then(|path| fs::read(path).ok());
        let hash = || read().map_or([0; 32], |bytes| Sha256::digest(bytes).into());
        self.entries.get(row).map_or([0; 32], |entry| *entry.hash.get_or_init(hash))
    }
}
