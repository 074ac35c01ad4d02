//! Files that appear whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why an output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What should be a folder above the file is none.
    #[error(
        "cannot write {}: {} is no folder; name another place", .path.display(), .found.display()
    )]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// What stands where its folder should.
        found: PathBuf,
    },
    /// The path is a folder.
    #[error("cannot write {}: it is a folder, expected the name of a file", .path.display())]
    IsFolder {
        /// The path.
        path: PathBuf,
    },
    /// The path is the dash that elsewhere means standard output.
    #[error("cannot write `-`: expected the name of a file; /dev/stdout is standard output")]
    Dash,
    /// The path is a file that the run reads.
    #[error("cannot write {}: it is a file being read; name another", .path.display())]
    Input {
        /// The path.
        path: PathBuf,
    },
    /// The path is given for two outputs.
    #[error("{} is to hold two outputs; name another file for one of them", .path.display())]
    Twice {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot write {}; choose a place with room where you may write", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The report has no JSON form.
    #[error("cannot write {} as JSON", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What has none.
        source: serde_json::Error,
    },
}

/// Refuses outputs that are among the files read: a checkpoint's, with the configuration beside it,
/// and others; and one file for two outputs.
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

/// Finds out whether `path` can be written, before hours of work depend on it; folders that lack
/// are made by [`write()`]. A file that is there stays as it is.
///
/// # Errors
/// A file stands where a folder should, `path` is a folder, or the system refuses a new file in the
/// nearest folder above it.
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

/// Writes `report` as indented JSON with a line end. Numbers that are not finite become null.
///
/// # Errors
/// As [`write()`]; a report that has no JSON form.
pub fn write_json(path: &Path, report: &impl serde::Serialize) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(report);
    let json = json.map_err(|source| Error::Json { path: path.into(), source })?;
    write(path, (json + "\n").as_bytes())
}

/// Writes a file beside `path`, then renames it: a reader finds the old file or the new one, never
/// a part, whenever the run is cut off. A link stays a link: the file it points to is replaced.
/// A device or pipe (`/dev/stdout`) is written to, never replaced.
///
/// # Errors
/// As [`check`].
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
        // The first failure is the one to tell of; a part left behind does no harm.
        let _ = fs::remove_file(&part);
        Error::Refused { path: path.into(), source }
    })
}

/// Whether something is there that is neither a file nor a folder.
fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A hidden name in the same folder, for a rename does not cross file systems; with the process's
/// number, so that two runs do not share it.
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
    fn a_report_replaces_the_old_one_and_leaves_nothing_else() {
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
    fn wrong_places_are_named_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let missing = folder.path().join("file/no/r.json");
        assert!(matches!(check(&missing), Err(Error::NoFolder { .. })));
        assert!(matches!(check(folder.path()), Err(Error::IsFolder { .. })));
        assert!(matches!(check(Path::new("..")), Err(Error::IsFolder { .. })));
        let message = check(&missing).unwrap_err().to_string();
        assert!(message.contains("no/r.json") && message.contains("no folder"), "{message}");
    }

    #[test]
    fn folders_that_lack_are_made_only_for_the_file_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/r.json");
        check(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        write(&path, b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(names(path.parent().unwrap()), ["r.json"]);
    }

    #[test]
    fn a_refusal_tells_why() {
        // A name longer than any file system takes: refused for every user, root too.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x".repeat(300));
        assert!(matches!(check(&path), Err(Error::Refused { .. })));
        assert!(matches!(write(&path, b"x"), Err(Error::Refused { .. })));
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
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
