//! Files that are to go when the process is interrupted: unfinished ones, and locks.
//!
//! A process that is killed outright leaves them, which does no harm: a lock's file binds nobody
//! once its holder is dead, and the next run writes over the rest.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static LITTER: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn litter() -> MutexGuard<'static, Vec<PathBuf>> {
    // A list of paths is sound whatever thread panicked.
    LITTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a path in the list until dropped.
#[derive(Debug)]
pub(crate) struct Litter(PathBuf);

impl Litter {
    /// From now on, [`clear_away`] removes the file.
    pub fn new(path: &Path) -> Self {
        litter().push(path.into());
        Self(path.into())
    }
}

impl Litter {
    /// Removes the file, and its path from the list, before anybody can take the name anew.
    pub fn remove(&self) {
        let mut paths = litter();
        // One left behind would be untidy and nothing worse.
        let _ = std::fs::remove_file(&self.0);
        paths.retain(|path| *path != self.0);
    }
}

impl Drop for Litter {
    fn drop(&mut self) {
        let mut paths = litter();
        if let Some(at) = paths.iter().position(|path| *path == self.0) {
            paths.swap_remove(at);
        }
    }
}

/// Renames a file; never once [`clear_away`] has begun.
pub(crate) fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    let _held = litter();
    std::fs::rename(from, to)
}

/// Removes unfinished files and locks, for a process that is about to end at a signal: every
/// checkpoint is then the old one or the new one, whole, with nothing beside it but an undo file.
/// From here on no file of this process reaches its place, and no lock is freed.
pub fn clear_away() {
    let paths = litter();
    for path in paths.iter() {
        // One that is not there yet, or not any more, is as it should be.
        let _ = std::fs::remove_file(path);
    }
    // Other threads wait for it until the process is gone.
    std::mem::forget(paths);
}
