//! Errors of reading and writing cached activations.

use std::path::{Path, PathBuf};

/// An error of the cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system reported an error.
    #[error(
        "cannot {action} {}; set `cache_dir` to another folder, free space with `planish cache \
         clear`, or set `cache` to off",
        .path.display()
    )]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not enough disk space.
    #[error(
        "{}: expected room for {needed} bytes of frozen layers' activations, found {free}; \
         set `cache_dtype` to bf16 to halve the size, set `cache_dir` to another folder, free space \
         with `planish cache clear`, or set `cache` to off",
        .folder.display()
    )]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// More than the allowed memory.
    #[error(
        "`cache` ram: expected at most {allowed} bytes of frozen layers' activations (`cache_ram`), \
         found {needed}; raise `cache_ram`, set `cache_dtype` to bf16 to halve the size, or set `cache` to \
         disk or off"
    )]
    NoMemory {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// The user has no cache folder.
    #[error(
        "`cache` disk: expected the user's cache folder ($XDG_CACHE_HOME or a home folder), found \
         none; set `cache_dir`"
    )]
    NoFolder,
    /// There is a file in place of the folder.
    #[error("`cache_dir` {}: expected a folder, found a file; name another path", .path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// A cache file is damaged.
    #[error(
        "{}, {place}: expected {expected}, found {found}; run again to recompute the activations, \
         or set `cache` to off",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damaged part.
        place: String,
        /// The expected content.
        expected: String,
        /// The content found.
        found: String,
    },
    /// Inputs without a digest, so they cannot be identified in a later run.
    #[error("`cache` disk: expected inputs with a digest, found some without; set `cache` to ram")]
    Unidentified,
    /// The activations do not have the expected size.
    #[error("frozen layers: expected {expected} bytes per image, found {found}; report this")]
    Shape {
        /// Bytes per row by the configuration.
        expected: usize,
        /// Bytes per row as computed.
        found: usize,
    },
    /// The fingerprint's input cannot be written as JSON.
    #[error("cannot fingerprint the inputs of the frozen layers: {0}; report this")]
    Fingerprint(#[from] serde_json::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// The error for a file that was removed right after it was written.
    pub(crate) fn gone(folder: &Path) -> Error {
        Self::io(folder, "find the file just written in")(std::io::ErrorKind::NotFound.into())
    }

    /// For `map_err` on an operation of the system.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }
}

/// Result of a cache operation.
pub type Result<T> = std::result::Result<T, Error>;
