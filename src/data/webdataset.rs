//! Tar archives with images and labels, as webdataset reads them.
//!
//! Files that follow each other and have the same name up to the first dot form a sample: an image (`jpg`, `jpeg`, `png`,
//! `webp`, …) and its label, in `cls` or in `json` (`label`, `cls`, `class`, `class_name` or `target`). An archive is not
//! unpacked: images are read from their places in it. The names of archives tell the splits: those that begin with `train`,
//! `val`, `validation` or `test`, or lie in folders of these names. Other names make one split called `all`.
//!
//! Labels are class numbers if all are whole numbers, otherwise class names, numbered in byte order. An optional file
//! `classes.txt` beside the archives lists the names of numbered classes, one per line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use tar::Archive;

use super::braces::expand;
use super::files::Files;
use super::folder::split_name;
use super::walk::{READ, children};
use super::{Error, Split, idx};

/// Largest class number and one.
const MOST_CLASSES: u64 = 100_000;
/// Longest file with a label.
const LONGEST_LABEL: u64 = 1 << 20;
/// Keys of a label in JSON, in order of preference.
const KEYS: [&str; 5] = ["label", "cls", "class", "class_name", "target"];
/// Extensions of compressed archives.
const COMPRESSED: [&str; 5] = [".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"];

/// What was read from archives.
pub struct Shards {
    /// The splits.
    pub splits: Vec<Split>,
    /// Notes for readers of the figures.
    pub notes: Vec<String>,
    /// Whether labels are class names.
    pub named: bool,
}

/// An image of an archive.
struct Image {
    archive: usize,
    name: String,
    range: (u64, u64),
    label: String,
}

/// Opens an archive, several by a brace range, or a folder of archives; `None` if there are none.
///
/// # Errors
/// [`Error::Missing`] for an archive that does not exist; [`Error::Archive`] for a malformed one, a name that leaves it,
/// an image without a label, or a label that cannot be read; [`Error::Empty`], [`Error::Read`].
pub fn open(spec: &str) -> Result<Option<Shards>, Error> {
    let path = Path::new(spec);
    let archives: Vec<(&'static str, PathBuf)> = if path.is_dir() {
        in_folder(path)?
    } else if is_tar(spec) || compressed(spec) {
        let names = if path.exists() { Some(vec![spec.to_owned()]) } else { expand(spec) };
        let too_many = || super::missing(path, "a range of archives", "write a shorter range");
        let paths = names.ok_or_else(too_many)?.into_iter().map(PathBuf::from);
        paths.map(|path| (split_of(&path).unwrap_or("all"), path)).collect()
    } else {
        return Ok(None);
    };
    if archives.is_empty() {
        return Ok(None);
    }
    if archives.iter().any(|(split, _)| *split == "all")
        && archives.iter().any(|(s, _)| *s != "all")
    {
        let all = archives.iter().find(|(split, _)| *split == "all").map(|(_, path)| path.clone());
        return Err(Error::Missing {
            path: all.unwrap_or_default(),
            expected: "names of all archives that begin with train, val or test, as others do"
                .into(),
            found: "another name".into(),
            remedy: "rename it, or give the archives of each split separately".into(),
        });
    }
    read(spec, &archives).map(Some)
}

fn is_tar(name: &str) -> bool {
    name.to_lowercase().ends_with(".tar")
}

/// Whether the name is that of a compressed archive.
fn compressed(name: &str) -> bool {
    COMPRESSED.iter().any(|end| name.to_lowercase().ends_with(end))
}

/// The split that an archive's name begins with: `train-000.tar`, `val_3.tar`, `test.tar`.
fn split_of(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    split_name(name.split(|c: char| !c.is_alphabetic()).next()?)
}

fn in_folder(folder: &Path) -> Result<Vec<(&'static str, PathBuf)>, Error> {
    let mut found = Vec::new();
    for child in children(folder)? {
        if !child.folder && (is_tar(&child.name) || compressed(&child.name)) {
            found.push((split_of(&child.path).unwrap_or("all"), child.path));
        } else if let (true, Some(split)) = (child.folder, split_name(&child.name)) {
            let inner = children(&child.path)?.into_iter();
            let shards =
                inner.filter(|file| !file.folder && (is_tar(&file.name) || compressed(&file.name)));
            found.extend(shards.map(|file| (split, file.path)));
        }
    }
    Ok(found)
}

