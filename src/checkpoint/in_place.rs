//! Replaces a checkpoint's file in one step and keeps an undo file.
//!
//! The order is: write and flush the new file next to the old one; write the undo file; rename the
//! new file over the old one. The undo file accepts every state of the checkpoint since its first
//! in-place tuning. Restoring its tensors in any of these states gives the first state. So the
//! checkpoint is intact and `undo` works whenever the process is killed.

use super::hub::is_cached;
use super::lock::Lock;
use super::on_disk::OnDisk;
use super::output::{beside, create_anew, move_over, replace_by_way_of, swap_in, sync_folder};
use super::patch::Patch;
use super::{Checkpoint, Entry, Error, Provenance, Refused, SavedCheckpoint, weights_file};
use crate::models::Weights;
use crate::temp_file::TempFile;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Extra disk space required beyond the files themselves, bytes: headers and file system overhead.
const SLACK: u64 = 1 << 20;

/// An exclusive lock to replace a file, held until dropped.
#[derive(Debug)]
pub struct InPlace {
    real: PathBuf,
    digest: String,
    _lock: Lock,
}

/// The undo file of a checkpoint's real file.
fn undo_path(real: &Path) -> PathBuf {
    beside(real, "", ".planish-undo.safetensors")
}

fn real_path(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(Error::io(path, "follow to its file"))
}

/// The real file of a checkpoint that may be replaced.
fn own_path(path: &Path) -> Result<PathBuf, Error> {
    let real = real_path(path)?;
    match is_cached(&real) {
        true => Err(Refused::Cached { path: path.into() }.into()),
        false => Ok(real),
    }
}

impl InPlace {
    /// The undo file of earlier tunings, if it belongs to this state of the checkpoint.
    fn earlier_undo(&self) -> Result<Option<Patch>, Error> {
        let path = undo_path(&self.real);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |error: Error| match error {
            error @ Error::Io { .. } => error,
            error => {
                let (path, reason) = (self.real.clone(), error.to_string());
                Refused::DamagedUndo { path, reason }.into()
            }
        };
        let undo = Patch::read(&path).map_err(damaged)?;
        if undo.to == self.digest {
            // Left by a tuning that did not finish, or that was reverted by hand.
            return Ok(None);
        }
        match undo.from.contains(&self.digest) {
            true => Ok(Some(undo)),
            false => Err(Refused::StaleUndo { path: self.real.clone(), undo: path }.into()),
        }
    }

    /// Checks, before long work, that the disk has room for the new file and for an undo file with
    /// `replaced` bytes of tensors.
    ///
    /// # Errors
    /// [`Refused::NoSpace`], with the bytes needed and free.
    pub fn check_space(&self, replaced: u64) -> Result<(), Error> {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |about| about.len());
        let needed = size(&self.real)
            .saturating_add(size(&undo_path(&self.real)))
            .saturating_add(replaced)
            .saturating_add(SLACK);
        let folder = self.real.parent().unwrap_or(Path::new("."));
        let free = fs4::available_space(folder).map_err(Error::io(folder, "ask for free space"))?;
        match free >= needed {
            true => Ok(()),
            false => Err(Refused::NoSpace { folder: folder.into(), needed, free }.into()),
        }
    }

    /// Replaces the file, whose bytes must still be `old`, by `change`; returns the undo file's
    /// path.
    fn commit(&self, old: &OnDisk, change: &Patch) -> Result<PathBuf, Error> {
        let undo = self.undo_of(old, change)?;
        self.check_space(undo.size() as u64)?;
        let undo_file = undo_path(&self.real);
        self.write_beside(old, change, |new| {
            let way = beside(&self.real, ".", ".planish-undo-new");
            replace_by_way_of(&way, &undo_file, |file| {
                self.keep_access(file.get_ref(), &way)?;
                undo.fill(&undo_file, file)
            })?;
            swap_in(new, &self.real)
        })?;
        Ok(undo_file)
    }

    /// The patch that reverts `change` and every tuning before it.
    fn undo_of(&self, old: &OnDisk, change: &Patch) -> Result<Patch, Error> {
        let mut undo = self.earlier_undo()?.unwrap_or_else(|| Patch {
            from: vec![self.digest.clone()],
            to: self.digest.clone(),
            header: old.header_bytes.clone(),
            tensors: Default::default(),
        });
        if !undo.from.contains(&change.to) {
            undo.from.push(change.to.clone());
        }
        let new = change.target(&self.real)?;
        for entry in &old.header.entries {
            let like = |e: &&Entry| e.name == entry.name && e.dtype == entry.dtype;
            let stays = new.entries.iter().find(like).is_some_and(|e| e.shape == entry.shape)
                && !change.tensors.contains_key(&entry.name);
            if !stays && !undo.tensors.contains_key(&entry.name) {
                undo.tensors.insert(entry.name.clone(), old.bytes_of(entry)?);
            }
        }
        Ok(undo)
    }

    /// Gives a new file the checkpoint's permissions and owner.
    fn keep_access(&self, file: &File, path: &Path) -> Result<(), Error> {
        let about = std::fs::metadata(&self.real).map_err(Error::io(&self.real, "look up"))?;
        let kept = file.set_permissions(about.permissions());
        kept.map_err(Error::io(path, "set the permissions of"))?;
        keep_owner(&about, file);
        Ok(())
    }

    /// Writes the changed file next to the old one, with its permissions, flushes it and calls
    /// `then`, which moves it into place.
    fn write_beside(
        &self,
        old: &OnDisk,
        change: &Patch,
        then: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // The lock makes this name exclusive, so a file left by a killed process can be
        // overwritten.
        let new = beside(&self.real, ".", ".planish-new");
        let _temp_file = TempFile::new(&new);
        let written = (|| {
            let mut file = BufWriter::new(create_anew(&new)?);
            self.keep_access(file.get_ref(), &new)?;
            change.apply(&self.real, old, &mut |bytes| {
                file.write_all(bytes).map_err(Error::io(&new, "write"))
            })?;
            file.flush().map_err(Error::io(&new, "write"))?;
            file.get_ref().sync_all().map_err(Error::io(&new, "flush to the disk"))?;
            then(&new)
        })();
        if written.is_err() {
            // Report the first error; a leftover file is harmless.
            let _ = std::fs::remove_file(&new);
        }
        written
    }
}

