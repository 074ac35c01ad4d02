//! Files to remove when a signal ends the process: unfinished output files, and locks.
//!
//! If the process is killed they stay behind, which is harmless: a lock file does not block anyone
//! once its owner is dead, and the next run overwrites unfinished files.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static TEMP_FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn temp_files() -> MutexGuard<'static, Vec<PathBuf>> {
    // The list stays valid even if a thread panics while it holds the lock.
    TEMP_FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a path in the list until it is dropped.
#[derive(Debug)]
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    /// Registers the file for [`remove_temp_files`].
    pub fn new(path: &Path) -> Self {
        temp_files().push(path.into());
        Self(path.into())
    }
}

impl TempFile {
    /// Removes the file, then its path from the list. The list stays locked meanwhile, so
    /// that another thread cannot register the same name.
    pub fn remove(&self) {
        let mut paths = temp_files();
        // A leftover file is harmless.
        let _ = std::fs::remove_file(&self.0);
        paths.retain(|path| *path != self.0);
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let mut paths = temp_files();
        if let Some(at) = paths.iter().position(|path| *path == self.0) {
            paths.swap_remove(at);
        }
    }
}

/// Renames a file. Blocks forever once [`remove_temp_files`] has started.
pub(crate) fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    let _held = temp_files();
    std::fs::rename(from, to)
}

/// Removes unfinished files and locks, for a process that a signal is about to end.
///
/// Every checkpoint is then either the old one or the complete new one; at most an undo file lies
/// next to it. After this call the process moves no more files into place and releases no locks.
pub fn remove_temp_files() {
    let paths = temp_files();
    for path in paths.iter() {
        // The file may not exist yet, or not any more.
        let _ = std::fs::remove_file(path);
    }
    // Other threads block on the lock until the process ends.
    std::mem::forget(paths);
}
