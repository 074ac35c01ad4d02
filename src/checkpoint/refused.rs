//! Why a file is not replaced, or a patch not applied; in every case it stands as it was.

use std::path::PathBuf;

/// The reason, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Another process holds the lock.
    #[error("{path}: another planish is changing this checkpoint; wait for it to end")]
    Locked {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The checkpoint is write-protected.
    #[error(
        "{path}: the checkpoint is write-protected; lift that (`chmod u+w`), or write elsewhere with \
         --out"
    )]
    Protected {
        /// The checkpoint.
        path: PathBuf,
    },
    /// Too little room.
    #[error(
        "{folder}: the disk has {} MiB free, and {} MiB are needed to replace the checkpoint \
         safely; free some space, or write elsewhere with --out", .free >> 20, (.needed >> 20) + 1
    )]
    NoSpace {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// Nothing to go back to.
    #[error(
        "{path}: expected the undo file {undo}, found none: the checkpoint was not tuned in place, \
         or the undo file was moved"
    )]
    NoUndo {
        /// The checkpoint.
        path: PathBuf,
        /// Where the undo file should be.
        undo: PathBuf,
    },
    /// An undo file that does not lead back from here.
    #[error(
        "{path}: the undo file {undo} belongs to another state of this file, which something else \
         has changed since; move the undo file away, or put the checkpoint back that it belongs to"
    )]
    StaleUndo {
        /// The checkpoint.
        path: PathBuf,
        /// Its undo file.
        undo: PathBuf,
    },
    /// An undo file that cannot be read.
    #[error(
        "{path}: its undo file cannot be read ({reason}); the checkpoint itself is whole: bring the \
         undo file back from a copy, or move it away and give up the way back"
    )]
    DamagedUndo {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with the undo file.
        reason: String,
    },
    /// A file that is not a patch.
    #[error("{path}: expected a patch written by `planish patch diff`, found {found}")]
    NotAPatch {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// Checkpoints whose configurations differ.
    #[error(
        "{a} and {b} differ, as after a change of classes: a patch carries tensors only, and would \
         leave the old configuration beside the new weights; ship the whole checkpoint"
    )]
    OtherConfiguration {
        /// Configuration of the file that the patch starts from.
        a: String,
        /// Configuration of the file that it leads to.
        b: String,
    },
    /// A patch for another file.
    #[error(
        "{path}: the patch is for a file of SHA-256 {}, and this one is {found}; take the \
         checkpoint that the patch was made from", .expected.join(" or ")
    )]
    Parent {
        /// The file.
        path: PathBuf,
        /// Digests that would do.
        expected: Vec<String>,
        /// The file's own.
        found: String,
    },
    /// A patch whose result is not what it promises.
    #[error(
        "{path}: the patch promises a file of SHA-256 {expected}, and makes {found}; the patch is \
         damaged: fetch it or make it again"
    )]
    Patched {
        /// The file that was patched.
        path: PathBuf,
        /// The digest it promises.
        expected: String,
        /// The digest that came out.
        found: String,
    },
}
