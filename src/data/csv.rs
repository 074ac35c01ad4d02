//! A CSV file that lists image files and their labels.
//!
//! The first line names the columns: the image (`path`, `file`, `filename`, `file_name`, `image` or
//! `image_path`), its label (`label`, `class`, `class_name` or `target`) and, if wanted, its `split` (`train`,
//! `val` or `validation`, `test`) and its `domain` (or `group`), which evaluations report separately. Without a
//! `split`, all images are in one split called `all`. Other columns are ignored. Paths are relative to the file's
//! folder.
//!
//! If all labels are whole numbers, they are class indices, as in an IDX file. Otherwise they are class names,
//! numbered in byte order, as class folders are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord, Trim};

use super::files::Files;
use super::folder::split_name;
use super::{Error, Split};

/// Column names of the image's path, in lower case.
const PATHS: [&str; 6] = ["path", "file", "filename", "file_name", "image", "image_path"];
/// Of its label.
const LABELS: [&str; 4] = ["label", "class", "class_name", "target"];

/// Of its group.
const DOMAINS: [&str; 2] = ["domain", "group"];

/// More classes than any image classifier has.
const MOST_CLASSES: u32 = 100_000;

/// One line.
struct Row {
    line: u64,
    path: PathBuf,
    label: String,
    split: &'static str,
    domain: Option<String>,
}

/// Whether a path is that of a CSV file.
pub(super) fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv")) && path.is_file()
}

/// Reads the list; opens no image. With `whole`, each image must exist.
///
/// # Errors
/// [`Error::Table`] for a file that is not CSV in UTF-8, a missing column, an empty field, an unknown split, an
/// image file that does not exist, or a file with two labels; [`Error::Empty`] for a list without images.
pub fn open(file: &Path, whole: bool) -> Result<Vec<Split>, Error> {
    let rows = rows(file)?;
    if rows.is_empty() {
        return Err(Error::Empty { place: file.display().to_string() });
    }
    check(file, &rows, whole)?;
    let numbers: Option<Vec<u64>> = rows.iter().map(|row| row.label.parse().ok()).collect();
    let (labels, names) = match numbers {
        Some(numbers) => (classes(file, &rows, &numbers)?, None),
        None => {
            let names: BTreeSet<&str> = rows.iter().map(|row| &*row.label).collect();
            let index: HashMap<&str, u32> = names.iter().copied().zip(0..).collect();
            let labels = rows.iter().map(|row| index[&*row.label]).collect();
            (labels, Some(names.into_iter().map(str::to_owned).collect::<Vec<_>>()))
        }
    };
    let domains: BTreeSet<&str> = rows.iter().filter_map(|row| row.domain.as_deref()).collect();
    let domains: Vec<&str> = domains.into_iter().collect();
    let mut splits = Vec::new();
    for name in ["train", "val", "test", "all"] {
        let (mut files, mut own): (Files, Vec<u32>) = Default::default();
        let mut groups = Vec::new();
        for (row, label) in rows.iter().zip(&labels).filter(|(row, _)| row.split == name) {
            let folder = row.path.parent().unwrap_or(Path::new(""));
            files.add_to(folder, row.path.file_name().unwrap_or_default().to_owned());
            own.push(*label);
            let domain = row.domain.as_deref().and_then(|own| domains.binary_search(&own).ok());
            groups.extend(domain.map(|domain| domain as u32));
        }
        if !own.is_empty() {
            let source = file.display().to_string();
            let split = Split::of_files(&source, name, files, own, names.clone());
            splits.push(match domains.is_empty() {
                true => split,
                false => split.grouped(groups, domains.iter().map(|&name| name.into()).collect()),
            });
        }
    }
    Ok(splits)
}

/// Class numbers, checked to be those of classes: other programs list identifiers as labels.
fn classes(file: &Path, rows: &[Row], numbers: &[u64]) -> Result<Vec<u32>, Error> {
    let class = |(row, &number): (&Row, &u64)| match u32::try_from(number) {
        Ok(class) if class < MOST_CLASSES => Ok(class),
        _ => {
            let expected = format!("a class number below {MOST_CLASSES}");
            let remedy = "number the classes from 0, or give their names";
            Err(problem(file, row.line, &expected, number.to_string(), remedy))
        }
    };
    rows.iter().zip(numbers).map(class).collect()
}

