//! ImageFolder: one folder per class, as read by torchvision's class of that name.
//!
//! `ROOT/SPLIT/CLASS/…/image.jpg`, with the splits `train`, `val` or `validation`, and `test`; or
//! `ROOT/CLASS/…/image.jpg`, one split called `all`.
//!
//! As in torchvision, classes are numbered in byte order of their names, images are in byte order
//! of their folders and names, and links are followed. Unlike torchvision, every split is numbered
//! by the classes of `train`, an empty class keeps its number, and hidden files and folders
//! (`.DS_Store`, `._a.jpg`, `.ipynb_checkpoints`) are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::Files;
use super::walk::{Child, children, images};
use super::{Error, Split};

/// Folder names of splits, in lower case, and the split of each.
const SPLITS: [(&str, &str); 4] =
    [("train", "train"), ("val", "val"), ("validation", "val"), ("test", "test")];

/// Splits, and notes for readers of the figures.
pub type Recognised = (Vec<Split>, Vec<String>);

/// Reads the folder structure; opens no image.
///
/// # Errors
/// [`Error::Folders`] for a folder without class folders, two folders for one split, two class
/// folders that are the same through a link, a class of `val` or `test` that is not in `train`, a
/// name that is not UTF-8, or circular links; [`Error::Empty`] for a split without images;
/// [`Error::Read`] for a folder that cannot be listed.
pub fn open(root: &Path) -> Result<Recognised, Error> {
    let top = children(root)?;
    let mut notes = Vec::new();
    let mut splits: Vec<(&'static str, &Child)> = Vec::new();
    for child in top.iter().filter(|child| child.folder) {
        let Some(split) = split_name(&child.name) else { continue };
        if !children(&child.path)?.iter().any(|inner| inner.folder) {
            continue;
        }
        if let Some((_, other)) = splits.iter().find(|(name, _)| *name == split) {
            return Err(Error::Folders {
                path: root.to_owned(),
                expected: format!("one folder for the split {split}"),
                found: format!("\"{}\" and \"{}\"", other.name, child.name),
                remedy: "remove one of them".into(),
            });
        }
        splits.push((split, child));
    }
    if splits.is_empty() {
        let classes = classes(root)?;
        if classes.iter().all(|class| split_name(&class.name).is_some()) {
            return Err(no_classes(root, &top));
        }
        let names: Vec<String> = classes.iter().map(|class| class.name.clone()).collect();
        let split = read(root, "all", &classes, &names, &mut notes)?;
        return Ok((vec![split], notes));
    }
    let strays = top.iter().filter(|c| c.folder && !splits.iter().any(|(_, s)| s.path == c.path));
    notes.extend(strays.map(|stray| {
        format!("{}: \"{}\" is not the name of a split; it is ignored", root.display(), stray.name)
    }));
    splits.sort_by_key(|(name, _)| SPLITS.iter().position(|(_, split)| split == name));
    let listed = splits.iter().map(|(_, folder)| classes(&folder.path));
    let listed = listed.collect::<Result<Vec<_>, _>>()?;
    let names = numbering(&splits, &listed, &mut notes)?;
    let both = splits.iter().zip(&listed);
    let read = |((name, folder), classes): (&(&'static str, &Child), &Vec<Child>)| {
        read(&folder.path, name, classes, &names, &mut notes)
    };
    let splits = both.map(read).collect::<Result<Vec<_>, _>>()?;
    Ok((splits, notes))
}

/// The split that a name denotes, in any case.
pub(super) fn split_name(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    SPLITS.iter().find(|(folder, _)| *folder == name).map(|(_, split)| *split)
}

fn no_classes(root: &Path, top: &[Child]) -> Error {
    let images = top.iter().filter(|child| !child.folder).count();
    let folders: Vec<_> = top.iter().filter(|c| c.folder).map(|c| c.name.as_str()).collect();
    Error::Folders {
        path: root.to_owned(),
        expected: "a folder per class, or the splits `train`, `val` and `test` with a folder per \
                   class in each"
            .into(),
        found: match (images, folders.as_slice()) {
            (0, []) => "nothing".into(),
            (1, []) => format!("one file and no folders{}", unread(top)),
            (_, []) => format!("{images} files and no folders{}", unread(top)),
            (_, folders) => {
                let inside = top.iter().filter(|child| child.folder);
                let inside = inside.filter_map(|child| children(&child.path).ok()).flatten();
                let note = unread(&inside.collect::<Vec<_>>());
                format!("\"{}\" without class folders{note}", folders.join("\", \""))
            }
        },
        remedy: "sort the images into folders named after their classes, or list them in a CSV file; other \
                 data sets are Parquet files, tar archives, an IDX folder, a CIFAR folder and tensors:FILE"
            .into(),
    }
}

/// Names containers of images that are not read.
fn unread(files: &[Child]) -> &'static str {
    let ends = |end: &str| files.iter().any(|child| child.name.to_lowercase().ends_with(end));
    match (ends(".parquet"), ends(".tar"), ends(".arrow"), ends(".zip")) {
        (true, ..) => {
            " (Parquet files are read from this folder, from its folder \"data\", and from folders of splits)"
        }
        (_, true, ..) => " (tar archives are read from this folder, and from folders of splits)",
        (.., true, _) => " (Arrow files are not read: write Parquet files)",
        (.., true) => " (zip archives are not read: unpack them)",
        _ => "",
    }
}

/// The class folders of a split, by name.
fn classes(split: &Path) -> Result<Vec<Child>, Error> {
    let classes: Vec<Child> = children(split)?.into_iter().filter(|c| c.folder).collect();
    let mut real: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for class in &classes {
        let path = std::fs::canonicalize(&class.path)
            .map_err(|source| Error::Read { path: class.path.clone(), source })?;
        if let Some(other) = real.insert(path, &class.name) {
            return Err(Error::Folders {
                path: split.to_owned(),
                expected: "a separate folder for each class".into(),
                found: format!(
                    "\"{other}\" and \"{}\", which are the same folder through a link",
                    class.name
                ),
                remedy: "remove the link: an image cannot have two labels".into(),
            });
        }
    }
    Ok(classes)
}

/// The classes that number all splits: those of `train`, or of all splits if there is no `train`.
fn numbering(
    splits: &[(&'static str, &Child)],
    listed: &[Vec<Child>],
    notes: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    let names = |classes: &[Child]| classes.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let all = match (splits.first(), listed.first()) {
        (Some(("train", _)), Some(train)) => names(train),
        _ => {
            let mut all = names(&listed.concat());
            all.sort_unstable();
            all.dedup();
            all
        }
    };
    let known: BTreeSet<&String> = all.iter().collect();
    for ((split, folder), classes) in splits.iter().zip(listed) {
        let own: BTreeSet<String> = names(classes).into_iter().collect();
        let quoted = |names: Vec<&String>| {
            names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
        };
        let extra: Vec<&String> = own.iter().filter(|name| !known.contains(name)).collect();
        if !extra.is_empty() {
            return Err(Error::Folders {
                path: folder.path.clone(),
                expected: "the classes of the split train".into(),
                found: format!("{}, which are not in train", quoted(extra)),
                remedy: "rename or remove these folders, or add them to train".into(),
            });
        }
        let lacking: Vec<&String> = all.iter().filter(|name| !own.contains(*name)).collect();
        if !lacking.is_empty() {
            notes.push(format!("split {split} has no class folder {}", quoted(lacking)));
        }
    }
    Ok(all)
}

fn read(
    folder: &Path,
    name: &str,
    classes: &[Child],
    names: &[String],
    notes: &mut Vec<String>,
) -> Result<Split, Error> {
    let (mut files, mut labels) = (Files::default(), Vec::new());
    let mut other: BTreeMap<String, usize> = BTreeMap::new();
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    let numbers: BTreeMap<&String, usize> = names.iter().zip(0..).collect();
    for class in classes {
        // Every class is in the list, which was made from all of them.
        let Some(&label) = numbers.get(&class.name) else { continue };
        if let Some(twin) = folded.insert(class.name.to_lowercase(), &class.name) {
            notes.push(format!(
                "{}: the class folders \"{twin}\" and \"{}\" differ only in case; they are two classes",
                folder.display(),
                class.name
            ));
        }
        let before = files.len();
        for (path, names) in images(&class.path, &mut other)? {
            files.add(&path, names);
        }
        if files.len() == before {
            notes.push(format!(
                "{}: the class \"{}\" has no images; it keeps its number",
                folder.display(),
                class.name
            ));
        }
        labels.resize(files.len(), label as u32);
    }
    for (kind, count) in other {
        let folder = folder.display();
        notes.push(format!(
            "{folder}: {count} files of type .{kind} are ignored: only JPEG, PNG, WebP, BMP, TIFF and GIF are read"
        ));
    }
    if labels.is_empty() {
        return Err(Error::Empty { place: folder.display().to_string() });
    }
    let source = folder.display().to_string();
    Ok(Split::of_files(&source, name, files, labels, Some(names.to_vec())))
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
