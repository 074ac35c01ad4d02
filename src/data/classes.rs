//! The classes of data matched to a checkpoint's by name.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::{ClassError, DataSet, Error, Split};

/// How class folders are numbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ClassOrder {
    /// by the checkpoint's class names
    #[default]
    Name,
    /// in the sorted order of the folders
    Sorted,
}

/// How the classes of a data set relate to a list of names.
enum Match {
    /// Each is in the list once: where.
    All(Vec<u32>),
    /// These are not; others are.
    Partly(Vec<String>),
    /// This one is in the list more than once: where.
    Twice(String, Vec<u32>),
    /// None is.
    None,
}

/// Numbers the classes of every data set as the checkpoint does, by name; `own` are its class
/// names, `classes` their number. What comes back is what a reader of the figures should know.
///
/// A checkpoint without names, or [`ClassOrder::Sorted`], leaves the classes in the sorted order of
/// the folders of the first data set (so put the training set first), and the others are numbered
/// by its names. Names that are numbers, such as `LABEL_3`, count as none unless folders bear them.
/// Classes without images need no name. CIFAR's classes have known numbers: they are mapped if all
/// names match, else left. Data without names are left.
///
/// # Errors
/// [`Error::Classes`]: some of the class folders match and some do not, or none does; the
/// checkpoint has a folder's name twice; more folders are to be sorted than the model has classes.
pub fn number_classes(
    sets: &mut [&mut DataSet],
    own: Option<&[String]>,
    classes: usize,
    order: ClassOrder,
) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    let own = own.filter(|_| order == ClassOrder::Name);
    let mut reference = own.map(|own| ("the checkpoint".to_owned(), own.to_vec()));
    let mut settled = false;
    for set in sets {
        let Some(given) = set.splits.first().and_then(Split::class_names).map(<[_]>::to_vec) else {
            continue;
        };
        let place = set.path.display().to_string();
        let found = match &reference {
            Some((_, names)) => compare(set, &given, names),
            None => Match::None,
        };
        match (set.kind, found, &reference) {
            ("folder" | "cifar", Match::All(map), Some((_, names))) => {
                let split = |split: &Split| split.relabelled(&map, names);
                set.splits = set.splits.iter().map(split).collect::<Result<_, _>>()?;
                settled = true;
            }
            ("folder", Match::Partly(unknown), Some((of, names))) => {
                return Err(mismatch(place, of, unknown, names, &given));
            }
            ("folder", Match::Twice(name, numbers), _) => {
                return Err(Error::Classes(ClassError::Twice { place, name, numbers }));
            }
            ("folder", Match::None, Some((of, names))) if settled => {
                return Err(mismatch(place, of, given.clone(), names, &given));
            }
            ("folder", ..) => {
                if given.len() > classes {
                    let found = given.len();
                    return Err(Error::Classes(ClassError::TooMany {
                        place,
                        classes,
                        found,
                        names: given,
                    }));
                }
                if let Some(own) = own.filter(|own| !own.iter().all(|name| is_number(name))) {
                    let first = |names: &[String]| names.first().cloned().unwrap_or_default();
                    let (expected, found) = (first(own), first(&given));
                    return Err(Error::Classes(ClassError::NoneKnown { place, expected, found }));
                }
                notes.push(assumed(&place, &given, classes, order));
                reference = Some((place, given));
                settled = true;
            }
            _ => {}
        }
    }
    Ok(notes)
}

/// Numbers the classes of one data set by `names` if each is among them; else leaves it.
///
/// # Errors
/// Those of changing labels; none for labels that the data set's own classes cover.
pub fn renumber(set: &mut DataSet, names: &[String]) -> Result<(), Error> {
    let given = set.splits.first().and_then(Split::class_names).map(<[_]>::to_vec);
    if let (Some(given), "folder" | "cifar") = (given, set.kind)
        && let Match::All(map) = compare(set, &given, names)
    {
        let split = |split: &Split| split.relabelled(&map, names);
        set.splits = set.splits.iter().map(split).collect::<Result<_, _>>()?;
    }
    Ok(())
}

/// What a folder's name may have for a slash in a class's.
const SLASHES: [&str; 4] = ["_", "-", " ", ""];

fn compare(set: &DataSet, given: &[String], names: &[String]) -> Match {
    let used: BTreeSet<u32> = set.splits.iter().flat_map(|s| s.labels()).copied().collect();
    let mut places: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        places.entry(name).or_default().push(at as u32);
    }
    // No folder can be called `T-shirt/top`: what stands for the slash there is taken for it, if
    // one folder and one class alone are alike so.
    let stands = |folder: &String, name: &String| {
        name.contains('/') && SLASHES.iter().any(|c| name.replace('/', c) == *folder)
    };
    let slashed = |class: &String| {
        let mut found = names.iter().enumerate().filter(|(_, name)| stands(class, name));
        let (at, name) = found.next()?;
        let alone = !given.iter().any(|other| other != class && stands(other, name));
        (found.next().is_none() && alone).then_some(at as u32)
    };
    let (mut unknown, mut twice) = (Vec::new(), None);
    let place = |(label, class): (usize, &String)| {
        match places.get(class.as_str()).map(Vec::as_slice) {
            Some(&[at]) => at,
            // A class without images: nothing will look its number up.
            _ if !used.contains(&(label as u32)) => 0,
            Some(several) => {
                twice.get_or_insert_with(|| (class.clone(), several.to_vec()));
                0
            }
            None => slashed(class).unwrap_or_else(|| {
                unknown.push(class.clone());
                0
            }),
        }
    };
    let map: Vec<u32> = given.iter().enumerate().map(place).collect();
    if let Some((name, numbers)) = twice {
        return Match::Twice(name, numbers);
    }
    match unknown.len() {
        0 => Match::All(map),
        n if n >= used.len() => Match::None,
        _ => Match::Partly(unknown),
    }
}

fn mismatch(
    place: String,
    of: &str,
    unknown: Vec<String>,
    names: &[String],
    given: &[String],
) -> Error {
    let known = names.iter().filter(|name| !given.contains(name)).cloned().collect();
    Error::Classes(ClassError::Unknown { place, of: of.to_owned(), unknown, known })
}

/// Whether a class name says no more than a number, as `7` and `LABEL_7` do.
fn is_number(name: &str) -> bool {
    let digits = name.trim_start_matches(|c: char| c.is_alphabetic() || "_- ".contains(c));
    let stem = name[..name.len() - digits.len()].trim_end_matches(['_', '-', ' ']).to_lowercase();
    let known = ["", "label", "class"].contains(&stem.as_str());
    known && !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
}

/// What is assumed of classes that no name of the checkpoint settles.
fn assumed(place: &str, given: &[String], classes: usize, order: ClassOrder) -> String {
    let why = match order {
        ClassOrder::Name => "the checkpoint names no classes",
        ClassOrder::Sorted => "by --class-order sorted",
    };
    let fewer = match given.len() < classes {
        true => format!(", and there are {} of the model's {classes}", given.len()),
        false => String::new(),
    };
    format!(
        "{place}: {why}: the class folders are numbered in sorted order, from `{}` = 0 to \
         `{}` = {}{fewer}; if the model was trained with another order, every figure is wrong",
        given.first().map_or("", String::as_str),
        given.last().map_or("", String::as_str),
        given.len().saturating_sub(1),
    )
}

#[cfg(test)]
#[path = "classes_tests.rs"]
mod tests;
