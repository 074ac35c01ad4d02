//! Recognises a folder of domains: `ROOT/DOMAIN/CLASS/image.jpg`, as PACS, Office-Home and DomainNet have it.

use std::collections::BTreeSet;
use std::path::Path;

use super::folder::split_name;
use super::walk::{READ, children};
use super::{DataSet, Error};

/// Domains that a message lists.
const SHOWN: usize = 6;

/// The error for class folders that are domains: at least two, without images of their own, of which at least half of
/// the folders have the same names. `None` for other data.
pub(super) fn check_domains(set: &DataSet) -> Option<Error> {
    if set.kind != "folder" || set.only().is_none() {
        return None;
    }
    let (domains, classes) = domains(&set.path)?;
    let shown: Vec<String> = domains.iter().take(SHOWN).map(|name| format!("\"{name}\"")).collect();
    let more = if domains.len() > SHOWN { ", …" } else { "" };
    Some(Error::Folders {
        path: set.path.clone(),
        expected: "a folder per class".into(),
        found: format!(
            "folders that look like {} domains: {}{more}; each has class folders such as \"{}\"",
            domains.len(),
            shown.join(", "),
            classes.first().map_or("", String::as_str),
        ),
        remedy: format!(
            "give the folder of a domain, such as {}, or several of them; if the folders are classes, list the images \
             in a CSV file",
            set.path.join(&domains[0]).display()
        ),
    })
}

/// The names of the domains, and the classes that all of them have.
fn domains(root: &Path) -> Option<(Vec<String>, Vec<String>)> {
    let is_image = |name: &str| {
        let end = name.rsplit_once('.').map(|(_, end)| end.to_lowercase());
        end.is_some_and(|end| READ.contains(&end.as_str()))
    };
    let mut names = Vec::new();
    let (mut all, mut shared): (BTreeSet<String>, Option<BTreeSet<String>>) = Default::default();
    for domain in children(root).ok()?.into_iter().filter(|child| child.folder) {
        let inside = children(&domain.path).ok()?;
        if inside.iter().any(|child| !child.folder && is_image(&child.name)) {
            return None;
        }
        let classes: BTreeSet<String> =
            inside.into_iter().filter(|child| child.folder).map(|child| child.name).collect();
        names.push(domain.name);
        all.extend(classes.iter().cloned());
        shared = Some(match shared {
            None => classes,
            Some(shared) => shared.intersection(&classes).cloned().collect(),
        });
    }
    let shared = shared?;
    let splits = shared.iter().any(|name| split_name(name).is_some());
    let alike = shared.len() >= 2 && 2 * shared.len() >= all.len() && !splits;
    (names.len() >= 2 && alike).then(|| (names, shared.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ClassOrder, number_classes, renumber};
    use std::fs;

    fn made(files: &[&str]) -> (tempfile::TempDir, DataSet) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let set = DataSet::open(root.path().to_str().unwrap()).unwrap();
        (root, set)
    }

    const PACS: [&str; 5] =
        ["art/cat/1.jpg", "art/dog/1.jpg", "photo/cat/1.jpg", "photo/dog/2.jpg", "photo/emu/2.jpg"];

    #[test]
    fn domains_are_named_where_classes_were_expected() {
        let own = ["cat", "dog", "emu"].map(str::to_owned);
        for own in [Some(&own[..]), None] {
            let (root, mut set) = made(&PACS);
            let error =
                number_classes(&mut [&mut set], own, 3, ClassOrder::Name).unwrap_err().to_string();
            let folder = root.path().join("art").display().to_string();
            for part in ["2 domains: \"art\", \"photo\"", "such as \"cat\"", &folder, "CSV"] {
                assert!(error.contains(part), "{part}: {error}");
            }
            let (_root, mut set) = made(&PACS);
            let error = renumber(&mut set, own).unwrap_err().to_string();
            assert!(error.contains("2 domains"), "{error}");
        }
    }

    #[test]
    fn nested_folders_of_known_classes_are_classes() {
        let (_root, mut set) = made(&PACS);
        let own = ["photo", "art"].map(str::to_owned);
        number_classes(&mut [&mut set], Some(&own), 2, ClassOrder::Name).unwrap();
        assert_eq!(set.only().unwrap().labels(), [1, 1, 0, 0, 0]);
    }

    #[test]
    fn other_folders_are_not_domains() {
        for files in [
            &["cat/1.jpg", "dog/1.jpg"][..],
            &["cat/1.jpg", "cat/a/1.jpg", "cat/b/1.jpg", "dog/a/1.jpg", "dog/b/1.jpg"],
            &["cat/indoor/1.jpg", "cat/a/1.jpg", "dog/indoor/1.jpg", "dog/b/1.jpg"],
            &["cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg", "dog/test/1.jpg"],
            &["cat/a/1.jpg", "cat/b/1.jpg"],
        ] {
            let (_root, set) = made(files);
            assert!(check_domains(&set).is_none(), "{files:?}");
        }
    }
}
