//! Prepared images: safetensors files with `pixel_values` (N,C,H,W) f32, already normalised, and
//! `labels` (N) i64. This format accepts images from any preprocessing pipeline.

use std::fs;
use std::path::Path;

use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use super::store::ImageBuffer;
use super::{Error, Split, missing};

/// Files of a folder and the split of each.
const SPLITS: [(&str, &str); 4] = [
    ("train.safetensors", "train"),
    ("val.safetensors", "val"),
    ("validation.safetensors", "val"),
    ("test.safetensors", "test"),
];

/// Reads a file as one split called `all`, or a folder with any of `train.safetensors`,
/// `val.safetensors` (or `validation.safetensors`) and `test.safetensors`.
///
/// The optional metadata entry `class_names` is a JSON list of strings, one per class.
///
/// # Errors
/// [`Error::Missing`] if there is no file; [`Error::SafeTensors`] for a malformed one;
/// [`Error::Format`] for a missing tensor, a wrong type or shape, or a label out of range;
/// [`Error::Counts`], [`Error::Empty`], [`Error::NotFinite`].
pub fn open(path: &Path) -> Result<Vec<Split>, Error> {
    if path.is_file() {
        return Ok(vec![read(path, "all")?]);
    }
    if !path.is_dir() {
        return Err(missing(path, "a safetensors file or folder", "check the path"));
    }
    let mut splits: Vec<Split> = Vec::new();
    for (file, name) in SPLITS {
        let file = path.join(file);
        if file.is_file() && !splits.iter().any(|split| split.name() == name) {
            splits.push(read(&file, name)?);
        }
    }
    if splits.is_empty() {
        return Err(Error::Missing {
            path: path.to_owned(),
            expected: "train.safetensors, val.safetensors or test.safetensors".into(),
            found: "none of them".into(),
            remedy: "rename the files, or give a single file".into(),
        });
    }
    Ok(splits)
}

fn read(path: &Path, name: &str) -> Result<Split, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|source| Error::SafeTensors { path: path.to_owned(), source })?;
    let file = File { path, metadata: &metadata };

    let pixels = file.tensor("pixel_values", Dtype::F32, "(N,C,H,W) f32")?;
    let &[n, c, h, w] = pixels.shape.as_slice() else {
        return Err(file.wrong("pixel_values", "shape (N,C,H,W)", format!("{:?}", pixels.shape)));
    };
    let targets = file.tensor("labels", Dtype::I64, "(N) i64")?;
    let &[found] = targets.shape.as_slice() else {
        return Err(file.wrong("labels", "shape (N)", format!("{:?}", targets.shape)));
    };
    if n != found {
        let labels = format!("{}, labels", path.display());
        return Err(Error::Counts { labels, images: n, found });
    }
    if n == 0 || c == 0 || h == 0 || w == 0 {
        return Err(Error::Empty { place: path.display().to_string() });
    }
    // The parser has checked that the offsets lie in the file and match the shapes.
    let start = 8 + header;
    let slice = |info: &TensorInfo| {
        let (from, to) = info.data_offsets;
        bytes.get(start + from..start + to).unwrap_or_default()
    };
    check_finite(path, slice(pixels), c * h * w)?;
    let labels = labels(&file, slice(targets))?;
    let class_names = file.class_names(&labels)?;
    let start = start + pixels.data_offsets.0;
    let images = ImageBuffer { bytes, start, shape: [c, h, w], prepared: true };
    Ok(Split::new(&path.display().to_string(), name, images, labels, class_names))
}

/// A parsed header and its file.
struct File<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
}

impl File<'_> {
    fn wrong(&self, place: &str, expected: &str, found: String) -> Error {
        Error::Format {
            path: self.path.to_owned(),
            place: place.to_owned(),
            expected: expected.to_owned(),
            found,
            remedy: "write pixel_values (N,C,H,W) f32, already normalised, and labels (N) i64"
                .into(),
        }
    }

    fn tensor(&self, name: &str, dtype: Dtype, expected: &str) -> Result<&TensorInfo, Error> {
        let Some(info) = self.metadata.info(name) else {
            let names = self.metadata.offset_keys();
            return Err(self.wrong(name, expected, format!("no such tensor among {names:?}")));
        };
        if info.dtype != dtype {
            return Err(self.wrong(name, expected, format!("{:?}", info.dtype)));
        }
        Ok(info)
    }

    /// The class names, at least as many as there are labels.
    fn class_names(&self, labels: &[u32]) -> Result<Option<Vec<String>>, Error> {
        let wrong = |expected: &str, found: String| Error::Format {
            path: self.path.to_owned(),
            place: "metadata, class_names".into(),
            expected: expected.into(),
            found,
            remedy: "write a name for each class in the labels' order, or no class_names".into(),
        };
        let entry = self.metadata.metadata().as_ref().and_then(|m| m.get("class_names"));
        let Some(text) = entry else { return Ok(None) };
        let names: Vec<String> = serde_json::from_str(text).map_err(|error| {
            wrong("a JSON list of strings", format!("an entry that is not one: {error}"))
        })?;
        match labels.iter().max().filter(|&&label| label as usize >= names.len()) {
            Some(label) => {
                let found = format!("{} names, and a label {label}", names.len());
                Err(wrong("a name for each class", found))
            }
            None => Ok(Some(names)),
        }
    }
}

/// Checks that no image has a NaN or an infinity.
fn check_finite(path: &Path, bytes: &[u8], per_image: usize) -> Result<(), Error> {
    let (values, _) = bytes.as_chunks::<4>();
    let finite = |value: &[u8; 4]| f32::from_le_bytes(*value).is_finite();
    let bad = values.par_chunks(per_image).position_first(|image| !image.iter().all(finite));
    let Some(index) = bad else { return Ok(()) };
    let image = values.iter().skip(index * per_image);
    let found = image.map(|v| f32::from_le_bytes(*v)).find(|v| !v.is_finite());
    Err(Error::NotFinite { path: path.to_owned(), index, found: found.unwrap_or(f32::NAN) })
}

fn labels(file: &File, bytes: &[u8]) -> Result<Vec<u32>, Error> {
    let (values, _) = bytes.as_chunks::<8>();
    let label = |(index, value): (usize, &[u8; 8])| {
        let value = i64::from_le_bytes(*value);
        u32::try_from(value).map_err(|_| {
            let place = format!("labels, image {index}");
            file.wrong(&place, "a class number from 0", value.to_string())
        })
    };
    values.iter().enumerate().map(label).collect()
}

#[cfg(test)]
#[path = "tensors_tests.rs"]
mod tests;