/// All lines, with paths joined to the file's folder.
fn rows(file: &Path) -> Result<Vec<Row>, Error> {
    let broken = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(source) => Error::Read { path: file.to_owned(), source },
        kind => {
            let position = match &kind {
                csv::ErrorKind::Utf8 { pos, .. } => pos.as_ref(),
                csv::ErrorKind::UnequalLengths { pos, .. } => pos.as_ref(),
                _ => None,
            };
            let found = match kind {
                csv::ErrorKind::Utf8 { .. } => "text that is not UTF-8".to_owned(),
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("{len} of {expected_len} fields")
                }
                _ => "invalid CSV".to_owned(),
            };
            let line = position.map_or(1, csv::Position::line);
            problem(
                file,
                line,
                "CSV with the same columns in each line",
                found,
                "correct this line",
            )
        }
    };
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_path(file).map_err(broken)?;
    let header = reader.headers().map_err(broken)?.clone();
    let columns: Vec<String> = header
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').trim().to_lowercase())
        .collect();
    let wrong = |number: &str, names: &[&str], what: &str, found: &[String], remedy| {
        let expected = format!("{number} column for {what}: {}", names.join(", "));
        problem(file, 1, &expected, format!("\"{}\"", found.join("\", \"")), remedy)
    };
    let optional = |names: &[&str], what: &str| {
        let is_named = |at: &usize| names.contains(&columns[*at].as_str());
        let found: Vec<usize> = (0..columns.len()).filter(is_named).collect();
        match found.as_slice() {
            [one] => Ok(Some(*one)),
            [] => Ok(None),
            [..] => {
                let both: Vec<String> = found.iter().map(|&at| columns[at].clone()).collect();
                Err(wrong("one", names, what, &both, "rename the others"))
            }
        }
    };
    let required = |names: &[&str], what: &str| {
        let absent = || wrong("a", names, what, &columns, "name the column in the first line");
        optional(names, what)?.ok_or_else(absent)
    };
    let (path, label) = (required(&PATHS, "the image")?, required(&LABELS, "its label")?);
    let split = columns.iter().position(|column| column == "split");
    let domain = optional(&DOMAINS, "its domain")?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut out = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |column: usize, what: &str| filled(file, line, &record, column, what);
        out.push(Row {
            line,
            path: folder.join(field(path, "the path of an image")?),
            label: field(label, "a label")?.to_owned(),
            split: match split {
                None => "all",
                Some(column) => {
                    let name = field(column, "a split")?;
                    let unknown = || {
                        let found = format!("\"{name}\"");
                        problem(file, line, "the split train, val or test", found, "correct it")
                    };
                    split_name(name).ok_or_else(unknown)?
                }
            },
            domain: match domain {
                None => None,
                Some(column) => Some(field(column, "a domain")?.to_owned()),
            },
        });
    }
    Ok(out)
}

fn filled<'a>(
    file: &Path,
    line: u64,
    record: &'a StringRecord,
    column: usize,
    what: &str,
) -> Result<&'a str, Error> {
    let field = record.get(column).filter(|field| !field.is_empty());
    field.ok_or_else(|| {
        problem(file, line, what, "an empty field".into(), "fill it in, or remove the line")
    })
}

/// Every image exists if this is wanted, and no file has two labels.
fn check(file: &Path, rows: &[Row], whole: bool) -> Result<(), Error> {
    let mut known: BTreeMap<&Path, &Row> = BTreeMap::new();
    for row in rows {
        let shown = row.path.display();
        if whole && !row.path.is_file() {
            let (expected, found) = ("an image file", format!("no file {shown}"));
            let remedy = "correct the path, which is relative to the folder of the CSV file, or set `on_bad_sample` to skip to \
                          leave out such images";
            return Err(problem(file, row.line, expected, found, remedy));
        }
        let earlier = known.insert(&row.path, row);
        if let Some(earlier) = earlier {
            let found = match earlier.label == row.label {
                false => format!("{shown} with \"{}\" and \"{}\"", earlier.label, row.label),
                true => format!("{shown}, which is also in line {}", earlier.line),
            };
            let expected = "each image once";
            return Err(problem(file, row.line, expected, found, "remove one of the lines"));
        }
    }
    Ok(())
}