/// Gives the new file the old one's owner and group where the system permits it (for root).
/// Otherwise it belongs to the current user, as with any editor.
#[cfg(unix)]
fn keep_owner(old: &std::fs::Metadata, new: &File) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let _ = fchown(new, Some(old.uid()), Some(old.gid()));
}

#[cfg(not(unix))]
fn keep_owner(_: &std::fs::Metadata, _: &File) {}

impl Checkpoint {
    /// Locks this checkpoint's file for a later [`Checkpoint::save_over`].
    ///
    /// # Errors
    /// [`Refused::Adapter`] if it was read with an adapter; [`Refused::Locked`] if another process is tuning it; [`Error::Changed`] if it changed since
    /// it was read; [`Refused::Protected`]; [`Refused::StaleUndo`] if there is an undo file of
    /// another state; [`Refused::Cached`] for a file of the Hugging Face cache;
    /// [`Error::OnlySafetensors`]; [`Error::Io`] if its folder is not writable.
    pub fn hold(&self) -> Result<InPlace, Error> {
        if let Some(adapted) = &self.adapted {
            let (path, adapter) = (self.path.clone(), adapted.adapter.path.clone());
            return Err(Refused::Adapter { path, adapter }.into());
        }
        let real = own_path(&self.path)?;
        if let Some(found) = self.foreign_format() {
            let (path, found) = (self.path.clone(), found.name().into());
            return Err(Error::OnlySafetensors { path, found });
        }
        let held = InPlace { _lock: Lock::take(&real)?, real, digest: self.file_digest.clone() };
        let about = std::fs::metadata(&held.real).map_err(Error::io(&held.real, "look up"))?;
        if about.permissions().readonly() {
            return Err(Refused::Protected { path: held.real }.into());
        }
        self.unchanged(&self.reopen()?.digest()?)?;
        held.earlier_undo()?;
        Ok(held)
    }

    /// Replaces this checkpoint's file by one with `weights`. Names, types, order, permissions and
    /// untouched tensors are kept; `planish.provenance` gains an entry. The replaced tensors go
    /// into `CKPT.planish-undo.safetensors`.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file on disk is no longer the one that was read;
    /// [`Refused::NoSpace`], [`Error::Overflow`], [`Error::Io`]. On an error the old file is
    /// unchanged.
    pub fn save_over(
        &self,
        held: &InPlace,
        weights: &Weights,
        provenance: &Provenance,
    ) -> Result<SavedCheckpoint, Error> {
        let old = self.reopen()?;
        let next = self.next(&old, weights, self.metadata_after(provenance)?)?;
        let undo = held.commit(&old, &next.patch).map_err(|error| self.or_changed(error))?;
        Ok(SavedCheckpoint { path: self.path.clone(), rounding: next.rounding, undo: Some(undo) })
    }
}

impl Patch {
    /// Applies the patch in place to a `.safetensors` file, or to the one in a folder, and returns
    /// the undo file's path.
    ///
    /// # Errors
    /// Those of [`Patch::write_applied`] and of [`Checkpoint::hold`].
    pub fn apply_in_place(&self, path: &Path) -> Result<PathBuf, Error> {
        let path = weights_file(path)?;
        // Lock before reading, so that the file read is the one replaced.
        let real = own_path(&path)?;
        let lock = Lock::take(&real)?;
        let old = OnDisk::open(&real)?;
        let held = InPlace { real, digest: old.digest()?, _lock: lock };
        held.earlier_undo()?;
        held.commit(&old, self)
    }
}

/// The result of `undo`.
#[derive(Clone, Debug, PartialEq)]
pub struct Undone {
    /// The real file.
    pub path: PathBuf,
    /// Restored tensors, sorted; empty if the file was already in its first state.
    pub tensors: Vec<String>,
    /// SHA-256 of the file now, in hex.
    pub digest: String,
}

/// Restores byte for byte what in-place tuning replaced, and removes the undo file. The file is
/// then as before the first tuning.
///
/// # Errors
/// [`Refused::NoUndo`] if there is no undo file; [`Refused::StaleUndo`] if it belongs to another
/// state of the file; [`Refused::Locked`], [`Refused::NoSpace`], [`Error::Io`].
pub fn undo(path: &Path) -> Result<Undone, Error> {
    let path = weights_file(path)?;
    let real = real_path(&path)?;
    let lock = Lock::take(&real)?;
    let undo_file = undo_path(&real);
    if !undo_file.exists() {
        return Err(Refused::NoUndo { path, undo: undo_file }.into());
    }
    let old = OnDisk::open(&real)?;
    let held = InPlace { real, digest: old.digest()?, _lock: lock };
    let earlier = held.earlier_undo()?;
    let mut tensors = Vec::new();
    let mut digest = held.digest.clone();
    if let Some(undo) = earlier {
        held.check_space(0)?;
        held.write_beside(&old, &undo, |new| move_over(new, &held.real))?;
        tensors = undo.names().into_iter().map(str::to_string).collect();
        digest = undo.to;
    }
    std::fs::remove_file(&undo_file).map_err(Error::io(&undo_file, "remove"))?;
    sync_folder(&held.real)?;
    Ok(Undone { path: held.real.clone(), tensors, digest })
}
