//! Errors of a study's files.

use std::io;
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of a study's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An I/O error.
    #[error("{}: cannot {task}: {source}; choose a readable and writable folder",
        .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The attempted operation.
        task: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A study file that cannot be read.
    #[error("{}: cannot be read: {source}; give a study file in TOML", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A checkpoint that changed after planning.
    #[error("{}: the checkpoint has changed since the study began; its SHA-256 is now {now}; restart the study",
        .path.display())]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// Its SHA-256.
        now: String,
    },
    /// A folder that is not a study's.
    #[error("{}: expected a study folder, found {found}; pass a folder that `planish study` wrote",
        .path.display())]
    NoStudy {
        /// The folder.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// A results folder that is a file.
    #[error("{}: expected a results folder, found a file; set `out`", .path.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
    },
    /// A folder with tables that no study wrote.
    #[error(
        "{}: expected the folder of a study or a new folder, found {} but no study.json; the file would be \
        overwritten; choose another folder", .folder.display(), .file.display()
    )]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// A file with the name of a table.
        file: PathBuf,
    },
    /// A digest that does not name one cell.
    #[error(
        "`only` \"{digest}\": expected the digest of one cell of this study, found {found}; see the column \
        `cell` of the tables"
    )]
    NoCell {
        /// The digest, or the beginning of one.
        digest: String,
        /// How many cells it names.
        found: usize,
    },
    /// Parts that do not cover the whole study.
    #[error(
        "{missing} of {cells} cells are in none of these folders: {places}; compute them with \
        `planish study` and pass their folders too, or set `partial` to merge an incomplete study"
    )]
    Missing {
        /// Number of missing cells.
        missing: usize,
        /// Number of cells in the study.
        cells: usize,
        /// Their positions from 1, with their shards if known.
        places: String,
    },
    /// A line or file that this build did not write.
    #[error("{}, line {line}: expected {expected}, found {found}; {remedy}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Another process is writing the study.
    #[error("{}: another planish process is writing this study; wait for it, or give each process \
        its own folder with `out` and join them with `merge` of `planish study`", .path.display())]
    Locked {
        /// The log.
        path: PathBuf,
    },
    /// Two logs disagree about a cell.
    #[error("cell {cell}: {figure} is {found_a} in {} and {found_b} in {}; one of the two was \
        computed by another build or on another kind of machine: delete its line there and compute \
        it again", .a.display(), .b.display())]
    Conflict {
        /// The cell's digest.
        cell: String,
        /// The first figure that differs.
        figure: String,
        /// One log.
        a: PathBuf,
        /// Its value.
        found_a: String,
        /// The other log.
        b: PathBuf,
        /// Its value.
        found_b: String,
    },
    /// A cell had a different result when computed again.
    #[error("cell {cell}: {figure} was {before} and is {now}: another build or another kind of machine \
        computed it; delete its line in {} and run the study again", .folder.display())]
    Recomputed {
        /// The cell's digest.
        cell: String,
        /// The first figure that differs.
        figure: String,
        /// Its value in the log.
        before: String,
        /// Its value now.
        now: String,
        /// The study's folder.
        folder: PathBuf,
    },
    /// Two folders from different studies.
    #[error("{} and {} belong to different studies: {what}; merge folders of one study file, run on the same \
        checkpoints and images", .a.display(), .b.display())]
    OtherStudy {
        /// One plan.
        a: PathBuf,
        /// The other.
        b: PathBuf,
        /// The first difference.
        what: String,
    },
    /// A cell that JSON cannot represent.
    #[error("a cell has no JSON form: {0}; report this as a bug")]
    Json(serde_json::Error),
    /// A table cannot be written as CSV.
    #[error("a row of {table} has no CSV form: {source}; rename the attribute that it holds")]
    Csv {
        /// The table.
        table: &'static str,
        /// The CSV writer's error.
        source: csv::Error,
    },
}

impl Error {
    pub(super) fn io(path: &Path, task: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { path: path.into(), task, source }
    }

    /// The same for a file that every study folder has.
    pub(super) fn of_study(path: &Path, task: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| match (source.kind(), path.parent(), path.file_name()) {
            (NotFound | NotADirectory, Some(folder), Some(name)) => Error::NoStudy {
                path: folder.into(),
                found: match folder.is_dir() {
                    true => format!("a folder without {}", name.display()),
                    false if folder.exists() => "a file".into(),
                    false => "nothing".into(),
                },
            },
            _ => Error::Io { path: path.into(), task, source },
        }
    }
}
