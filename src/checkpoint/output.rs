//! Output paths, and atomic writes: a reader never sees a partial file.

use super::Error;
use super::locate::{Format, format};
use crate::temp_file::{self, TempFile};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether a path denotes a single file, not a folder.
pub(super) fn is_file_name(out: &Path) -> bool {
    out.extension().is_some_and(|e| e == "safetensors")
}

/// The weights file that a save to `out` writes.
pub(super) fn target(out: &Path) -> PathBuf {
    if is_file_name(out) { out.to_path_buf() } else { out.join("model.safetensors") }
}

/// A file that a save to `out` would replace: weights, or the configuration of another checkpoint.
pub fn standing(out: &Path) -> Option<PathBuf> {
    let folder = ["config.json", "preprocessor_config.json"].map(|name| out.join(name));
    let all = std::iter::once(target(out)).chain(folder.into_iter().filter(|_| !is_file_name(out)));
    all.into_iter().find(|path| path.exists())
}

fn refuse(out: &Path, reason: impl Into<String>) -> Error {
    Error::Output { path: out.to_path_buf(), reason: reason.into() }
}

/// Checks, before long work, that a checkpoint can be saved to `out`: a `.safetensors` file,
/// otherwise a folder. Leaves no files.
///
/// # Errors
/// [`Error::Output`] if there is a folder in place of the file or a file in place of the folder, or
/// if the nearest existing parent folder is not writable.
pub fn check_writable(out: &Path) -> Result<(), Error> {
    if out.as_os_str().is_empty() {
        return Err(refuse(out, "the path is empty"));
    }
    if let Some(found) = format(out).filter(|&found| found != Format::Safetensors) {
        let found = found.name();
        return Err(refuse(
            out,
            format!("the name is that of {found}; planish writes safetensors"),
        ));
    }
    if is_file_name(out) && out.is_dir() {
        return Err(refuse(out, "expected a file, found a folder"));
    }
    if !is_file_name(out) && out.exists() && !out.is_dir() {
        let reason = "expected a folder, found a file; a file's name must end in .safetensors";
        return Err(refuse(out, reason));
    }
    let above = nearest_folder(out);
    if !above.is_dir() {
        return Err(refuse(out, format!("{} is not a folder", above.display())));
    }
    let probe = temporary(&above.join("planish"));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .map_err(|e| refuse(out, format!("{} is not writable ({e})", above.display())))
}

/// Checks, before long work, that the disk has room for a checkpoint of so many bytes at `out`.
///
/// # Errors
/// [`Error::Output`], with the bytes needed and free.
pub fn check_space(out: &Path, bytes: u64) -> Result<(), Error> {
    let above = nearest_folder(out);
    // Some file systems do not report their free space.
    let free = fs4::available_space(above).unwrap_or(u64::MAX);
    match free >= bytes {
        true => Ok(()),
        false => Err(refuse(
            out,
            format!(
                "the disk of {} has {} MiB free, and {} MiB are needed; free some space, or choose another output",
                above.display(),
                free >> 20,
                (bytes >> 20) + 1
            ),
        )),
    }
}

/// The nearest existing parent of a checkpoint's folder, or the folder itself.
fn nearest_folder(out: &Path) -> &Path {
    let start = if is_file_name(out) { out.parent() } else { Some(out) };
    let here = Path::new(".");
    let above = start.into_iter().flat_map(Path::ancestors).find(|p| p.exists()).unwrap_or(here);
    if above.as_os_str().is_empty() { here } else { above }
}

/// A unique name in the same folder.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    beside(path, ".", &format!(".{pid}.{count}.tmp"))
}

/// Writes a temporary file in the same folder, flushes it to the disk and renames it to `path`.
///
/// # Errors
/// Those of `fill`, and [`Error::Io`]. The temporary file is removed in either case.
pub(super) fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), Error>,
) -> Result<(), Error> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
    }
    replace_by_way_of(&temporary(path), path, fill)
}

/// [`replace`] with a temporary name that the caller owns. A file left there by a killed process is
/// overwritten.
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
        // Report the first error; a leftover file is harmless.
        let _ = fs::remove_file(new);
    }
    written
}

/// Creates a new file of this name. An existing file is removed, not opened: it may be read-only,
/// or a link to another place.
pub(super) fn create_anew(path: &Path) -> Result<File, Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(path, "remove what an earlier run left")(e));
        }
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).open(path).map_err(Error::io(path, "create"))
}

/// Renames a flushed file to its final name, and flushes the name.
pub(super) fn move_over(new: &Path, path: &Path) -> Result<(), Error> {
    temp_file::rename(new, path).map_err(Error::io(path, "move the finished file to"))?;
    sync_folder(path)
}

/// The same for the new file of a checkpoint that `undo` can restore.
pub(super) fn swap_in(new: &Path, path: &Path) -> Result<(), Error> {
    temp_file::replace(new, path).map_err(Error::io(path, "move the finished file to"))?;
    sync_folder(path)
}

/// Flushes a file's name to the disk. Before that, a power loss may restore the old file.
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

/// A name in the same folder: `path`'s name with a prefix and a suffix.
pub(super) fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = OsString::from(before);
    name.push(path.file_name().unwrap_or_default());
    name.push(after);
    path.with_file_name(name)
}

/// [`replace`] with the given contents.
pub(super) fn replace_with(path: &Path, contents: &[u8]) -> Result<(), Error> {
    replace(path, |file| file.write_all(contents).map_err(Error::io(path, "write")))
}
