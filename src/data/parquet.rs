//! Parquet files with images, as Hugging Face's `datasets` writes them.
//!
//! The column `image` or `img` is a struct whose field `bytes` is an encoded image, or is itself such bytes. The label is
//! in `label`, `fine_label` or another known column: class numbers, whose names are in the metadata `huggingface`
//! (`ClassLabel`), or class names. A file, several by a brace range, or a folder, also with the files in `data/` or in
//! folders of splits: `train-00000-of-00002.parquet`, `data/test-…`, `train/0000.parquet`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Type;
use parquet::errors::ParquetError;
use serde_json::Value;

use super::braces::expand;
use super::files::Files;
use super::folder::split_name;
use super::parquet_table::{Column, Images, Kept, Table};
use super::walk::children;
use super::{Error, Split};

/// Names of the column of images, in order of preference.
const IMAGES: [&str; 2] = ["image", "img"];
/// Names of the column of labels, in order of preference.
const LABELS: [&str; 6] = ["label", "fine_label", "labels", "target", "class", "cls"];
/// Largest class number and one.
const MOST_CLASSES: i64 = 100_000;

/// What was read from Parquet files.
pub struct Found {
    /// The splits.
    pub splits: Vec<Split>,
    /// Whether labels are class names without numbers.
    pub named: bool,
}

/// Opens a file, several by a brace range, or a folder; `None` if there are no Parquet files.
///
/// # Errors
/// [`Error::Missing`] for a file that does not exist; [`Error::Format`] for one that is damaged, or has no images or
/// labels; [`Error::Empty`], [`Error::Read`].
pub fn open(spec: &str) -> Result<Option<Found>, Error> {
    let path = Path::new(spec);
    let files: Vec<(&'static str, PathBuf)> = if path.is_dir() {
        in_folder(path, true)?
    } else if is_parquet(spec) {
        let names = if path.exists() { Some(vec![spec.to_owned()]) } else { expand(spec) };
        let too_many = || super::missing(path, "a range of files", "write a shorter range");
        let paths = names.ok_or_else(too_many)?.into_iter().map(PathBuf::from);
        paths.map(|path| (split_of(&path).unwrap_or("all"), path)).collect()
    } else {
        return Ok(None);
    };
    let (named, unnamed): (Vec<_>, Vec<_>) = files.iter().partition(|(split, _)| *split != "all");
    if let (false, Some((_, path))) = (named.is_empty(), unnamed.first()) {
        return Err(Error::Missing {
            path: path.clone(),
            expected: "names of all files that begin with train, val or test, as others do".into(),
            found: "another name".into(),
            remedy: "rename it, or give the files of each split separately".into(),
        });
    }
    if files.is_empty() { Ok(None) } else { read(spec, &files).map(Some) }
}

fn is_parquet(name: &str) -> bool {
    name.to_lowercase().ends_with(".parquet")
}

/// The split that a file's name begins with.
fn split_of(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    split_name(name.split(|c: char| !c.is_alphabetic()).next()?)
}

fn in_folder(folder: &Path, top: bool) -> Result<Vec<(&'static str, PathBuf)>, Error> {
    let mut found = Vec::new();
    for child in children(folder)? {
        if !child.folder && is_parquet(&child.name) {
            found.push((split_of(&child.path).unwrap_or("all"), child.path));
        } else if let (true, Some(split)) = (child.folder && top, split_name(&child.name)) {
            let inner = children(&child.path)?.into_iter();
            let files = inner.filter(|file| !file.folder && is_parquet(&file.name));
            found.extend(files.map(|file| (split, file.path)));
        } else if child.folder && top && child.name == "data" {
            found.extend(in_folder(&child.path, false)?);
        }
    }
    Ok(found)
}

/// One file: its images, labels and class names.
struct Source {
    images: Images,
    rows: usize,
    labels: Column,
    names: Option<Vec<String>>,
}

