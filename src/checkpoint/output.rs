//! Where a checkpoint goes, and writing it so that no reader ever sees half a file.

use super::Error;
use crate::temp_file::{self, TempFile};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether a path means a single file and not a folder.
pub(super) fn is_file_name(out: &Path) -> bool {
    out.extension().is_some_and(|e| e == "safetensors")
}

/// The weights file that a save to `out` writes.
pub(super) fn target(out: &Path) -> PathBuf {
    if is_file_name(out) { out.to_path_buf() } else { out.join("model.safetensors") }
}

/// What stands where a new checkpoint is to go: its weights, or the configuration of another.
pub fn standing(out: &Path) -> Option<PathBuf> {
    let folder = ["config.json", "preprocessor_config.json"].map(|name| out.join(name));
    let all = std::iter::once(target(out)).chain(folder.into_iter().filter(|_| !is_file_name(out)));
    all.into_iter().find(|path| path.exists())
}

fn refuse(out: &Path, reason: impl Into<String>) -> Error {
    Error::Output { path: out.to_path_buf(), reason: reason.into() }
}

/// Makes sure, before long work, that a checkpoint can be saved to `out`: a `.safetensors` file, or
/// else a folder. Leaves nothing behind.
///
/// # Errors
/// [`Error::Output`] if a folder stands where a file should be or the other way round, or if the
/// nearest existing folder above it takes no new file.
pub fn check_writable(out: &Path) -> Result<(), Error> {
    if out.as_os_str().is_empty() {
        return Err(refuse(out, "the path is empty"));
    }
    if is_file_name(out) && out.is_dir() {
        return Err(refuse(out, "a folder stands where a file should"));
    }
    if !is_file_name(out) && out.exists() && !out.is_dir() {
        let reason = "a file stands where a folder should; a file's name ends in .safetensors";
        return Err(refuse(out, reason));
    }
    let start = if is_file_name(out) { out.parent() } else { Some(out) };
    let here = Path::new(".");
    let above = start.into_iter().flat_map(Path::ancestors).find(|p| p.exists()).unwrap_or(here);
    let above = if above.as_os_str().is_empty() { here } else { above };
    if !above.is_dir() {
        return Err(refuse(out, format!("{} is not a folder", above.display())));
    }
    let probe = temporary(&above.join("planish"));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .map_err(|e| refuse(out, format!("{} takes no new file ({e})", above.display())))
}

/// A name beside `path` that no other writer uses.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    beside(path, ".", &format!(".{pid}.{count}.tmp"))
}

/// Writes a file beside its final place, flushes it to the disk and moves it there.
///
/// # Errors
/// Those of `fill`, and [`Error::Io`]; the temporary file is gone in either case.
pub(super) fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), Error>,
) -> Result<(), Error> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
    }
    replace_by_way_of(&temporary(path), path, fill)
}

/// [`replace`] by way of a name that the caller knows to be its own: what a killed process left
/// there is written over.
pub(super) fn replace_by_way_of(
    new: &Path,
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), Error>,
) -> Result<(), Error> {
    let _temp_file = TempFile::new(new);
    let written = (|| {
        let mut file = BufWriter::new(create_anew(new)?);
        fill(&mut file)?;
        file.flush().map_err(Error::io(new, "write"))?;
        file.get_ref().sync_all().map_err(Error::io(new, "flush to the disk"))?;
        move_over(new, path)
    })();
    if written.is_err() {
        // The first error is the one to report; a leftover is merely untidy.
        let _ = fs::remove_file(new);
    }
    written
}

/// A new file of this name. What stands there is removed, not opened: it may be read-only, or a link
/// to somewhere else.
pub(super) fn create_anew(path: &Path) -> Result<File, Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(path, "remove what an earlier run left")(e));
        }
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).open(path).map_err(Error::io(path, "create"))
}

/// Gives a flushed file its final name, and flushes the name.
pub(super) fn move_over(new: &Path, path: &Path) -> Result<(), Error> {
    temp_file::rename(new, path).map_err(Error::io(path, "move the finished file to"))?;
    sync_folder(path)
}

/// Flushes a file's name to the disk: until then a loss of power may bring the old one back.
pub(super) fn sync_folder(path: &Path) -> Result<(), Error> {
    // Only Unix opens folders; elsewhere the system orders renames itself.
    if cfg!(unix) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let flushed = File::open(folder).and_then(|folder| folder.sync_all());
        flushed.map_err(Error::io(folder, "flush to the disk"))?;
    }
    Ok(())
}

/// A name in the same folder: `path`'s with something before and after it.
pub(super) fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = OsString::from(before);
    name.push(path.file_name().unwrap_or_default());
    name.push(after);
    path.with_file_name(name)
}

/// [`replace`] with contents at hand.
pub(super) fn replace_with(path: &Path, contents: &[u8]) -> Result<(), Error> {
    replace(path, |file| file.write_all(contents).map_err(Error::io(path, "write")))
}
