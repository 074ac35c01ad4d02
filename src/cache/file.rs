//! A cache file: written atomically, read row by row.

use super::layout::{About, ActivationLayout, header_length};
use super::{Error, Result, folder};
use crate::temp_file::{self, TempFile};
use rayon::prelude::*;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Bytes that a thread verifies at a time.
const CHUNK: usize = 1 << 20;

/// A file being written, under a temporary name in the same folder.
///
/// It is locked while it is written, which distinguishes it from a file left by a killed run. If it
/// is dropped before [`Writer::finish`], it is deleted.
pub struct Writer {
    part: PathBuf,
    path: PathBuf,
    temp_file: TempFile,
    file: BufWriter<File>,
    layout: ActivationLayout,
    sums: Vec<u32>,
    finished: bool,
}

impl Writer {
    /// Starts the file of this key in a folder, which is created if needed. Removes files that
    /// killed runs left there.
    ///
    /// # Errors
    /// A folder that cannot be created or written; not enough room.
    pub fn create(folder: &Path, layout: &ActivationLayout, about: &About) -> Result<Writer> {
        fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
        folder::sweep(folder);
        folder::check_room(folder, layout.file_bytes())?;
        let part = folder::part(folder, &about.key);
        let temp_file = TempFile::new(&part);
        let file = OpenOptions::new().write(true).create_new(true).open(&part);
        let file = file.map_err(Error::io(&part, "create"))?;
        // If the system cannot lock files, an unlocked file is not treated as abandoned either.
        let _ = file.try_lock();
        let mut writer = Writer {
            path: folder::path(folder, &about.key),
            temp_file,
            file: BufWriter::with_capacity(CHUNK, file),
            layout: layout.clone(),
            sums: Vec::new(),
            finished: false,
            part,
        };
        writer.write(&layout.header(about))?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.part, "write"))
    }

    /// Appends whole rows.
    ///
    /// # Errors
    /// A row of the wrong size; a full disk.
    pub fn add(&mut self, rows: &[u8]) -> Result<()> {
        let row = self.layout.row_bytes();
        if row == 0 || !rows.len().is_multiple_of(row) {
            return Err(Error::Shape { expected: row, found: rows.len() });
        }
        self.sums.extend(rows.chunks_exact(row).map(crc32fast::hash));
        self.write(rows)
    }

    /// Flushes the data to the disk, then renames the file to its final name.
    ///
    /// # Errors
    /// The wrong number of rows; an error of the system.
    pub fn finish(mut self) -> Result<()> {
        if self.sums.len() != self.layout.rows {
            let (expected, found) = (self.layout.rows, self.sums.len());
            return Err(Error::Shape { expected, found });
        }
        let sums: Vec<u8> = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        self.write(&sums)?;
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(Error::io(&self.part, "flush to the disk"))?;
        temp_file::rename(&self.part, &self.path).map_err(Error::io(&self.path, "name"))?;
        self.finished = true;
        folder::sync(&self.path)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            self.temp_file.remove();
        }
    }
}

/// Result of opening a file.
pub enum CacheLookup {
    /// The file exists, and all its bytes are valid.
    Sound(ActivationReader),
    /// There is no file.
    Missing,
    /// The file is damaged.
    Damaged(Error),
}

/// A cache file whose rows were all verified.
#[derive(Debug)]
pub struct ActivationReader {
    path: PathBuf,
    file: File,
    start: u64,
    row: usize,
    sums: Vec<u32>,
}

