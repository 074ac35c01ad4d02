//! One writer at a time: a lock beside the checkpoint that is to be replaced.

use super::output::beside;
use super::{Error, Refused};
use crate::temp_file::TempFile;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// Held as long as this process may replace the checkpoint; gone when dropped, and when the process
/// dies, however it dies; its file, too, unless it is killed outright.
#[derive(Debug)]
pub(super) struct Lock {
    temp_file: TempFile,
    /// Keeps the system's lock.
    _file: File,
}

impl Lock {
    /// Takes the lock of a checkpoint's real file, without waiting.
    ///
    /// The checkpoint itself cannot carry it: it is replaced by another file of its name.
    ///
    /// # Errors
    /// [`Refused::Locked`] if another process holds it; [`Error::Io`].
    pub fn take(checkpoint: &Path) -> Result<Lock, Error> {
        let path = beside(checkpoint, ".", ".planish-lock");
        loop {
            let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = open.map_err(Error::io(&path, "lock the checkpoint (where its folder takes no new file, write elsewhere with --out); create"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Refused::Locked { path: checkpoint.into() }.into());
                }
                Err(TryLockError::Error(e)) => {
                    return Err(Error::io(&path, "lock the checkpoint")(e));
                }
            }
            // Between our opening and our locking, the holder may have removed the name: then ours
            // is the lock of a file nobody else will find, and the next attempt takes the new one.
            if is_still_at(&file, &path) {
                return Ok(Lock { temp_file: TempFile::new(&path), _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held: nobody else can have taken a lock under this name.
        self.temp_file.remove();
    }
}

/// Whether the path still leads to this very file.
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
    fn a_second_writer_is_told_and_the_lock_leaves_nothing_behind() {
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
    fn no_two_threads_ever_hold_it_together() {
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
