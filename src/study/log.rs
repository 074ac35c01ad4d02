//! The log of finished cells.

use super::{CellFigures, CellKind, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// File name of the log in a study folder.
pub const CELLS: &str = "cells.jsonl";

/// A finished cell: one line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Digest of the cell.
    pub cell: String,
    /// The measured values.
    pub figures: CellFigures,
    /// Run time in seconds. This is the only value that may differ when the cell is computed again.
    pub seconds: f64,
}

impl LogEntry {
    /// What it measures.
    pub fn kind(&self) -> CellKind {
        self.figures.kind()
    }

    /// The entry's line, with its line feed, and the entry as read back from that line. Writing and
    /// reading may change the last bit of a number, and all tables use entries as read.
    fn line(&self) -> serde_json::Result<(String, LogEntry)> {
        let text = serde_json::to_string(self)?;
        let read = serde_json::from_str(&text)?;
        Ok((text + "\n", read))
    }
}

/// The first value that differs between two entries of one cell, with both values. Run times are
/// ignored.
pub fn differing(a: &LogEntry, b: &LogEntry) -> Option<(String, String, String)> {
    if a.figures == b.figures {
        return None;
    }
    let json = |of: &LogEntry| serde_json::to_value(&of.figures).unwrap_or_default();
    let (name, a, b) = difference("", &json(a), &json(b))?;
    // The first part of the path is the kind of the figures.
    let name = name.split_once('.').map_or(name.as_str(), |(_, name)| name);
    Some((name.to_owned(), a, b))
}

/// The path of the first part that differs, with both values as text.
fn difference(path: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            let of = |fields: &serde_json::Map<String, Value>, name: &String| {
                fields.get(name).cloned().unwrap_or_default()
            };
            names.into_iter().find_map(|name| difference(&below(name), &of(a, name), &of(b, name)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.into_iter().find_map(|(i, (a, b))| difference(&below(&i.to_string()), a, b))
        }
        (a, b) => (a != b).then(|| (path.to_owned(), a.to_string(), b.to_string())),
    }
}

/// The log in a study folder. It is locked for this process until it is dropped.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    entries: HashMap<String, LogEntry>,
}

impl Log {
    /// Opens or creates the log. An incomplete last line, left by a killed run, is removed.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process holds the lock; [`Error::Line`] for a line that is not
    /// a cell; [`Error::Conflict`]; [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Log> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create the study folder"))?;
        let path = folder.join(CELLS);
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true);
        let mut file = options.open(&path).map_err(Error::io(&path, "open the log"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path }),
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, "lock the log")(e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io(&path, "read the log"))?;
        let whole = whole_lines(&bytes);
        if whole.len() < bytes.len() {
            file.set_len(whole.len() as u64).map_err(Error::io(&path, "repair the log"))?;
        }
        let entries = entries(&path, whole)?;
        Ok(Log { path, file, entries })
    }

    /// A finished cell, if present.
    pub fn get(&self, cell: &str) -> Option<&LogEntry> {
        self.entries.get(cell)
    }

    /// All finished cells.
    pub fn entries(&self) -> &HashMap<String, LogEntry> {
        &self.entries
    }

    /// Adds a cell and returns when it is on disk. The stored entry is the one that will be read
    /// back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, entry: &LogEntry) -> Result<&LogEntry> {
        let json = |e: serde_json::Error| Error::io(&self.path, "write a cell as JSON")(e.into());
        let (line, entry) = entry.line().map_err(json)?;
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(Error::io(&self.path, "add a cell"))?;
        Ok(self.entries.entry(entry.cell.clone()).or_insert(entry))
    }
}

/// Reads a log that another process wrote or is writing. An incomplete last line is ignored.
///
/// # Errors
/// As [`Log::open`], except for the lock.
pub fn read_log(folder: &Path) -> Result<HashMap<String, LogEntry>> {
    let path = folder.join(CELLS);
    let bytes = std::fs::read(&path).map_err(Error::of_study(&path, "read the log"))?;
    entries(&path, whole_lines(&bytes))
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    &bytes[..end]
}

fn entries(path: &Path, bytes: &[u8]) -> Result<HashMap<String, LogEntry>> {
    let mut all: HashMap<String, LogEntry> = HashMap::new();
    for (i, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
        let entry: LogEntry = serde_json::from_slice(line).map_err(|e| Error::Line {
            path: path.into(),
            line: i + 1,
            expected: "a finished cell as JSON".into(),
            found: format!("something else ({e})"),
            remedy: "delete that line to compute the cell again",
        })?;
        if let Some(known) = all.get(&entry.cell)
            && let Some((figure, found_a, found_b)) = differing(known, &entry)
        {
            let cell = entry.cell;
            let (a, b) = (path.to_path_buf(), path.to_path_buf());
            return Err(Error::Conflict { cell, figure, a, found_a, b, found_b });
        }
        all.entry(entry.cell.clone()).or_insert(entry);
    }
    Ok(all)
}