fn read(spec: &str, files: &[(&'static str, PathBuf)]) -> Result<Found, Error> {
    let mut sources = Vec::new();
    let kept = Arc::<Kept>::default();
    for (number, (split, path)) in files.iter().enumerate() {
        sources.push((*split, path, source(path, number, &kept)?));
    }
    let texts = |source: &Source| matches!(source.labels, Column::Texts(_));
    let named = sources.iter().any(|(_, _, source)| texts(source));
    let names = names(&sources)?;
    let index: BTreeMap<&str, u32> = names.iter().flatten().map(String::as_str).zip(0..).collect();
    let mut parts: BTreeMap<&str, (Files, Vec<u32>)> = BTreeMap::new();
    for (split, path, source) in sources {
        let (all, labels) = parts.entry(split).or_default();
        match &source.labels {
            Column::Texts(own) => labels.extend(own.iter().filter_map(|name| index.get(&**name))),
            Column::Numbers(own) => {
                let most = names.as_ref().map_or(MOST_CLASSES, |names| names.len() as i64);
                if let Some(row) = own.iter().position(|y| !(0..most).contains(y)) {
                    let (place, found) = (format!("row {row}, label"), own[row].to_string());
                    let remedy = "use files with labels; −1 means none";
                    return Err(wrong(
                        path,
                        &place,
                        &format!("a number from 0 to {}", most - 1),
                        found,
                        remedy,
                    ));
                }
                labels.extend(own.iter().map(|&y| y as u32));
            }
        }
        all.add_rows(path, source.rows, Arc::new(source.images));
    }
    let mut splits = Vec::new();
    for name in ["train", "val", "test", "all"] {
        let Some((files, labels)) = parts.remove(name).filter(|(_, labels)| !labels.is_empty())
        else {
            continue;
        };
        splits.push(Split::of_files(spec, name, files, labels, names.clone()));
    }
    if splits.is_empty() {
        return Err(Error::Empty { place: spec.to_owned() });
    }
    Ok(Found { splits, named })
}

/// The class names of all files: those of the metadata, which must agree, or all texts in byte order.
fn names(sources: &[(&'static str, &PathBuf, Source)]) -> Result<Option<Vec<String>>, Error> {
    let (_, path, first) = &sources[0];
    let mut all: BTreeSet<&str> = BTreeSet::new();
    for (_, other, source) in sources {
        let agree = match (&first.labels, &source.labels) {
            (Column::Texts(_), Column::Texts(own)) => {
                all.extend(own.iter().map(String::as_str));
                true
            }
            (Column::Numbers(_), Column::Numbers(_)) => first.names == source.names,
            _ => false,
        };
        if !agree {
            let expected = format!("the classes of {}", path.display());
            let remedy = "write all files with the same features";
            return Err(wrong(other, "labels", &expected, "other classes".into(), remedy));
        }
    }
    Ok(match all.is_empty() {
        true => first.names.clone(),
        false => Some(all.into_iter().map(str::to_owned).collect()),
    })
}

fn source(path: &Path, number: usize, kept: &Arc<Kept>) -> Result<Source, Error> {
    if !path.is_file() {
        return Err(super::missing(path, "a Parquet file", "correct the path or the range"));
    }
    let damaged = |error: ParquetError| {
        let found = error.to_string();
        wrong(
            path,
            "content",
            "a Parquet file that can be read",
            found,
            "download it again, or write it with Snappy or no compression",
        )
    };
    let table = Table::open(path).map_err(damaged)?;
    let schema = table.metadata.file_metadata().schema_descr();
    let columns: Vec<String> =
        schema.columns().iter().map(|column| column.path().string()).collect();
    let find = |names: &[&str], end: &str| {
        names.iter().find_map(|name| columns.iter().position(|own| *own == format!("{name}{end}")))
    };
    let flat = |&at: &usize| {
        let column = schema.column(at);
        column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0
    };
    let shown = || format!("columns {}", columns.join(", "));
    let image = find(&IMAGES, ".bytes").or_else(|| find(&IMAGES, "")).filter(flat);
    let Some(image) = image else {
        let expected = "a column image or img with encoded images";
        return Err(wrong(
            path,
            "schema",
            expected,
            shown(),
            "write the images with `datasets`' type Image",
        ));
    };
    let flat = |&at: &usize| schema.column(at).max_rep_level() == 0;
    let Some(label) = find(&LABELS, "").filter(flat) else {
        let expected = format!("a column of labels: {}", LABELS.join(", "));
        return Err(wrong(path, "schema", &expected, shown(), "rename the column of labels"));
    };
    let name = columns[label].clone();
    let Some(labels) = table.column(label).map_err(damaged)? else {
        let expected = "class numbers or names in each row";
        return Err(wrong(
            path,
            &name,
            expected,
            "other values".into(),
            "write a label for each image",
        ));
    };
    let names = class_names(&table, &name);
    let rows = table.rows();
    let images = Images::of(table, image, number, kept.clone()).map_err(damaged)?;
    Ok(Source { images, rows, labels, names })
}

/// The names of a `ClassLabel` in the metadata that `datasets` writes.
fn class_names(table: &Table, column: &str) -> Option<Vec<String>> {
    let notes = table.metadata.file_metadata().key_value_metadata()?;
    let note = notes.iter().find(|note| note.key == "huggingface")?.value.as_ref()?;
    let value: Value = serde_json::from_str(note).ok()?;
    let names = value.get("info")?.get("features")?.get(column)?.get("names")?.as_array()?;
    names.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
}

fn wrong(path: &Path, place: &str, expected: &str, found: String, remedy: &str) -> Error {
    Error::Format {
        path: path.to_owned(),
        place: place.into(),
        expected: expected.into(),
        found,
        remedy: remedy.into(),
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
