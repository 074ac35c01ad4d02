//! IDX folders: the format of MNIST and Fashion-MNIST (LeCun, Cortes, Burges), gzipped or not.
//!
//! An IDX file consists of the bytes 0, 0, type (8: unsigned byte), rank; then one big-endian u32
//! per dimension; then the values.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::store::ImageBuffer;
use super::{Error, Split, missing};

/// File prefixes and the split of each.
const SPLITS: [(&str, &str); 3] = [("train", "train"), ("val", "val"), ("t10k", "test")];

/// Reads every split of an IDX folder: `train-*`, `val-*` and `t10k-*` (the test split), each a
/// pair of `images-idx3-ubyte` and `labels-idx1-ubyte`. Names may end in `.gz` and may have a dot
/// (`train-images.idx3-ubyte`). `None` if there is no such file. The format has no class names; an
/// optional file `classes.txt` lists them, one per line, in the labels' order.
///
/// # Errors
/// [`Error::Missing`] if one file of a pair is missing; [`Error::Format`], [`Error::Truncated`],
/// [`Error::Oversized`], [`Error::Gzip`], [`Error::Counts`] and [`Error::Empty`] for invalid files.
pub fn open(folder: &Path) -> Result<Option<Vec<Split>>, Error> {
    let mut splits = Vec::new();
    for (prefix, name) in SPLITS {
        let images = find(folder, &format!("{prefix}-images"), 3);
        let labels = find(folder, &format!("{prefix}-labels"), 1);
        match (images, labels) {
            (Some(images), Some(labels)) => splits.push(read(folder, name, [&images, &labels])?),
            (None, None) => {}
            (None, Some(other)) => {
                return Err(half(folder, &format!("{prefix}-images-idx3-ubyte"), &other));
            }
            (Some(other), None) => {
                return Err(half(folder, &format!("{prefix}-labels-idx1-ubyte"), &other));
            }
        }
    }
    Ok((!splits.is_empty()).then_some(splits))
}

