//! Reasons why a file is not replaced, or a patch not applied. The file is unchanged in all cases.

use std::path::PathBuf;

/// The reason, and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Another process holds the lock.
    #[error("{path}: another planish process is changing this checkpoint; wait until it finishes")]
    Locked {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The checkpoint is write-protected.
    #[error(
        "{path}: the checkpoint is write-protected; remove the protection (`chmod u+w`), or choose \
         another `out`"
    )]
    Protected {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A file of the Hugging Face cache.
    #[error(
        "{path}: expected a file of your own, found one in the Hugging Face cache, which other \
         programs use and which is named by its contents; write the result to `out`"
    )]
    Cached {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The checkpoint was read with an adapter.
    #[error(
        "{path}: the checkpoint was read with the adapter {adapter}; writing in place would merge it \
         into its base, which other adapters may need: choose `out` for a merged checkpoint"
    )]
    Adapter {
        /// The checkpoint.
        path: PathBuf,
        /// The adapter's folder.
        adapter: PathBuf,
    },
    /// Not enough disk space.
    #[error(
        "{folder}: the disk has {} MiB free, and {} MiB are needed to replace the checkpoint \
         safely; free some space, or choose another `out`", .free >> 20, (.needed >> 20) + 1
    )]
    NoSpace {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// There is no undo file.
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
    /// An undo file for another state of the checkpoint.
    #[error(
        "{path}: the undo file {undo} belongs to another state of this file, which was changed since; \
         move the undo file away, or restore the matching checkpoint"
    )]
    StaleUndo {
        /// The checkpoint.
        path: PathBuf,
        /// Its undo file.
        undo: PathBuf,
    },
    /// An undo file that cannot be read.
    #[error(
        "{path}: its undo file cannot be read ({reason}); the checkpoint itself is intact: restore \
         the undo file from a copy, or move it away, after which undo is not possible"
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
        /// What was found.
        found: String,
    },
    /// The configurations of two checkpoints differ.
    #[error(
        "{a} and {b} differ, as after a change of classes; a patch has tensors only and would \
         combine the old configuration with the new weights; distribute the whole checkpoint"
    )]
    OtherConfiguration {
        /// Configuration of the source file.
        a: String,
        /// Configuration of the target file.
        b: String,
    },
    /// A patch for another file.
    #[error(
        "{path}: the patch is for a file with SHA-256 {}, found {found}; use the \
         checkpoint that the patch was made from", .expected.join(" or ")
    )]
    Parent {
        /// The file.
        path: PathBuf,
        /// Digests that the patch accepts.
        expected: Vec<String>,
        /// The file's digest.
        found: String,
    },
    /// The result of a patch has the wrong digest.
    #[error(
        "{path}: the patch should give a file with SHA-256 {expected}, but gives {found}; the patch \
         is damaged: download or create it again"
    )]
    Patched {
        /// The file that was patched.
        path: PathBuf,
        /// The expected digest.
        expected: String,
        /// The digest of the result.
        found: String,
    },
}
