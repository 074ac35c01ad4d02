//! Matches the classes of data to a checkpoint's classes by name.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::domains::check_domains;
use super::{ClassError, DataSet, Error, Split};
use unicode_normalization::UnicodeNormalization;

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

/// Relation of a data set's classes to a list of names.
enum Match {
    /// Each is in the list once, at these positions.
    All(Vec<u32>),
    /// Some are not in the list: these.
    Partly(Vec<String>),
    /// This class is in the list more than once, at these positions.
    Twice(String, Vec<u32>),
    /// None is in the list.
    None,
}

/// Numbers the classes of every data set by the checkpoint's class names `own`; `classes` is the
/// number of the checkpoint's classes. Returns notes for readers of the figures.
///
/// If all class names of a data set are among the checkpoint's, its labels are mapped to the
/// checkpoint's numbers, whatever the format. Class folders have only names, so any other name is
/// an error. IDX, CIFAR and prepared images also have numbers: if a name is unknown or missing, the
/// numbers are taken as the checkpoint's, with a note.
///
/// If the checkpoint has no names, or with [`ClassOrder::Sorted`], class folders stay in sorted
/// order, and the first data set with class names numbers the others (so put the training set
/// first). Names that are numbers, such as `LABEL_3`, are ignored unless folders have them. Classes
/// without images need no name.
///
/// # Errors
/// [`Error::Classes`]: only some or none of the class folders match; the checkpoint has a folder's
/// name twice; there are more folders than classes of the model.
pub fn number_classes(
    sets: &mut [&mut DataSet],
    own: Option<&[String]>,
    classes: usize,
    order: ClassOrder,
) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    let named = own.filter(|own| names_classes(own));
    let mut reference = own
        .filter(|_| order == ClassOrder::Name)
        .map(|own| ("the checkpoint".to_owned(), own.to_vec()));
    // Whether the reference is a data set, and whether a folder must match it.
    let (mut by_data, mut settled) = (false, false);
    for set in sets.iter_mut() {
        for group in groups(&set.splits) {
            let place = place(set, &group);
            let domains = if set.by_name { check_domains(set) } else { None };
            let splits = &mut set.splits[group];
            let Some(given) = splits[0].class_names().map(<[_]>::to_vec) else {
                if let (Some(own), true) = (own, set.kind == "csv" && order == ClassOrder::Name) {
                    number_by_numerals(splits, &place, own)?;
                }
                continue;
            };
            let found = match &reference {
                Some((_, names)) => compare(splits, &given, names),
                None => Match::None,
            };
            if let (false, Some(error)) = (matches!(found, Match::All(_)), domains) {
                return Err(error);
            }
            match (set.by_name, found, &reference) {
                (_, Match::All(map), Some((_, names))) => {
                    relabel(splits, &map, names)?;
                    settled = true;
                }
                (true, Match::Partly(unknown), Some((of, names))) => {
                    return Err(mismatch(place, of, unknown, names, &given));
                }
                (true, Match::Twice(name, numbers), _) => {
                    return Err(Error::Classes(ClassError::Twice { place, name, numbers }));
                }
                (true, Match::None, Some((of, names))) if settled => {
                    return Err(mismatch(place, of, given.clone(), names, &given));
                }
                (true, ..) => {
                    if given.len() > classes {
                        let found = given.len();
                        return Err(Error::Classes(ClassError::TooMany {
                            place,
                            classes,
                            found,
                            names: given,
                        }));
                    }
                    if let (Some(own), ClassOrder::Name) = (named, order) {
                        let first = |names: &[String]| names.first().cloned().unwrap_or_default();
                        let (expected, found) = (first(own), first(&given));
                        return Err(Error::Classes(ClassError::NoneKnown {
                            place,
                            expected,
                            found,
                        }));
                    }
                    notes.push(assumed(&place, &given, classes, order));
                    reference = Some((place, given));
                    (by_data, settled) = (true, true);
                }
                (_, _, Some((of, names))) if by_data => {
                    notes.extend(unlike(&place, &given, of, names));
                }
                // This data set numbers its class names.
                _ if named.is_none() || order == ClassOrder::Sorted => {
                    reference = Some((place, given));
                    (by_data, settled) = (true, order == ClassOrder::Name);
                }
                _ => {}
            }
        }
    }
    if let Some(own) = named {
        for set in sets {
            notes.extend(unmatched(set, own));
        }
    }
    Ok(notes)
}

