//! Output files, written atomically.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An error of writing an output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A parent of the file is not a folder.
    #[error(
        "cannot write {}: {} is not a folder; choose another path", .path.display(), .found.display()
    )]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// The parent.
        found: PathBuf,
    },
    /// The path is a folder.
    #[error("cannot write {}: it is a folder, expected a file name", .path.display())]
    IsFolder {
        /// The path.
        path: PathBuf,
    },
    /// The path is `-`, which other programs use for standard output.
    #[error("cannot write `-`: expected a file name; use /dev/stdout for standard output")]
    Dash,
    /// The path is a file that the run reads.
    #[error("cannot write {}: it is an input file; choose another path", .path.display())]
    Input {
        /// The path.
        path: PathBuf,
    },
    /// The path is given for two outputs.
    #[error("two outputs have the path {}; choose another for one of them", .path.display())]
    Twice {
        /// The path.
        path: PathBuf,
    },
    /// The system reports an error.
    #[error("cannot write {}; choose a path that you can write to", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The report cannot be written as JSON.
    #[error("cannot write {} as JSON", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The error.
        source: serde_json::Error,
    },
}

/// Rejects outputs that would overwrite an input: a file of the checkpoint or one of `others`. Also
/// rejects two outputs with the same path.
///
/// # Errors
/// [`Error::Input`], [`Error::Twice`].
pub fn spare(outputs: &[Option<&Path>], checkpoint: &Path, others: &[&Path]) -> Result<(), Error> {
    let beside = ["config.json", "preprocessor_config.json"].map(|n| checkpoint.with_file_name(n));
    let inputs =
        others.iter().copied().chain([checkpoint]).chain(beside.iter().map(PathBuf::as_path));
    let inputs: Vec<PathBuf> = inputs.filter_map(|path| path.canonicalize().ok()).collect();
    for (i, path) in outputs.iter().flatten().enumerate() {
        if outputs.iter().flatten().take(i).any(|other| other == path) && !is_device(path) {
            return Err(Error::Twice { path: path.to_path_buf() });
        }
        if path.canonicalize().is_ok_and(|real| inputs.contains(&real)) {
            return Err(Error::Input { path: path.to_path_buf() });
        }
    }
    Ok(())
}

/// Checks that `path` can be written, so that a long run does not fail at its end. An existing file
/// is not changed. Missing folders are created later, by [`write()`].
///
/// # Errors
/// `path` is a folder, one of its parents is not a folder, or no file can be created in the nearest
/// existing parent.
pub fn check(path: &Path) -> Result<(), Error> {
    if path == Path::new("-") {
        return Err(Error::Dash);
    }
    if path.is_dir() || path.file_name().is_none() {
        return Err(Error::IsFolder { path: path.into() });
    }
    if is_device(path) {
        return Ok(());
    }
    let above = folder(path).ancestors().find(|above| above.exists());
    let above = above.unwrap_or(Path::new("."));
    if !above.is_dir() {
        return Err(Error::NoFolder { path: path.into(), found: above.into() });
    }
    let name = path.file_name().unwrap_or_default();
    let trial = sibling(&above.join(name));
    let refused = |source| Error::Refused { path: path.into(), source };
    File::create(&trial).map_err(refused)?;
    fs::remove_file(&trial).map_err(refused)
}

/// Writes `report` as indented JSON with a final line break. Non-finite numbers become null.
///
/// # Errors
/// Those of [`write()`], and of the conversion to JSON.
pub fn write_json(path: &Path, report: &impl serde::Serialize) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(report);
    let json = json.map_err(|source| Error::Json { path: path.into(), source })?;
    write(path, (json + "\n").as_bytes())
}

/// Writes a file atomically: a temporary file in the same folder is renamed to `path`. If the run is
/// interrupted, `path` is the old file or the new one, never a part. If `path` is a link, its target
/// is replaced. Devices and pipes (`/dev/stdout`) are written to directly.
///
/// # Errors
/// Those of [`check`]; an error of the system.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    check(path)?;
    if is_device(path) {
        let refused = |source| Error::Refused { path: path.into(), source };
        return fs::write(path, bytes).map_err(refused);
    }
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let part = sibling(&target);
    let replace = || {
        fs::create_dir_all(folder(&target))?;
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, &target)
    };
    replace().map_err(|source| {
        // Report the first error. A leftover temporary file is harmless.
        let _ = fs::remove_file(&part);
        Error::Refused { path: path.into(), source }
    })
}

/// Whether the path exists and is neither a file nor a folder.
fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A hidden name in the same folder, because a rename does not cross file systems. It contains the
/// process ID, so that two runs do not share it.
fn sibling(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    folder(path).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entry = |e: io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        fs::read_dir(folder).unwrap().map(entry).collect()
    }

    #[test]
    fn a_report_replaces_the_old_one_without_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        fs::write(&path, "old").unwrap();
        check(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        write_json(&path, &serde_json::json!({"loss": 1.5, "κ": f64::NAN})).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\n  \"loss\": 1.5,\n  \"κ\": null\n}\n");
        assert_eq!(names(folder.path()), ["r.json"]);
    }

    #[test]
    fn unwritable_paths_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let missing = folder.path().join("file/no/r.json");
        assert!(matches!(check(&missing), Err(Error::NoFolder { .. })));
        assert!(matches!(check(folder.path()), Err(Error::IsFolder { .. })));
        assert!(matches!(check(Path::new("..")), Err(Error::IsFolder { .. })));
        let message = check(&missing).unwrap_err().to_string();
        assert!(message.contains("no/r.json") && message.contains("not a folder"), "{message}");
    }

    #[test]
    fn missing_folders_are_created_on_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/r.json");
        check(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        write(&path, b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(names(path.parent().unwrap()), ["r.json"]);
    }

    #[test]
    fn system_errors_are_reported() {
        // A name longer than any file system allows fails for every user, also for root.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x".repeat(300));
        assert!(matches!(check(&path), Err(Error::Refused { .. })));
        assert!(matches!(write(&path, b"x"), Err(Error::Refused { .. })));
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_are_preserved() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        let null = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        write(&null, b"x").unwrap();
        assert!(is_device(&null) && is_device(Path::new("/dev/null")));
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(folder(Path::new("r.json")), Path::new("."));
    }
}
