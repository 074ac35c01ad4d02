//! What can be wrong with a study's files.

use std::io;
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with a study's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses.
    #[error("{}: cannot {task}: {source}; choose a folder where you may read and write",
        .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        task: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A study file that cannot be read.
    #[error("{}: cannot be read: {source}; give a study file in TOML", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A checkpoint that is no longer the one that was planned with.
    #[error("{}: it has changed since the study began: its SHA-256 is {now} now; start the study again",
        .path.display())]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// Its SHA-256.
        now: String,
    },
    /// A folder that no study wrote.
    #[error("{}: expected a folder of a study, found {found}; pass a folder that `planish study` wrote",
        .path.display())]
    NoStudy {
        /// The folder.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// Parts that do not make up the whole.
    #[error(
        "{missing} of {cells} cells are in none of these folders: {places}; compute them by \
        `planish study` and pass their folders too, or pass --partial to join what there is"
    )]
    Missing {
        /// Cells that are missing.
        missing: usize,
        /// Cells that the study wants.
        cells: usize,
        /// Their positions from 1, with the shards that they are of where those are known.
        places: String,
    },
    /// A line or file is not what this build writes.
    #[error("{}, line {line}: expected {expected}, found {found}; {remedy}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Another process writes the study.
    #[error("{}: another planish process is writing this study; wait for it, or give every process \
        a folder of its own with --out and join them with `planish merge`", .path.display())]
    Locked {
        /// The log.
        path: PathBuf,
    },
    /// Two logs disagree on a cell.
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
    /// A cell came out differently when it was computed again.
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
    /// Two folders belong to different studies.
    #[error("{} and {} are of two studies: {what}; merge folders of one study file, run on the same \
        checkpoints and images", .a.display(), .b.display())]
    OtherStudy {
        /// One plan.
        a: PathBuf,
        /// The other.
        b: PathBuf,
        /// The first difference.
        what: String,
    },
    /// A table cannot be written as CSV.
    #[error("a row of {table} has no CSV form: {source}; rename the attribute that it holds")]
    Csv {
        /// The table.
        table: &'static str,
        /// What the writer says.
        source: csv::Error,
    },
}

impl Error {
    pub(super) fn io(path: &Path, task: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { path: path.into(), task, source }
    }

    /// The same of a file that every study's folder has.
    pub(super) fn of_study(path: &Path, task: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| match (source.kind(), path.parent(), path.file_name()) {
            (NotFound | NotADirectory, Some(folder), Some(name)) => Error::NoStudy {
                path: folder.into(),
                found: match folder.is_dir() {
                    true => format!("one without {}", name.display()),
                    false if folder.exists() => "a file".into(),
                    false => "nothing".into(),
                },
            },
            _ => Error::Io { path: path.into(), task, source },
        }
    }
}
