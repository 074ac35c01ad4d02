//! CIFAR-10 and CIFAR-100 as pickles of Python, `cifar-10-batches-py` and `cifar-100-python` (Krizhevsky 2009).
//!
//! A file is a dict with `data`, an array (N,3072) of bytes with 32×32 red levels row by row, then green, then blue,
//! and a list of labels: `labels`, or `fine_labels`. No code of a pickle is run.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::cifar::{PLANE, SIDE, has_training_files};
use super::store::ImageBuffer;
use super::{Error, Split};
use crate::pickle::{Id, Pickle, Refusal, Value};

/// Longest file. That of CIFAR-100's training images has 155 MB.
const LONGEST: u64 = 1 << 28;

/// One of the two data sets.
struct Version {
    /// Folder of its archive.
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// File with the class names, and their key.
    names: (&'static str, &'static str),
    /// Key of the labels.
    labels: &'static str,
    classes: usize,
}

const VERSIONS: [Version; 2] = [
    Version {
        folder: "cifar-10-batches-py",
        train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        test: "test_batch",
        names: ("batches.meta", "label_names"),
        labels: "labels",
        classes: 10,
    },
    Version {
        folder: "cifar-100-python",
        train: &["train"],
        test: "test",
        names: ("meta", "fine_label_names"),
        labels: "fine_labels",
        classes: 100,
    },
];

/// Reads the splits `train` and `test` that exist, if `folder` or the archive's own folder in it has a CIFAR data set
/// in this format; otherwise `None`.
///
/// # Errors
/// [`Error::Missing`] if only some training files exist; [`Error::Format`] for a file that is not such a pickle;
/// [`Error::Counts`], [`Error::Empty`], [`Error::Read`].
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

fn splits(root: &Path, version: &Version) -> Result<Vec<Split>, Error> {
    let names = class_names(root, version)?;
    let mut splits = Vec::new();
    if has_training_files(root, version.train)? {
        splits.push(read(root, "train", version.train, version, &names)?);
    }
    if root.join(version.test).is_file() {
        splits.push(read(root, "test", &[version.test], version, &names)?);
    }
    Ok(splits)
}

/// A pickle and its file.
struct Source {
    path: PathBuf,
    pickle: Pickle,
}

impl Source {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read)?;
        match Pickle::read_arrays(BufReader::new(file), LONGEST) {
            Ok(pickle) => Ok(Self { path, pickle }),
            Err(Refusal::Io(source)) => Err(Error::Read { path, source }),
            Err(Refusal::Name(name)) => {
                Err(wrong(&path, "pickle", "numbers, texts and arrays", format!("the name {name}")))
            }
            Err(Refusal::Malformed { expected, found }) => {
                Err(wrong(&path, "pickle", &expected, found))
            }
        }
    }

    fn wrong(&self, place: &str, expected: &str, found: impl Into<String>) -> Error {
        wrong(&self.path, place, expected, found)
    }

    fn entry(&self, key: &str) -> Result<Id, Error> {
        let found = self.pickle.entry(self.pickle.root, key);
        found.ok_or_else(|| self.wrong("pickle", &format!("a dict with \"{key}\""), "none"))
    }

    fn list(&self, key: &str) -> Result<&[Id], Error> {
        match self.pickle.get(self.entry(key)?) {
            Value::List(items) => Ok(items),
            _ => Err(self.wrong(key, "a list", "another value")),
        }
    }
}

fn wrong(path: &Path, place: &str, expected: &str, found: impl Into<String>) -> Error {
    Error::Format {
        path: path.to_owned(),
        place: place.into(),
        expected: expected.into(),
        found: found.into(),
        remedy: "unpack the archive again".into(),
    }
}

fn class_names(root: &Path, version: &Version) -> Result<Option<Vec<String>>, Error> {
    let (file, key) = version.names;
    let path = root.join(file);
    if !path.is_file() {
        return Ok(None);
    }
    let source = Source::open(path)?;
    let name = |&id: &Id| match source.pickle.get(id) {
        Value::Text(name) => Ok(name.to_string()),
        Value::Bytes(name) => Ok(String::from_utf8_lossy(name).into_owned()),
        _ => Err(source.wrong(key, "a list of names", "another value")),
    };
    let names = source.list(key)?.iter().map(name).collect::<Result<Vec<String>, _>>()?;
    if names.len() != version.classes {
        let expected = format!("{} names", version.classes);
        return Err(source.wrong(key, &expected, names.len().to_string()));
    }
    Ok(Some(names))
}

fn read(
    root: &Path,
    name: &str,
    files: &[&str],
    version: &Version,
    names: &Option<Vec<String>>,
) -> Result<Split, Error> {
    let (mut levels, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let mut source = Source::open(root.join(file))?;
        let before = labels.len();
        for (image, &id) in source.list(version.labels)?.iter().enumerate() {
            let label = match *source.pickle.get(id) {
                Value::Int(label) => usize::try_from(label).ok().filter(|&y| y < version.classes),
                _ => None,
            };
            let expected = || format!("a number below {}", version.classes);
            let unknown = || {
                let found = match source.pickle.get(id) {
                    Value::Int(label) => label.to_string(),
                    _ => "another value".into(),
                };
                source.wrong(&format!("image {image}, label"), &expected(), found)
            };
            labels.push(label.ok_or_else(unknown)? as u32);
        }
        let data = source.entry("data")?;
        let Some(array) = source.pickle.take_array(data) else {
            return Err(source.wrong("data", "an array of bytes", "another value"));
        };
        let &[images, width] = array.shape.as_slice() else {
            return Err(source.wrong("data", "shape (N,3072)", format!("{:?}", array.shape)));
        };
        let whole = images.checked_mul(3 * PLANE) == Some(array.bytes.len());
        if &*array.element != "u1" || width != 3 * PLANE || !whole {
            let (element, bytes) = (array.element, array.bytes.len());
            let found = format!("{:?} of type \"{element}\" with {bytes} bytes", array.shape);
            return Err(source.wrong("data", "shape (N,3072) of type \"u1\"", found));
        }
        if images != labels.len() - before {
            let labels_of = format!("{}, {}", source.path.display(), version.labels);
            return Err(Error::Counts { labels: labels_of, images, found: labels.len() - before });
        }
        levels.reserve_exact(array.bytes.len());
        for image in 0..images {
            let value = |column: usize| match array.fortran {
                true => array.bytes[column * images + image],
                false => array.bytes[image * width + column],
            };
            let pixel = |at| (0..3).map(move |channel| channel * PLANE + at);
            levels.extend((0..PLANE).flat_map(pixel).map(value));
        }
    }
    if labels.is_empty() {
        return Err(Error::Empty { place: root.display().to_string() });
    }
    let images = ImageBuffer { bytes: levels, start: 0, shape: [3, SIDE, SIDE], prepared: false };
    Ok(Split::new(&root.display().to_string(), name, images, labels, names.clone()))
}

#[cfg(test)]
#[path = "cifar_python_tests.rs"]
mod tests;
