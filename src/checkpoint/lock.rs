//! A lock file next to the checkpoint, so that only one process replaces it at a time.

use super::output::beside;
use super::{Error, Refused};
use crate::temp_file::TempFile;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// Held while this process may replace the checkpoint. Released when dropped or when the process
/// ends. The lock file is removed, too, unless the process is killed.
#[derive(Debug)]
pub(super) struct Lock {
    temp_file: TempFile,
    /// Holds the system's file lock.
    _file: File,
}

impl Lock {
    /// Takes the lock of a checkpoint's real file, without waiting.
    ///
    /// The lock is a separate file because the checkpoint is replaced by another file of the same
    /// name.
    ///
    /// # Errors
    /// [`Refused::Locked`] if another process holds it; [`Error::Io`].
    pub fn take(checkpoint: &Path) -> Result<Lock, Error> {
        let path = beside(checkpoint, ".", ".planish-lock");
        loop {
            let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = open.map_err(Error::io(
                &path,
                "lock the checkpoint (if its folder is not writable, choose another `out`); create",
            ))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Refused::Locked { path: checkpoint.into() }.into());
                }
                Err(TryLockError::Error(e)) => {
                    return Err(Error::io(&path, "lock the checkpoint")(e));
                }
            }
            // The holder may have removed the file between our open and our lock. Then our lock is
            // on a deleted file, and the next attempt opens the new one.
            if is_still_at(&file, &path) {
                return Ok(Lock { temp_file: TempFile::new(&path), _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Remove the file while the lock is held, so no other process has locked this name.
        self.temp_file.remove();
    }
}

/// Whether the path still refers to this file.
fn is_still_at(file: &File, path: &Path) -> bool {
    let own = file.try_clone().and_then(same_file::Handle::from_file);
    match (own, same_file::Handle::from_path(path)) {
        (Ok(own), Ok(there)) => own == there,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_second_writer_is_refused_and_the_lock_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("a.safetensors");
        let first = Lock::take(&checkpoint).unwrap();
        let other = folder.path().join("b.safetensors");
        let refused = Lock::take(&checkpoint);
        assert!(matches!(refused, Err(Error::Refused(Refused::Locked { .. }))), "{refused:?}");
        drop((first, Lock::take(&other).unwrap()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        Lock::take(&checkpoint).unwrap();
    }

    #[test]
    fn only_one_thread_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("a.safetensors");
        let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Ok(lock) = Lock::take(&checkpoint) {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            taken.fetch_add(1, Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
    }
}
