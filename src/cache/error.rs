//! Why kept activations cannot be read or written.

use std::path::{Path, PathBuf};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses.
    #[error(
        "cannot {action} {}; name another folder with --cache-dir, free room with `planish cache \
         clear`, or pass --cache off",
        .path.display()
    )]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The disk has too little room.
    #[error(
        "{}: expected room for {needed} bytes of frozen layers' activations, found {free}; halve \
         them with --cache-dtype bf16, name another folder with --cache-dir, free room with \
         `planish cache clear`, or pass --cache off",
        .folder.display()
    )]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// Bytes that are to be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Too much for the memory allowed.
    #[error(
        "--cache ram: expected at most {allowed} bytes of frozen layers' activations (--cache-ram), \
         found {needed}; allow more, halve them with --cache-dtype bf16, or pass --cache disk or off"
    )]
    NoMemory {
        /// Bytes that they take.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// There is no place that is the user's own.
    #[error(
        "--cache disk: expected the user's cache folder ($XDG_CACHE_HOME or a home folder), found \
         none; pass --cache-dir"
    )]
    NoFolder,
    /// Something else stands where the folder should.
    #[error("--cache-dir {}: expected a folder, found a file; name another place", .path.display())]
    NotAFolder {
        /// What stands there.
        path: PathBuf,
    },
    /// A file is not what was written under its name.
    #[error(
        "{}, {place}: expected {expected}, found {found}; run again, and the activations are \
         computed anew, or pass --cache off",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part of it.
        place: String,
        /// What it should have there.
        expected: String,
        /// What it has.
        found: String,
    },
    /// Inputs that nothing tells from others of the same shape.
    #[error("--cache disk: expected inputs with a digest, found some without; pass --cache ram")]
    Unidentified,
    /// The activations are not of the shape that was forecast.
    #[error("frozen layers: expected {expected} bytes an image, found {found}; report this")]
    Shape {
        /// Bytes of a row by the configuration.
        expected: usize,
        /// Bytes of a row as computed.
        found: usize,
    },
    /// What a file is named by cannot be written as JSON.
    #[error("cannot fingerprint the inputs of the frozen layers: {0}; report this")]
    Fingerprint(#[from] serde_json::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// A file that somebody took away as soon as it was written.
    pub(crate) fn gone(folder: &Path) -> Error {
        Self::io(folder, "find the file just written in")(std::io::ErrorKind::NotFound.into())
    }

    /// For `map_err` on an operation of the system.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }
}

/// Result of reading or writing kept activations.
pub type Result<T> = std::result::Result<T, Error>;
