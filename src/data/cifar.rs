//! CIFAR-10 and CIFAR-100 in binary format (Krizhevsky 2009).
//!
//! A file is a sequence of records. CIFAR-10: one label byte; CIFAR-100: the coarse label, then the
//! fine one, which is used. Then 3072 bytes: 32×32 red levels row by row, then green, then blue.

use std::fs;
use std::path::{Path, PathBuf};

use super::store::ImageBuffer;
use super::{Error, Split};

pub(super) const SIDE: usize = 32;
pub(super) const PLANE: usize = SIDE * SIDE;

/// One of the two data sets.
struct Version {
    /// Folder of its archive.
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// Number of label bytes of a record; the last is used.
    labels: usize,
    /// Number of classes of the last label byte.
    classes: usize,
    names: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        folder: "cifar-10-batches-bin",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: "test_batch.bin",
        labels: 1,
        classes: 10,
        names: "batches.meta.txt",
    },
    Version {
        folder: "cifar-100-binary",
        train: &["train.bin"],
        test: "test.bin",
        labels: 2,
        classes: 100,
        names: "fine_label_names.txt",
    },
];

/// Reads the splits `train` and `test` that exist, if `folder` or the archive's own folder in it
/// has a CIFAR data set; otherwise `None`. Class names come from `batches.meta.txt` or
/// `fine_label_names.txt`, if it exists.
///
/// # Errors
/// [`Error::Missing`] if only some training files exist; [`Error::Empty`], [`Error::Truncated`] and
/// [`Error::Format`] for a partial record, a label out of range, or a wrong number of class names;
/// [`Error::Read`].
pub fn open(folder: &Path) -> Result<Option<Vec<Split>>, Error> {
    for version in &VERSIONS {
        for root in [folder.to_owned(), folder.join(version.folder)] {
            let holds = |name: &str| root.join(name).is_file();
            if version.train.iter().any(|name| holds(name)) || holds(version.test) {
                return splits(&root, version).map(Some);
            }
        }
    }
    Ok(None)
}

/// Whether the training files exist.
///
/// # Errors
/// [`Error::Missing`] if only some exist.
pub(super) fn has_training_files(root: &Path, names: &[&str]) -> Result<bool, Error> {
    let (given, absent): (Vec<&str>, Vec<&str>) =
        names.iter().copied().partition(|name| root.join(name).is_file());
    match (given.first(), absent.first()) {
        (Some(present), Some(absent)) => Err(Error::Missing {
            path: root.join(absent),
            expected: format!("a training file next to {}", root.join(present).display()),
            found: "no such file".into(),
            remedy: "unpack the whole archive, or remove all training files".into(),
        }),
        (given, _) => Ok(given.is_some()),
    }
}

fn splits(root: &Path, version: &Version) -> Result<Vec<Split>, Error> {
    let names = class_names(root, version)?;
    let mut splits = Vec::new();
    let paths = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<Vec<_>>();
    if has_training_files(root, version.train)? {
        splits.push(read(root, "train", paths(version.train), version, &names)?);
    }
    if root.join(version.test).is_file() {
        splits.push(read(root, "test", paths(&[version.test]), version, &names)?);
    }
    Ok(splits)
}

fn class_names(root: &Path, version: &Version) -> Result<Option<Vec<String>>, Error> {
    let path = root.join(version.names);
    if !path.is_file() {
        return Ok(None);
    }
    let text =
        fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.len() == version.classes {
        return Ok(Some(names));
    }
    Err(Error::Format {
        path,
        place: "class names".into(),
        expected: format!("{} lines", version.classes),
        found: names.len().to_string(),
        remedy: "unpack the archive again, or remove this file".into(),
    })
}

fn read(
    root: &Path,
    name: &str,
    paths: Vec<PathBuf>,
    version: &Version,
    names: &Option<Vec<String>>,
) -> Result<Split, Error> {
    let (mut levels, mut labels) = (Vec::new(), Vec::new());
    let record = version.labels + 3 * PLANE;
    for path in paths {
        let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        if bytes.is_empty() {
            return Err(Error::Empty { place: path.display().to_string() });
        }
        if bytes.len() % record != 0 {
            let (expected, found) = (bytes.len().next_multiple_of(record), bytes.len());
            return Err(Error::Truncated { path, expected: expected as u64, found: found as u64 });
        }
        for (image, record) in bytes.chunks_exact(record).enumerate() {
            let label = record[version.labels - 1];
            if usize::from(label) >= version.classes {
                return Err(Error::Format {
                    path,
                    place: format!("image {image}, label"),
                    expected: format!("a number below {}", version.classes),
                    found: label.to_string(),
                    remedy: "unpack the archive again".into(),
                });
            }
            labels.push(u32::from(label));
            let planes = &record[version.labels..];
            let pixel = |at| (0..3).map(move |channel| planes[channel * PLANE + at]);
            levels.extend((0..PLANE).flat_map(pixel));
        }
    }
    let images = ImageBuffer { bytes: levels, start: 0, shape: [3, SIDE, SIDE], prepared: false };
    Ok(Split::new(&root.display().to_string(), name, images, labels, names.clone()))
}

#[cfg(test)]
#[path = "cifar_tests.rs"]
mod tests;