/// Numbers the classes of training data: by the checkpoint's names `own` if these include every
/// class of every split, otherwise by the first split with class names.
///
/// # Errors
/// [`Error::Classes`] if the splits of a data set have different classes.
pub fn renumber(set: &mut DataSet, own: Option<&[String]>) -> Result<(), Error> {
    let groups = groups(&set.splits);
    let named = groups.iter().filter(|group| set.splits[group.start].class_names().is_some());
    let named: Vec<Range<usize>> = named.cloned().collect();
    let matched = |group: &Range<usize>, names: &[String]| {
        let splits = &set.splits[group.clone()];
        compare(splits, splits[0].class_names().unwrap_or_default(), names)
    };
    let Some(first) = named.first() else { return Ok(()) };
    let first = set.splits[first.start].class_names().unwrap_or_default().to_vec();
    let all = |names: &[String]| named.iter().all(|g| matches!(matched(g, names), Match::All(_)));
    let known = own.filter(|own| all(own));
    if let (None, true, Some(error)) = (known, set.by_name, check_domains(set)) {
        return Err(error);
    }
    let names = known.map_or(first, <[_]>::to_vec);
    let mut maps = Vec::new();
    for group in &named {
        let given = set.splits[group.start].class_names().unwrap_or_default();
        let unknown = match matched(group, &names) {
            Match::All(map) => {
                maps.push(map);
                continue;
            }
            Match::Partly(unknown) => unknown,
            Match::Twice(..) | Match::None => given.to_vec(),
        };
        let [place, of] = [group, &named[0]].map(|group| set.splits[group.start].place());
        return Err(mismatch(place, &of, unknown, &names, given));
    }
    named.into_iter().zip(maps).try_for_each(|(g, map)| relabel(&mut set.splits[g], &map, &names))
}

/// Notes on data whose labels are taken as the numbers of the classes `own`, without matching by
/// name.
pub fn unmatched(set: &DataSet, own: &[String]) -> Vec<String> {
    let note = |group: Range<usize>| {
        let place = place(set, &group);
        match set.splits[group.start].class_names() {
            Some(given) => unlike(&place, given, "the checkpoint", own),
            None => Some(format!(
                "{place}: the data have no class names: labels are taken as the checkpoint's class \
                 numbers, {}; check that this is right",
                first_numbers(own)
            )),
        }
    };
    groups(&set.splits).into_iter().filter_map(note).collect()
}

/// The first class in which two lists differ: its number, and its name in each.
pub fn first_difference(given: &[String], own: &[String]) -> Option<(usize, [String; 2])> {
    let at = (0..own.len().max(given.len())).find(|&i| own.get(i) != given.get(i))?;
    let name = |names: &[String]| names.get(at).map_or("none".into(), |n| format!("\"{n}\""));
    Some((at, [name(given), name(own)]))
}

/// Whether class names are more than numbers.
pub fn names_classes(names: &[String]) -> bool {
    !names.iter().all(|name| is_number(name))
}

/// Runs of splits with the same class names. Files of prepared images each have their own names;
/// the other formats have one list for all splits.
fn groups(splits: &[Split]) -> Vec<Range<usize>> {
    let mut at = 0;
    let same = |a: &Split, b: &Split| a.class_names() == b.class_names();
    let range = |group: &[Split]| {
        at += group.len();
        at - group.len()..at
    };
    splits.chunk_by(same).map(range).collect()
}

/// The data set, or the split if other splits have other class names.
fn place(set: &DataSet, group: &Range<usize>) -> String {
    match group.len() == set.splits.len() {
        true => set.path.display().to_string(),
        false => set.splits[group.start].place(),
    }
}

