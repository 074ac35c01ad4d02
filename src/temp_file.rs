//! Files that matter when a signal ends the process: unfinished output files and locks, which are removed, and
//! checkpoints that have been replaced.
//!
//! If the process is killed they stay behind, which is harmless: a lock file does not block anyone
//! once its owner is dead, and the next run overwrites unfinished files.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static TEMP_FILES: Mutex<Files> =
    Mutex::new(Files { unfinished: Vec::new(), replaced: Vec::new() });

struct Files {
    /// To be removed.
    unfinished: Vec<PathBuf>,
    /// Checkpoints that this process has replaced, each with an undo file.
    replaced: Vec<PathBuf>,
}

fn temp_files() -> MutexGuard<'static, Files> {
    // The list stays valid even if a thread panics while it holds the lock.
    TEMP_FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a path in the list until it is dropped.
#[derive(Debug)]
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    /// Registers the file for [`remove_temp_files`].
    pub fn new(path: &Path) -> Self {
        temp_files().unfinished.push(path.into());
        Self(path.into())
    }
}

impl TempFile {
    /// Removes the file, then its path from the list. The list stays locked meanwhile, so
    /// that another thread cannot register the same name.
    pub fn remove(&self) {
        let mut files = temp_files();
        // A leftover file is harmless.
        let _ = std::fs::remove_file(&self.0);
        files.unfinished.retain(|path| *path != self.0);
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let unfinished = &mut temp_files().unfinished;
        if let Some(at) = unfinished.iter().position(|path| *path == self.0) {
            unfinished.swap_remove(at);
        }
    }
}

/// Renames a file. Blocks forever once [`remove_temp_files`] has started.
pub(crate) fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    let _held = temp_files();
    std::fs::rename(from, to)
}

/// The same for a checkpoint that is replaced in place, after its undo file was written.
pub(crate) fn replace(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut files = temp_files();
    std::fs::rename(from, to)?;
    files.replaced.push(to.into());
    Ok(())
}

/// Removes unfinished files and locks, for a process that a signal is about to end. Returns the checkpoints
/// that it has replaced in place.
///
/// Every checkpoint is then either the old one or the complete new one; at most an undo file lies
/// next to it. After this call the process moves no more files into place and releases no locks.
pub fn remove_temp_files() -> Vec<PathBuf> {
    let files = temp_files();
    for path in &files.unfinished {
        // The file may not exist yet, or not any more.
        let _ = std::fs::remove_file(path);
    }
    let replaced = files.replaced.clone();
    // Other threads block on the lock until the process ends.
    std::mem::forget(files);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_files_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let [new, old] = ["new", "old"].map(|name| folder.path().join(name));
        std::fs::write(&new, "new").unwrap();
        std::fs::write(&old, "old").unwrap();
        replace(&new, &old).unwrap();
        assert!(temp_files().replaced.contains(&old) && !new.exists());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "new");
        assert!(replace(&new, &folder.path().join("absent")).is_err());
        assert!(!temp_files().replaced.contains(&folder.path().join("absent")));
    }
}
