//! Image files, and images inside archives and tables, read and decoded on every access.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;
use super::decode::{DecodeError, Frame, channels, decode};
use super::parquet_table::Images;

/// An image file that was decoded despite a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFile {
    /// The file.
    pub path: PathBuf,
    /// The decoder's first warning.
    pub warning: String,
}

/// Image files by folder or archive. Per file, only the name and, once computed, the hash are in memory: some
/// hundred bytes.
#[derive(Debug, Default)]
pub(super) struct Files {
    folders: Vec<PathBuf>,
    entries: Vec<Entry>,
    tables: Vec<Arc<Images>>,
    /// Warnings of the files decoded so far, by file number.
    damage: Mutex<BTreeMap<usize, String>>,
}

#[derive(Debug)]
struct Entry {
    /// Its folder, its archive, or its table.
    folder: usize,
    name: OsString,
    place: Place,
    hash: OnceLock<[u8; 32]>,
}

/// Where the bytes of an image are.
#[derive(Debug)]
enum Place {
    /// In a file of its own.
    File,
    /// In an archive: first byte, and number of bytes.
    Member(u64, u64),
    /// In a row of this table.
    Row(usize, usize),
}

impl Files {
    /// Adds the files `names` of one folder.
    pub fn add(&mut self, folder: &Path, names: impl IntoIterator<Item = OsString>) {
        let at = self.folders.len();
        let entry = |name| Entry { folder: at, name, place: Place::File, hash: OnceLock::new() };
        self.entries.extend(names.into_iter().map(entry));
        self.folders.push(folder.to_owned());
    }

    /// Adds one file.
    pub fn add_to(&mut self, folder: &Path, name: OsString) {
        if self.folders.last().is_none_or(|last| last != folder) {
            return self.add(folder, [name]);
        }
        let folder = self.folders.len() - 1;
        self.entries.push(Entry { folder, name, place: Place::File, hash: OnceLock::new() });
    }

    /// Adds one file of an archive that is not compressed: its name there, and where its bytes are (first, and
    /// number).
    pub fn add_member(&mut self, archive: &Path, name: String, range: (u64, u64)) {
        if self.folders.last().is_none_or(|last| last != archive) {
            self.folders.push(archive.to_owned());
        }
        let (folder, name, place) =
            (self.folders.len() - 1, name.into(), Place::Member(range.0, range.1));
        self.entries.push(Entry { folder, name, place, hash: OnceLock::new() });
    }

    /// Adds all rows of a table.
    pub fn add_rows(&mut self, path: &Path, rows: usize, images: Arc<Images>) {
        self.folders.push(path.to_owned());
        let (folder, table) = (self.folders.len() - 1, self.tables.len());
        self.tables.push(images);
        let entry = |row: usize| Entry {
            folder,
            name: format!("row {row}").into(),
            place: Place::Row(table, row),
            hash: OnceLock::new(),
        };
        self.entries.extend((0..rows).map(entry));
    }

    /// Adds all of `other`, in order.
    pub fn append(&mut self, other: Files) {
        let (before, tables) = (self.folders.len(), self.tables.len());
        self.folders.extend(other.folders);
        self.tables.extend(other.tables);
        let entry = |entry: Entry| Entry {
            folder: entry.folder + before,
            place: match entry.place {
                Place::Row(table, row) => Place::Row(table + tables, row),
                place => place,
            },
            ..entry
        };
        self.entries.extend(other.entries.into_iter().map(entry));
    }

    /// The bytes of the file with this number; `None` past the last.
    fn bytes(&self, row: usize) -> Option<io::Result<Vec<u8>>> {
        let entry = self.entries.get(row)?;
        let folder = self.folders.get(entry.folder)?;
        Some(match entry.place {
            Place::File => fs::read(folder.join(&entry.name)),
            Place::Member(start, length) => read_range(folder, (start, length)),
            Place::Row(table, row) => match self.tables.get(table)?.get(row) {
                Ok(image) => image.ok_or_else(|| io::Error::other("the row has no image")),
                Err(error) => Err(io::Error::other(error.to_string())),
            },
        })
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Path of the file with this number. In an archive or a table, it is the name there after their path.
    pub fn path(&self, row: usize) -> Option<PathBuf> {
        let entry = self.entries.get(row)?;
        Some(self.folders.get(entry.folder)?.join(&entry.name))
    }

    /// Decodes the image with this number; `None` past the last. A damaged file is listed by
    /// [`Files::damaged`] afterwards.
    pub fn frame(&self, row: usize) -> Option<Result<Frame, Error>> {
        let path = self.path(row)?;
        let bytes = self.bytes(row)?;
        let frame = bytes.map_err(DecodeError::Read).and_then(|bytes| decode(&bytes));
        if let Ok(Frame { damage: Some(damage), .. }) = &frame {
            let mut known = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(row).or_insert_with(|| damage.clone());
        }
        Some(frame.map_err(|cause| Error::Image { path, cause }))
    }

    /// Channels of the image with this number, 1 or 3, according to its header; `None` if it has
    /// none.
    pub fn channels(&self, row: usize) -> Option<usize> {
        channels(&self.bytes(row)?.ok()?)
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
        let read = || self.bytes(row)?.ok();
        let hash = || read().map_or([0; 32], |bytes| Sha256::digest(bytes).into());
        self.entries.get(row).map_or([0; 32], |entry| *entry.hash.get_or_init(hash))
    }
}

/// `length` bytes from `start` on. Readers have checked that the file has them.
fn read_range(path: &Path, (start, length): (u64, u64)) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