impl ActivationReader {
    /// Opens the file of this key, reads it once, and verifies header, length and every row.
    ///
    /// # Errors
    /// An error of the system. Damage is not an error here; it is returned as [`CacheLookup::Damaged`].
    pub fn open(folder: &Path, layout: &ActivationLayout, key: &str) -> Result<CacheLookup> {
        let path = folder::path(folder, key);
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(CacheLookup::Missing),
            other => other.map_err(Error::io(&path, "open"))?,
        };
        match Self::read(&path, file, layout, key)
            .and_then(|reader| reader.check().map(|()| reader))
        {
            Ok(reader) => Ok(CacheLookup::Sound(reader)),
            Err(error @ Error::Damaged { .. }) => Ok(CacheLookup::Damaged(error)),
            Err(error) => Err(error),
        }
    }

    fn read(
        path: &Path,
        file: File,
        layout: &ActivationLayout,
        key: &str,
    ) -> Result<ActivationReader> {
        let damaged = |place: &str, expected: String, found: String| Error::Damaged {
            path: path.into(),
            place: place.into(),
            expected,
            found,
        };
        let length = file.metadata().map_err(Error::io(path, "look at"))?.len();
        let short = || damaged("length", "a whole file".into(), format!("{length} bytes"));
        let mut first = [0; 8];
        if length < 8 {
            return Err(short());
        }
        folder::read_at(&file, &mut first, 0).map_err(Error::io(path, "read"))?;
        let header = header_length(first).filter(|&n| n as u64 <= length - 8);
        let header = header.ok_or_else(|| {
            damaged(
                "header's length",
                "that of a header".into(),
                u64::from_le_bytes(first).to_string(),
            )
        })?;
        let mut json = vec![0; header];
        folder::read_at(&file, &mut json, 8).map_err(Error::io(path, "read"))?;
        layout.check(path, &json, key)?;
        let start = 8 + header as u64;
        let expected = start.saturating_add(layout.bytes()).saturating_add(4 * layout.rows as u64);
        if length != expected {
            return Err(damaged("length", format!("{expected} bytes"), format!("{length}")));
        }
        let mut sums = vec![0; 4 * layout.rows];
        folder::read_at(&file, &mut sums, start + layout.bytes())
            .map_err(Error::io(path, "read"))?;
        let sums = sums.as_chunks().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        Ok(ActivationReader { path: path.into(), file, start, row: layout.row_bytes(), sums })
    }

    /// Reads every row once.
    fn check(&self) -> Result<()> {
        let together = (CHUNK / self.row.max(1)).max(1);
        let starts: Vec<usize> = (0..self.sums.len()).step_by(together).collect();
        let found: Vec<Result<()>> = starts
            .par_iter()
            .map_init(Vec::new, |buffer, &from| {
                let rows = together.min(self.sums.len() - from);
                buffer.resize(rows * self.row, 0);
                self.rows(from, buffer)
            })
            .collect();
        // The first in the file's order, independent of the threads.
        found.into_iter().collect()
    }

    /// Reads consecutive rows from `from`, as many as fit into the buffer, and verifies them.
    fn rows(&self, from: usize, buffer: &mut [u8]) -> Result<()> {
        let at = self.start + from as u64 * self.row as u64;
        folder::read_at(&self.file, buffer, at).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                self.damaged(from, "a whole row", "the file's end")
            }
            _ => Error::io(&self.path, "read")(e),
        })?;
        for (i, row) in buffer.chunks_exact(self.row).enumerate() {
            let (expected, found) = (self.sums.get(from + i).copied(), crc32fast::hash(row));
            if expected != Some(found) {
                let told =
                    expected.map_or("no such row".into(), |sum| format!("checksum {sum:08x}"));
                return Err(self.damaged(from + i, &told, &format!("{found:08x}")));
            }
        }
        Ok(())
    }

    fn damaged(&self, row: usize, expected: &str, found: &str) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            place: format!("row {row}"),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// Reads one row into a buffer of its size, and verifies it again, since the file may have
    /// changed after it was opened.
    ///
    /// # Errors
    /// An error of the system; a damaged row.
    pub fn row(&self, index: usize, buffer: &mut [u8]) -> Result<()> {
        match buffer.len() == self.row {
            true => self.rows(index, buffer),
            false => Err(Error::Shape { expected: self.row, found: buffer.len() }),
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Marks the file as used now. A failure is ignored.
    pub fn mark_used(&self) {
        let _ = self.file.set_modified(std::time::SystemTime::now());
    }
}
