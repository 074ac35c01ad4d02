//! Several data sets as one: their images one after the other, split by split.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::files::Files;
use super::store::{ImageBuffer, Store};
use super::{ClassError, DataSet, Error, OnBadSample, Split};

impl DataSet {
    /// Opens one source as [`DataSet::open`], or several as one data set: the images of each split in the order of the
    /// sources, with classes matched by name. With [`OnBadSample::Skip`], a file that a list names and that does not
    /// exist is left for [`DataSet::drop_bad`].
    ///
    /// If no source has groups, each source is a group.
    ///
    /// # Errors
    /// Those of [`DataSet::open`]. For several: [`Error::Join`] if they have different splits or kinds of images, or
    /// only some have class names; [`Error::Classes`] for unknown names.
    pub fn open_all(specs: &[String], policy: OnBadSample) -> Result<Self, Error> {
        let open = |spec: &String| Self::open_with(spec, policy == OnBadSample::Fail);
        match specs {
            [one] => open(one),
            _ => join(specs, specs.iter().map(open).collect::<Result<_, _>>()?),
        }
    }
}

/// One split of one source.
struct Part {
    /// Position of the source.
    source: usize,
    split: Split,
}

fn join(specs: &[String], sets: Vec<DataSet>) -> Result<DataSet, Error> {
    let Some(first) = specs.first() else {
        return Err(Error::Empty { place: "the data given".into() });
    };
    let by_name = sets.iter().any(|set| set.by_name);
    let (mut notes, mut parts, mut kinds) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (source, set) in sets.into_iter().enumerate() {
        kinds.insert(set.kind);
        notes.extend(set.notes);
        parts.extend(set.splits.into_iter().map(|split| Part { source, split }));
    }
    let whole = |part: &&Part| part.split.name() == "all";
    if let (Some(all), Some(other)) = (parts.iter().find(whole), parts.iter().find(|p| !whole(p))) {
        return Err(Error::Join {
            first: specs[all.source].clone(),
            other: specs[other.source].clone(),
            found: "without splits and with splits".into(),
            remedy: "give the folder of one split of the other source",
        });
    }
    let by_name = number(specs, &mut parts, by_name)?;
    let place = specs.join(", ");
    let mut splits = Vec::new();
    for name in ["train", "val", "test", "all"] {
        let (own, rest): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| part.split.name() == name);
        parts = rest;
        if !own.is_empty() {
            let split = one_split(specs, &place, name, own)?;
            notes.extend(duplicates(&split));
            splits.push(split);
        }
    }
    let kind = if kinds.len() == 1 { kinds.first().copied() } else { None };
    let path = PathBuf::from(if specs.len() == 1 { first } else { &place });
    Ok(DataSet { path, kind: kind.unwrap_or("several"), by_name, notes, splits })
}

/// Numbers the classes of all parts alike. Names that are all there is are sorted, as those of class folders are. Where
/// all sources have numbers and names, the first source's numbers count. Returns whether labels are class names.
fn number(specs: &[String], parts: &mut [Part], by_name: bool) -> Result<bool, Error> {
    let has_names = |part: &&Part| part.split.class_names().is_some();
    let with = parts.iter().find(has_names);
    let without = parts.iter().find(|part| !has_names(part));
    let (Some(with), None) = (with, without) else {
        let Some((with, without)) = with.zip(without) else { return Ok(by_name) };
        return Err(Error::Join {
            first: specs[with.source].clone(),
            other: specs[without.source].clone(),
            found: "with class names and without".into(),
            remedy: "give class names in every source (`classes.txt` beside IDX files), or in none",
        });
    };
    let names: Vec<String> = match by_name {
        true => {
            let all = parts.iter().filter_map(|part| part.split.class_names()).flatten();
            all.collect::<BTreeSet<_>>().into_iter().cloned().collect()
        }
        false => with.split.class_names().unwrap_or_default().to_vec(),
    };
    let of = specs[with.source].clone();
    let places: BTreeMap<&String, u32> = names.iter().zip(0..).collect();
    for Part { split, .. } in parts {
        let own = split.class_names().unwrap_or_default().to_vec();
        let unknown: Vec<String> =
            own.iter().filter(|name| !places.contains_key(name)).cloned().collect();
        if !unknown.is_empty() {
            let known = names.iter().filter(|name| !own.contains(name)).cloned().collect();
            let place = split.place();
            return Err(Error::Classes(ClassError::Unknown { place, of, unknown, known }));
        }
        let map: Vec<u32> = own.iter().filter_map(|name| places.get(name).copied()).collect();
        *split = split.relabelled(&map, &names)?;
    }
    Ok(by_name)
}