fn problem(file: &Path, line: u64, expected: &str, found: String, remedy: &'static str) -> Error {
    Error::Table { path: file.to_owned(), line, expected: expected.to_owned(), found, remedy }
}

#[cfg(test)]
mod tests {
    use super::super::store::Store;
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    /// A folder with some files, which are not opened, and a list.
    fn listed(text: &str) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["a.png", "b/a.png", "b/c.png", "d, e.png"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let file = folder.path().join("list.csv");
        fs::write(&file, text).unwrap();
        (folder, file)
    }

    #[test]
    fn names_are_numbered_in_order_and_splits_are_told_apart() {
        let text = "\u{feff}Filename,id,Label,Split\na.png,7,dog,train\nb/a.png,8,cat,Validation\n\
                    b/c.png,9,cat,train\n\"d, e.png\",10,emu,TRAIN\n";
        let (folder, file) = listed(text);
        let splits = open(&file, true).unwrap();
        assert_eq!(splits.iter().map(Split::name).collect::<Vec<_>>(), ["train", "val"]);
        let names = ["cat", "dog", "emu"].map(str::to_owned);
        assert_eq!(splits[0].class_names(), Some(&names[..]));
        assert_eq!((splits[0].labels(), splits[1].labels()), (&[1, 0, 2][..], &[0][..]));
        let Store::Files(files) = &*splits[0].store else { unreachable!() };
        let paths: Vec<PathBuf> = (0..3).map(|i| files.path(i).unwrap()).collect();
        assert_eq!(paths, ["a.png", "b/c.png", "d, e.png"].map(|name| folder.path().join(name)));
    }

    #[test]
    fn domains_are_groups() {
        let text = "path,label,split,domain\na.png,0,test,photo\nb/a.png,1,train,art\nb/c.png,1,test,art\n";
        let (_folder, file) = listed(text);
        let splits = open(&file, true).unwrap();
        let names = ["art", "photo"].map(str::to_owned);
        assert_eq!(splits[1].groups(), Some((&[1, 0][..], &names[..])));
        assert_eq!(splits[1].subset(&[1], "x").unwrap().groups().unwrap().0, [0]);
        assert_eq!(splits[1].range(0..1).groups().unwrap().0, [1]);
        let (_folder, file) = listed("path,label,domain\na.png,0,\n");
        assert!(open(&file, true).unwrap_err().to_string().contains("expected a domain"));
    }

    #[test]
    fn whole_numbers_are_indices() {
        let (_folder, file) = listed("image,target\na.png,10\nb/a.png, 2\n");
        let splits = open(&file, true).unwrap();
        assert_eq!((splits[0].name(), splits[0].class_names()), ("all", None));
        assert_eq!(splits[0].labels(), [10, 2]);
    }

    #[test]
    fn problems_name_the_line() {
        for (text, parts) in [
            (
                "name,label\na.png,dog\n",
                ["line 1", "a column for the image", "\"name\", \"label\""],
            ),
            ("path,name\na.png,dog\n", ["line 1", "a column for its label", "\"path\", \"name\""]),
            ("path,label\na.png,dog\nx.png,cat\n", ["line 3", "x.png", "relative to the folder"]),
            ("path,label\na.png,\n", ["line 2", "a label", "an empty field"]),
            ("path,label\na.png\n", ["line 2", "1 of 2 fields", "correct"]),
            ("path,label\na.png,dog\na.png,cat\n", ["line 3", "\"dog\" and \"cat\"", "remove"]),
            ("path,label\na.png,dog\na.png,dog\n", ["line 3", "also in line 2", "remove"]),
            ("path,label,class\na.png,1,dog\n", ["line 1", "one column", "\"label\", \"class\""]),
            ("path,label\na.png,100000\n", ["line 2", "below 100000", "found 100000"]),
            ("path,label,split\na.png,dog,dev\n", ["line 2", "train, val or test", "\"dev\""]),
        ] {
            let (_folder, file) = listed(text);
            let error = open(&file, true).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let (_folder, file) = listed("path,label\n");
        assert!(matches!(open(&file, true), Err(Error::Empty { .. })));
        fs::write(&file, b"path,label\na.png,\xff\n").unwrap();
        assert!(open(&file, true).unwrap_err().to_string().contains("not UTF-8"));
        fs::write(&file, b"PK\x03\x04\0\0").unwrap();
        assert!(open(&file, true).is_err());
    }
}