/// The first spelling of a file's name that exists.
fn find(folder: &Path, stem: &str, rank: u8) -> Option<PathBuf> {
    ["-", "."]
        .iter()
        .flat_map(|dash| ["", ".gz"].map(|gz| format!("{stem}{dash}idx{rank}-ubyte{gz}")))
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

fn half(folder: &Path, absent: &str, present: &Path) -> Error {
    Error::Missing {
        path: folder.join(absent),
        expected: format!("the file that belongs to {}", present.display()),
        found: "no such file, with or without .gz".into(),
        remedy: "add the missing file, or remove the other".into(),
    }
}

/// File with the class names.
const NAMES: &str = "classes.txt";

/// Maximum number of bytes read from it.
const MOST: u64 = 1 << 20;

/// The class names, one per line and unique, at least as many as there are labels.
pub(super) fn class_names(folder: &Path, labels: &[u32]) -> Result<Option<Vec<String>>, Error> {
    let path = folder.join(NAMES);
    if !path.is_file() {
        return Ok(None);
    }
    let mut text = String::new();
    let read = File::open(&path).and_then(|f| f.take(MOST).read_to_string(&mut text));
    read.map_err(|source| Error::Read { path: path.clone(), source })?;
    let names: Vec<String> = text.trim_end().lines().map(|name| name.trim().to_owned()).collect();
    let wrong = |line: usize, expected: &str, found: String| Error::Format {
        path: path.clone(),
        place: format!("line {line}"),
        expected: expected.into(),
        found,
        remedy: "write one name per line, in the labels' order, or remove the file".into(),
    };
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    if names.len() < classes {
        let found = format!("the end, and a label {}", classes - 1);
        return Err(wrong(names.len() + 1, "one more class name", found));
    }
    let mut seen = HashSet::new();
    match names.iter().position(|name| name.is_empty() || !seen.insert(name)) {
        Some(at) => Err(wrong(at + 1, "a unique name", format!("\"{}\"", names[at]))),
        None => Ok(Some(names)),
    }
}

fn read(folder: &Path, name: &str, [images, labels]: [&Path; 2]) -> Result<Split, Error> {
    let pixels = values::<3>(images)?;
    let classes = values::<1>(labels)?;
    let [n, h, w] = pixels.shape;
    if n != classes.shape[0] {
        return Err(Error::Counts {
            labels: labels.display().to_string(),
            images: n,
            found: classes.shape[0],
        });
    }
    if n == 0 || h == 0 || w == 0 {
        return Err(Error::Empty { place: images.display().to_string() });
    }
    let labels: Vec<u32> = classes.bytes.iter().map(|&label| u32::from(label)).collect();
    let names = class_names(folder, &labels)?;
    let images = ImageBuffer { bytes: pixels.bytes, start: 0, shape: [1, h, w], prepared: false };
    Ok(Split::new(&folder.display().to_string(), name, images, labels, names))
}

/// An IDX file of unsigned bytes.
struct Values<const RANK: usize> {
    shape: [usize; RANK],
    bytes: Vec<u8>,
}

/// Reads a whole file. Memory grows with the bytes read, not with the sizes in the header, and
/// decompression stops at the size that the header states.
fn values<const RANK: usize>(path: &Path) -> Result<Values<RANK>, Error> {
    let gzipped = path.extension().is_some_and(|e| e == "gz");
    let io = |source| {
        let path = path.to_owned();
        if gzipped { Error::Gzip { path, source } } else { Error::Read { path, source } }
    };
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let file = BufReader::new(file);
    let mut reader: Box<dyn Read> =
        if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };

    let length = 4 + 4 * RANK;
    let mut header = Vec::new();
    reader.by_ref().take(length as u64).read_to_end(&mut header).map_err(io)?;
    let truncated = |expected, found| Error::Truncated { path: path.to_owned(), expected, found };
    let (words, _) = header.as_chunks::<4>();
    let Some(([magic], dimensions)) = words.split_first_chunk::<1>() else {
        return Err(truncated(length as u64, header.len() as u64));
    };
    let expected = [0, 0, 8, RANK as u8];
    if *magic != expected {
        return Err(Error::Format {
            path: path.to_owned(),
            place: "magic number, bytes 0 to 3".into(),
            expected: format!("{expected:?} (unsigned bytes, rank {RANK})"),
            found: format!("{magic:?}"),
            remedy: "check that images and labels are not swapped, and that a gzipped \
                     file ends in .gz"
                .into(),
        });
    }
    let Ok(dimensions) = <[[u8; 4]; RANK]>::try_from(dimensions) else {
        return Err(truncated(length as u64, header.len() as u64));
    };
    let shape = dimensions.map(|d| u32::from_be_bytes(d) as usize);
    let size = shape.iter().try_fold(1usize, |size, &d| size.checked_mul(d));
    let Some(size) = size.and_then(|size| i64::try_from(size).ok()).map(i64::cast_unsigned) else {
        return Err(Error::Format {
            path: path.to_owned(),
            place: "dimensions, from byte 4".into(),
            expected: "a size that fits in memory".into(),
            found: format!("{shape:?}"),
            remedy: "the header is damaged; download the file again".into(),
        });
    };
    let total = size + length as u64;
    let mut bytes = Vec::new();
    // One byte beyond the stated size detects an oversized file and makes gzip verify its checksum.
    reader.take(size + 1).read_to_end(&mut bytes).map_err(io)?;
    match bytes.len() as u64 {
        found if found < size => Err(truncated(total, found + length as u64)),
        found if found > size => Err(Error::Oversized { path: path.to_owned(), expected: total }),
        _ => Ok(Values { shape, bytes }),
    }
}

/// Checks that `path` is a folder.
pub(super) fn check_folder(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    let remedy = "give a folder: IDX, CIFAR, Parquet or tar archives, or a folder per class with image files; a CSV file of paths \
                  and labels; a Parquet file; a tar archive; or a safetensors file of prepared images as tensors:FILE";
    Err(missing(path, "a folder, a CSV file, a Parquet file or a tar archive", remedy))
}

#[cfg(test)]
#[path = "idx_tests.rs"]
mod tests;