fn one_split(specs: &[String], place: &str, name: &str, parts: Vec<Part>) -> Result<Split, Error> {
    let names = parts[0].split.class_names().map(<[_]>::to_vec);
    let labels = parts.iter().flat_map(|part| part.split.labels()).copied().collect();
    let (groups, of) = groups(specs, &parts);
    let first = parts[0].source;
    let mut files = Files::default();
    let mut memory: Option<ImageBuffer> = None;
    for Part { source, split } in parts {
        let images = split.len();
        // The split was just read, so nothing else holds its images.
        match Arc::into_inner(split.store) {
            Some(Store::Files(own)) if memory.is_none() => files.append(own),
            Some(Store::Memory(mut own)) if files.len() == 0 => match &mut memory {
                None => {
                    // Labels may follow the images.
                    own.bytes.truncate(own.start + images * own.stride());
                    memory = Some(own);
                }
                Some(all) if all.shape == own.shape && all.prepared == own.prepared => {
                    let end = own.start + images * own.stride();
                    all.bytes.extend_from_slice(&own.bytes[own.start..end]);
                }
                Some(all) => {
                    let found = format!("of shapes {:?} and {:?}", all.shape, own.shape);
                    return Err(other_images(specs, [first, source], found));
                }
            },
            _ => {
                let found = "image files and arrays of images".into();
                return Err(other_images(specs, [first, source], found));
            }
        }
    }
    let split = match memory {
        Some(images) => Split::new(place, name, images, labels, names),
        None => Split::of_files(place, name, files, labels, names),
    };
    Ok(split.grouped(of, groups))
}

fn other_images(specs: &[String], [first, other]: [usize; 2], found: String) -> Error {
    Error::Join {
        first: specs[first].clone(),
        other: specs[other].clone(),
        found,
        remedy: "write both as image files",
    }
}

/// The groups of all images: those of the sources, and the name of a source without groups.
fn groups(specs: &[String], parts: &[Part]) -> (Vec<String>, Vec<u32>) {
    let mut names: Vec<String> = Vec::new();
    let mut of = Vec::new();
    let mut place = |name: &String| {
        let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.clone());
            names.len() - 1
        });
        at as u32
    };
    for Part { source, split } in parts {
        match split.groups() {
            Some((own, names)) => {
                let places: Vec<u32> = names.iter().map(&mut place).collect();
                of.extend(own.iter().map(|&group| places[group as usize]));
            }
            None => {
                let own = place(&specs[*source]);
                of.extend(std::iter::repeat_n(own, split.len()));
            }
        }
    }
    (names, of)
}

/// A note if some images of a split are the same, byte by byte.
fn duplicates(split: &Split) -> Option<String> {
    let hash = |row: usize| -> [u8; 32] {
        match &*split.store {
            Store::Files(files) => files.hash(row),
            Store::Memory(images) => Sha256::digest(images.get(row).unwrap_or_default()).into(),
        }
    };
    let hashes: Vec<[u8; 32]> = (0..split.len()).into_par_iter().map(hash).collect();
    let mut first: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let mut pairs = Vec::new();
    // A file that cannot be read has zeros.
    for (image, hash) in hashes.into_iter().enumerate().filter(|(_, hash)| *hash != [0; 32]) {
        match first.get(&hash) {
            Some(&earlier) => pairs.push((earlier, image)),
            None => drop(first.insert(hash, image)),
        }
    }
    let &(a, b) = pairs.first()?;
    let name = |image: usize| match split.file(image) {
        Some(path) => path.display().to_string(),
        None => format!("image {image}"),
    };
    let (count, a, b) = (pairs.len(), name(a), name(b));
    Some(format!(
        "{}: {count} images are copies of others, such as {b} of {a}; each copy counts",
        split.place()
    ))
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
