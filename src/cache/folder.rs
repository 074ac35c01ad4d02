//! The folder of cache files.

use super::layout::{About, header_length, read_about};
use super::{Error, FORMAT, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Disk space that is left free.
const SLACK: u64 = 16 << 20;
/// Minimum age of an unlocked unfinished file to count as left by a killed run. A running one locks
/// its file at once.
const ABANDONED: Duration = Duration::from_secs(60);
const ENDING: &str = ".safetensors";
const PART: &str = ".planish-part";

/// `planish` in the user's cache folder: `$XDG_CACHE_HOME` if it is an absolute path, otherwise the
/// system's cache folder in the home folder.
///
/// # Errors
/// [`Error::NoFolder`].
pub fn default_folder() -> Result<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let base = match (absolute("XDG_CACHE_HOME"), cfg!(windows), cfg!(target_os = "macos")) {
        (Some(named), ..) => Some(named),
        (None, true, _) => absolute("LOCALAPPDATA"),
        (None, _, true) => home().map(|home| home.join("Library/Caches")),
        (None, ..) => home().map(|home| home.join(".cache")),
    };
    Ok(base.ok_or(Error::NoFolder)?.join("planish"))
}

/// Bytes available in a folder, which need not exist yet. Leaves no files.
///
/// # Errors
/// [`Error::NotAFolder`]; a folder that is not writable.
pub fn room(folder: &Path) -> Result<u64> {
    let above = folder.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    if !above.is_dir() {
        return Err(Error::NotAFolder { path: above.into() });
    }
    tempfile::tempfile_in(above).map_err(Error::io(above, "write into"))?;
    let free = fs4::available_space(above).map_err(Error::io(above, "ask for free space in"))?;
    Ok(free.saturating_sub(SLACK))
}

/// Checks that a folder has room.
///
/// # Errors
/// [`Error::NoRoom`], and those of [`room`].
pub(super) fn check_room(folder: &Path, needed: u64) -> Result<()> {
    match room(folder)? {
        free if free < needed => Err(Error::NoRoom { folder: folder.into(), needed, free }),
        _ => Ok(()),
    }
}

/// Path of the file of this key.
pub(super) fn path(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}{ENDING}"))
}

/// Temporary path while it is written; the name is unique.
pub(super) fn part(folder: &Path, key: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    folder.join(format!(".{key}.{pid}.{count}.{:08x}{PART}", now.subsec_nanos()))
}

/// Flushes a file's name to the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    // Only Unix opens folders; elsewhere the system orders renames itself.
    if cfg!(unix) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flushed = File::open(folder).and_then(|folder| folder.sync_all());
        flushed.map_err(Error::io(folder, "flush to the disk"))?;
    }
    Ok(())
}

/// Fills a buffer from this offset on.
#[cfg(unix)]
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills a buffer from this offset on.
#[cfg(windows)]
pub(super) fn read_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        offset += read as u64;
    }
    Ok(())
}

/// A cache file.
#[derive(Debug)]
pub struct CacheFile {
    /// Path.
    pub path: PathBuf,
    /// Size, bytes.
    pub bytes: u64,
    /// Time since it was written or last used.
    pub age: Duration,
    /// Kind of file.
    pub found: CacheFileKind,
}

/// Kind of a cache file.
#[derive(Debug)]
pub enum CacheFileKind {
    /// Activations: description, shape and type.
    Activations(Box<About>, Vec<usize>, String),
    /// Activations of another version of planish that uses other keys. This build cannot find them.
    OtherFormat,
    /// Being written by a running process.
    BeingWritten,
    /// Left unfinished by a killed run.
    Abandoned,
    /// A file with such a name that cannot be read as one.
    Unreadable,
}

/// The cache files in a folder, most recently used first; empty if the folder does not exist. Files
/// with other names are ignored.
///
/// # Errors
/// A folder that cannot be listed.
pub fn list(folder: &Path) -> Result<Vec<CacheFile>> {
    let listed = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) if e.kind() == ErrorKind::NotADirectory => {
            return Err(Error::NotAFolder { path: folder.into() });
        }
        other => other.map_err(Error::io(folder, "list"))?,
    };
    let mut entries = Vec::new();
    for item in listed {
        let item = item.map_err(Error::io(folder, "list"))?;
        // Another run may remove it meanwhile.
        let Ok(about) = item.metadata() else { continue };
        let name = item.file_name().to_string_lossy().into_owned();
        let Some(kind) = kind(&name).filter(|_| about.is_file()) else { continue };
        let path = item.path();
        let found = match kind {
            Kind::Part if is_locked(&path) => CacheFileKind::BeingWritten,
            Kind::Part => CacheFileKind::Abandoned,
            Kind::Whole => match describe(&path) {
                None => CacheFileKind::Unreadable,
                Some((about, ..)) if about.format != FORMAT => CacheFileKind::OtherFormat,
                Some((about, shape, dtype)) => {
                    CacheFileKind::Activations(Box::new(about), shape, dtype)
                }
            },
        };
        let used = about.modified().ok();
        let age = used.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        entries.push(CacheFile { path, bytes: about.len(), age, found });
    }
    entries.sort_by(|a, b| a.age.cmp(&b.age).then_with(|| a.path.cmp(&b.path)));
    Ok(entries)
}

/// Removes cache files that were unused for at least this time, and files that killed runs left.
/// Files being written are kept. Returns the number of files and of bytes removed.
///
/// # Errors
/// Those of [`list`]; a file that cannot be removed.
pub fn clear(folder: &Path, unused_for: Duration) -> Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in list(folder)? {
        let goes = match entry.found {
            CacheFileKind::BeingWritten => false,
            CacheFileKind::Abandoned => true,
            _ => entry.age >= unused_for,
        };
        if goes {
            fs::remove_file(&entry.path).map_err(Error::io(&entry.path, "remove"))?;
            files += 1;
            bytes += entry.bytes;
        }
    }
    Ok((files, bytes))
}

/// Removes files that killed runs left. A failure is harmless and ignored.
pub(super) fn sweep(folder: &Path) {
    let abandoned =
        |e: &CacheFile| matches!(e.found, CacheFileKind::Abandoned) && e.age >= ABANDONED;
    for entry in list(folder).unwrap_or_default().iter().filter(|e| abandoned(e)) {
        let _ = fs::remove_file(&entry.path);
    }
}

enum Kind {
    Whole,
    Part,
}

/// Kind of cache file by its name.
fn kind(name: &str) -> Option<Kind> {
    let is_key = |key: &str| key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(key) = name.strip_suffix(ENDING) {
        return is_key(key).then_some(Kind::Whole);
    }
    let (key, _) = name.strip_suffix(PART)?.strip_prefix('.')?.split_once('.')?;
    is_key(key).then_some(Kind::Part)
}

/// Whether a run holds the file; true if this is unknown.
fn is_locked(path: &Path) -> bool {
    let taken = File::open(path).map(|file| file.try_lock_shared());
    !matches!(taken, Ok(Ok(())))
}

fn describe(path: &Path) -> Option<(About, Vec<usize>, String)> {
    let file = File::open(path).ok()?;
    let mut first = [0; 8];
    read_at(&file, &mut first, 0).ok()?;
    let mut json = vec![0; header_length(first)?];
    read_at(&file, &mut json, 8).ok()?;
    read_about(&json)
}