fn read(spec: &str, archives: &[(&'static str, PathBuf)]) -> Result<Shards, Error> {
    let (mut images, mut notes) = (Vec::new(), Vec::new());
    let mut without = 0;
    for (at, (_, path)) in archives.iter().enumerate() {
        without += list(path, at, &mut images, &mut notes)?;
    }
    if without > 0 {
        notes.push(format!("{spec}: {without} samples have no image; they are ignored"));
    }
    if images.is_empty() {
        return Err(Error::Empty { place: spec.to_owned() });
    }
    let numbers: Option<Vec<u64>> = images.iter().map(|image| image.label.parse().ok()).collect();
    let named = numbers.is_none();
    let (labels, names) = match numbers {
        Some(numbers) => {
            if let Some((image, n)) = images.iter().zip(&numbers).find(|(_, n)| **n >= MOST_CLASSES)
            {
                let expected = format!("a class number below {MOST_CLASSES}");
                let remedy = "number the classes from 0, or give their names";
                return Err(problem(
                    &archives[image.archive].1,
                    &image.name,
                    &expected,
                    n.to_string(),
                    remedy,
                ));
            }
            let labels: Vec<u32> = numbers.iter().map(|&n| n as u32).collect();
            let folder = match Path::new(spec).is_dir() {
                true => Path::new(spec),
                false => archives[0].1.parent().unwrap_or(Path::new("")),
            };
            let names = idx::class_names(folder, &labels)?;
            (labels, names)
        }
        None => {
            let names: BTreeSet<&str> = images.iter().map(|image| &*image.label).collect();
            let index: BTreeMap<&str, u32> = names.iter().copied().zip(0..).collect();
            let labels = images.iter().map(|image| index[&*image.label]).collect();
            (labels, Some(names.into_iter().map(str::to_owned).collect()))
        }
    };
    let mut splits = Vec::new();
    for name in ["train", "val", "test", "all"] {
        let (mut files, mut own): (Files, Vec<u32>) = Default::default();
        for (image, &label) in images.iter().zip(&labels) {
            let (split, path) = &archives[image.archive];
            if *split == name {
                files.add_member(path, image.name.clone(), image.range);
                own.push(label);
            }
        }
        if !own.is_empty() {
            splits.push(Split::of_files(spec, name, files, own, names.clone()));
        }
    }
    Ok(Shards { splits, notes, named })
}

/// The files of a sample that were found so far.
#[derive(Default)]
struct Sample {
    key: String,
    image: Option<(String, (u64, u64))>,
    class: Option<String>,
    json: Option<String>,
}

/// Adds the images of an archive, and a note if it may be cut short. Returns the number of samples without an image.
fn list(
    path: &Path,
    at: usize,
    images: &mut Vec<Image>,
    notes: &mut Vec<String>,
) -> Result<usize, Error> {
    let fail = |source| Error::Read { path: path.to_owned(), source };
    if compressed(&path.to_string_lossy()) {
        return Err(Error::Missing {
            path: path.to_owned(),
            expected: "an archive that is not compressed".into(),
            found: "a compressed one".into(),
            remedy: "uncompress it, for example with gunzip: images are read in any order".into(),
        });
    }
    if !path.is_file() {
        return Err(super::missing(path, "a tar archive", "correct the path or the range"));
    }
    let file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    let mut archive = Archive::new(file);
    let damaged = |error: std::io::Error| {
        problem(path, "header", "a tar archive", error.to_string(), "download or write it again")
    };
    let (mut without, mut sample, mut end) = (0, Sample::default(), 0);
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else {
            return Err(problem(
                path,
                "a name",
                "text in UTF-8",
                "other bytes".into(),
                "rename it",
            ));
        };
        let inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(&name).components().all(inside) {
            let (expected, remedy) =
                ("a name inside the archive", "write the archive with relative names");
            return Err(problem(path, &name, expected, "a name that leaves it".into(), remedy));
        }
        let Some((key, kind_of)) = parts(&name) else { continue };
        if !kind.is_file() {
            let remedy = "write the archive with the files themselves";
            return Err(problem(path, &name, "a file", format!("{kind:?}"), remedy));
        }
        let (start, size) = (entry.raw_file_position(), entry.size());
        if start.checked_add(size).is_none_or(|end| end > length) {
            let expected = format!("{size} bytes from byte {start} on");
            let found = format!("an archive of {length} bytes");
            return Err(problem(path, &name, &expected, found, "download or write it again"));
        }
        // Files take whole blocks of 512 bytes.
        end = end.max((start + size).next_multiple_of(512));
        if key != sample.key {
            without += usize::from(finish(path, at, std::mem::take(&mut sample), images)?);
            sample.key = key;
        }
        let text = |entry: &mut tar::Entry<File>| -> Result<String, Error> {
            let mut text = String::new();
            let read = entry.take(LONGEST_LABEL).read_to_string(&mut text);
            read.map_err(|_| {
                problem(path, &name, "a label in UTF-8", "other bytes".into(), RELABEL)
            })?;
            Ok(text)
        };
        match kind_of {
            Part::Class => sample.class = Some(text(&mut entry)?),
            Part::Json => sample.json = Some(text(&mut entry)?),
            Part::Image => {
                if let Some((other, _)) = sample.image.replace((name.clone(), (start, size))) {
                    let expected = "one image in each sample";
                    let remedy = "give each image a name of its own, up to the first dot";
                    return Err(problem(path, &name, expected, format!("{other} with it"), remedy));
                }
            }
        }
    }
    // A block of zeros ends an archive.
    if length <= end {
        notes.push(format!("{}: the archive has no end mark; it may be cut short", path.display()));
    }
    Ok(without + usize::from(finish(path, at, sample, images)?))
}

const RELABEL: &str = "write a class number or name in `cls`, or JSON with \"label\"";

/// What a file of a sample holds.
enum Part {
    Image,
    Class,
    Json,
}

/// The sample of a file, its name up to the first dot, and what the file holds. `None` for other files.
fn parts(name: &str) -> Option<(String, Part)> {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    let (stem, ends) = file.split_once('.')?;
    if stem.is_empty() {
        return None;
    }
    let end = ends.rsplit('.').next()?.to_lowercase();
    let part = match end.as_str() {
        "cls" => Part::Class,
        "json" => Part::Json,
        end if READ.contains(&end) => Part::Image,
        _ => return None,
    };
    Some((format!("{folder}/{stem}"), part))
}

/// Adds the image of a sample. Returns whether it has files but no image.
fn finish(path: &Path, at: usize, sample: Sample, images: &mut Vec<Image>) -> Result<bool, Error> {
    let Sample { image, class, json, .. } = sample;
    let Some((name, range)) = image else { return Ok(class.is_some() || json.is_some()) };
    let label = match (class, json) {
        (Some(class), _) => class.trim().to_owned(),
        (None, Some(json)) => from_json(&json).map_err(|found| {
            let expected = format!("a number or text for one of {}", KEYS.join(", "));
            problem(path, &name, &format!("JSON with {expected}"), found, RELABEL)
        })?,
        (None, None) => {
            let expected = "a label beside the image";
            return Err(problem(path, &name, expected, "neither `cls` nor `json`".into(), RELABEL));
        }
    };
    if label.is_empty() {
        return Err(problem(path, &name, "a label", "an empty one".into(), RELABEL));
    }
    images.push(Image { archive: at, name, range, label });
    Ok(false)
}

fn from_json(text: &str) -> Result<String, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("other text: {error}"))?;
    let found = KEYS.iter().find_map(|key| value.get(key));
    match found {
        Some(Value::Number(n)) if n.is_u64() => Ok(n.to_string()),
        Some(Value::String(name)) => Ok(name.trim().to_owned()),
        Some(other) => Err(other.to_string().chars().take(40).collect()),
        None => Err("none of them".into()),
    }
}

fn problem(
    path: &Path,
    member: &str,
    expected: &str,
    found: String,
    remedy: &'static str,
) -> Error {
    let (path, member, expected) = (path.to_owned(), member.to_owned(), expected.to_owned());
    Error::Archive { path, member, expected, found, remedy }
}

#[cfg(test)]
#[path = "webdataset_tests.rs"]
mod tests;
