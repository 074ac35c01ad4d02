//! Lists folders of images in an order independent of the file system.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;

/// Extensions that are read, in lower case.
pub(super) const READ: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"];
/// Extensions of images that are not read; a note counts such files.
const UNREAD: [&str; 6] = ["ppm", "pgm", "heic", "avif", "jfif", "jp2"];

/// A file or folder that is not hidden.
#[derive(Clone, Debug)]
pub(super) struct Child {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is a folder, or a link to one.
    pub folder: bool,
}

/// Content of a folder in byte order of the names, without hidden entries (`.name`).
pub(super) fn children(folder: &Path) -> Result<Vec<Child>, Error> {
    let fail = |source| Error::Read { path: folder.to_owned(), source };
    let mut children = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|name: OsString| Error::Folders {
            path: folder.to_owned(),
            expected: "names in UTF-8".into(),
            found: format!("{name:?}"),
            remedy: "rename it".into(),
        })?;
        if name.starts_with('.') {
            continue;
        }
        // A dangling link counts as a file; if it is expected to be an image, decoding reports it.
        // Pipes and devices are skipped, because opening one may block forever.
        let about = fs::metadata(&path);
        if about.as_ref().is_ok_and(|found| !found.is_dir() && !found.is_file()) {
            continue;
        }
        let folder = about.is_ok_and(|found| found.is_dir());
        children.push(Child { name, path, folder });
    }
    children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(children)
}

/// The image files at any depth below a folder: sorted by folder path, then by name. Images of
/// other formats are counted in `other`, by extension.
///
/// # Errors
/// [`Error::Read`] for a folder that cannot be listed; [`Error::Folders`] for a link to a parent
/// folder.
pub(super) fn images(
    class: &Path,
    other: &mut BTreeMap<String, usize>,
) -> Result<Vec<(PathBuf, Vec<OsString>)>, Error> {
    let mut found = Vec::new();
    collect(class, &mut Vec::new(), other, &mut found)?;
    // Compared as strings, not by components: `a-b` comes before `a/b`, as in Python.
    found.sort_unstable_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
    Ok(found)
}

fn collect(
    folder: &Path,
    above: &mut Vec<PathBuf>,
    other: &mut BTreeMap<String, usize>,
    found: &mut Vec<(PathBuf, Vec<OsString>)>,
) -> Result<(), Error> {
    let real = fs::canonicalize(folder)
        .map_err(|source| Error::Read { path: folder.to_owned(), source })?;
    if above.contains(&real) {
        return Err(Error::Folders {
            path: folder.to_owned(),
            expected: "folders within folders".into(),
            found: format!("a link back to {}", real.display()),
            remedy: "remove the link".into(),
        });
    }
    above.push(real);
    let mut names = Vec::new();
    for child in children(folder)? {
        if child.folder {
            collect(&child.path, above, other, found)?;
            continue;
        }
        let extension = Path::new(&child.name).extension();
        let Some(kind) = extension.and_then(|e| e.to_str()).map(str::to_lowercase) else {
            continue;
        };
        if READ.contains(&kind.as_str()) {
            names.push(child.name.into());
        } else if UNREAD.contains(&kind.as_str()) {
            *other.entry(kind).or_default() += 1;
        }
    }
    above.pop();
    if !names.is_empty() {
        found.push((folder.to_owned(), names));
    }
    Ok(())
}