/// Numbers of a list are names of classes if the checkpoint's names are numerals in another order: 0, 1, 10, 2,
/// as sorted class folders give.
fn number_by_numerals(splits: &mut [Split], place: &str, own: &[String]) -> Result<(), Error> {
    let numerals: Option<Vec<u32>> = own.iter().map(|name| name.parse().ok()).collect();
    let Some(numerals) = numerals.filter(|found| !found.iter().copied().eq(0..own.len() as u32))
    else {
        return Ok(());
    };
    let highest = splits.iter().flat_map(|split| split.labels()).max().copied().unwrap_or(0);
    let number = |label: u32| numerals.iter().position(|&name| name == label).map(|at| at as u32);
    let used: BTreeSet<u32> = splits.iter().flat_map(|split| split.labels()).copied().collect();
    let unknown: Vec<String> =
        used.iter().filter(|&&label| number(label).is_none()).map(u32::to_string).collect();
    if !unknown.is_empty() {
        let given: Vec<String> = used.iter().map(u32::to_string).collect();
        return Err(mismatch(place.into(), "the checkpoint", unknown, own, &given));
    }
    let map: Vec<u32> = (0..=highest).map(|label| number(label).unwrap_or(0)).collect();
    relabel(splits, &map, own)
}

/// Maps label y of each split to `map[y]`, with the classes `names`.
fn relabel(splits: &mut [Split], map: &[u32], names: &[String]) -> Result<(), Error> {
    for split in splits {
        *split = split.relabelled(map, names)?;
    }
    Ok(())
}

fn unlike(place: &str, given: &[String], of: &str, own: &[String]) -> Option<String> {
    let (at, [in_data, in_other]) = first_difference(given, own)?;
    Some(format!(
        "{place}: class {at} is {in_data} in the data and {in_other} in {of}: labels are taken as \
         class numbers; check that they mean the same classes"
    ))
}

/// `0 = "cat", 1 = "dog", 2 = "emu", …`.
fn first_numbers(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).enumerate().map(|(i, name)| format!("{i} = \"{name}\""));
    let more = (names.len() > SHOWN).then(|| "…".to_owned());
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

/// Replacements in a folder's name for a slash in a class name.
const SLASHES: [&str; 4] = ["_", "-", " ", ""];

fn compare(splits: &[Split], given: &[String], names: &[String]) -> Match {
    if given == names {
        return Match::All((0..names.len() as u32).collect());
    }
    let used: BTreeSet<u32> = splits.iter().flat_map(|s| s.labels()).copied().collect();
    let composed = composed(given);
    let form = |name: &str| if composed { name.nfc().collect() } else { name.to_owned() };
    let mut places: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        places.entry(form(name)).or_default().push(at as u32);
    }
    // A folder cannot be named `T-shirt/top`. A replacement of the slash matches if exactly one
    // folder and one class are alike.
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
        match places.get(&form(class)).map(Vec::as_slice) {
            Some(&[at]) => at,
            // A class without images: its number is never looked up.
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

/// Whether names can be compared in Unicode's composed form. Folders made on macOS have decomposed
/// names: e and an accent, where the checkpoint has é. Two folders that differ in form only stay apart.
fn composed(given: &[String]) -> bool {
    let forms: BTreeSet<String> = given.iter().map(|name| name.nfc().collect()).collect();
    forms.len() == given.len()
}

/// Whether a class name is only a number, such as `7` or `LABEL_7`.
fn is_number(name: &str) -> bool {
    let digits = name.trim_start_matches(|c: char| c.is_alphabetic() || "_- ".contains(c));
    let stem = name[..name.len() - digits.len()].trim_end_matches(['_', '-', ' ']).to_lowercase();
    let known = ["", "label", "class"].contains(&stem.as_str());
    known && !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
}

/// What is assumed about classes that the checkpoint's names do not determine.
fn assumed(place: &str, given: &[String], classes: usize, order: ClassOrder) -> String {
    let why = match order {
        ClassOrder::Name => "the checkpoint has no class names",
        ClassOrder::Sorted => "`class_order` is sorted",
    };
    let fewer = match given.len() < classes {
        true => format!(", and there are {} of the model's {classes}", given.len()),
        false => String::new(),
    };
    format!(
        "{place}: {why}: the class folders are numbered in sorted order, from \"{}\" = 0 to \
         \"{}\" = {}{fewer}; if the model was trained with another order, every figure is wrong",
        given.first().map_or("", String::as_str),
        given.last().map_or("", String::as_str),
        given.len().saturating_sub(1),
    )
}

#[cfg(test)]
#[path = "classes_tests.rs"]
mod tests;
