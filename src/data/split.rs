//! A split: images and labels in stored order, shared and never changed.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::augment::{Augment, Draw};
use super::transform::Transform;
use super::{Error, Preprocess};

/// Where the pixels of a data file lie: all images have one shape and follow one another.
#[derive(Debug)]
pub(super) struct Images {
    /// The bytes as read.
    pub bytes: Vec<u8>,
    /// Where the first image begins.
    pub start: usize,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// True: f32, little-endian, `(C,H,W)`, already normalised. False: u8 levels, `(H,W,C)`.
    pub prepared: bool,
}

impl Images {
    /// Bytes of one image; the readers have checked that it does not overflow.
    fn stride(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.prepared { 4 } else { 1 }
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        let from = self.start.checked_add(row.checked_mul(self.stride())?)?;
        self.bytes.get(from..from.checked_add(self.stride())?)
    }
}

/// Images and labels of one part of a data set. Clones and subsets share the pixels.
#[derive(Clone, Debug)]
pub struct Split {
    name: String,
    source: Arc<str>,
    images: Arc<Images>,
    rows: Arc<Vec<usize>>,
    labels: Arc<Vec<u32>>,
    class_names: Option<Arc<Vec<String>>>,
    digest: Arc<OnceLock<String>>,
}

impl Split {
    /// All of `images`, one label each.
    pub(super) fn new(
        source: &str,
        name: &str,
        images: Images,
        labels: Vec<u32>,
        class_names: Option<Vec<String>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            source: source.into(),
            images: Arc::new(images),
            rows: Arc::new((0..labels.len()).collect()),
            labels: Arc::new(labels),
            class_names: class_names.map(Arc::new),
            digest: Arc::default(),
        }
    }

    /// Raw images held in memory: `levels` is `(N,H,W,C)` and `shape` is (C, H, W), C being 1 or 3.
    ///
    /// # Errors
    /// [`Error::Empty`] without labels; [`Error::Setting`] if the sizes contradict one another.
    pub fn from_levels(
        name: &str,
        levels: Vec<u8>,
        shape: [usize; 3],
        labels: Vec<u32>,
    ) -> Result<Self, Error> {
        if labels.is_empty() {
            return Err(Error::Empty { place: name.to_owned() });
        }
        let per_image = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let expected = per_image.and_then(|n| n.checked_mul(labels.len()));
        if expected != Some(levels.len()) || levels.is_empty() {
            return Err(Error::Setting {
                name: "image bytes",
                expected: format!("{} images of shape {shape:?}", labels.len()),
                found: format!("{} bytes", levels.len()),
                remedy: "give one byte for each channel of each pixel",
            });
        }
        let images = Images { bytes: levels, start: 0, shape, prepared: false };
        Ok(Self::new("memory", name, images, labels, None))
    }

    /// Name of the split: that of the file it came from, or of the role it was cut for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Data set and split, for messages.
    pub fn place(&self) -> String {
        format!("{}, split {}", self.source, self.name)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Labels in stored order.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Names of the classes, where the data set has them.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref().map(Vec::as_slice)
    }

    /// Channels, height and width of every image as stored.
    pub fn image_shape(&self) -> [usize; 3] {
        self.images.shape
    }

    /// Whether the images are normalised tensors already, and are fed to the model as they are.
    pub fn prepared(&self) -> bool {
        self.images.prepared
    }

    /// SHA-256, in hexadecimal, of what the split holds: `u8` or `f32`, the numbers N, C, H, W
    /// (8 bytes little-endian each), the images' bytes in order, the labels (4 bytes each).
    ///
    /// Equal images under another name or in another file have an equal digest. Computed once.
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            let mut hash = Sha256::new();
            hash.update(if self.images.prepared { &b"f32"[..] } else { b"u8" });
            let [c, h, w] = self.images.shape;
            for n in [self.len(), c, h, w] {
                hash.update((n as u64).to_le_bytes());
            }
            self.rows.iter().filter_map(|&row| self.images.get(row)).for_each(|i| hash.update(i));
            self.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
            hash.finalize().iter().fold(String::new(), |mut hex, byte| {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        })
    }

    fn row(&self, index: usize) -> Result<usize, Error> {
        self.rows.get(index).copied().ok_or_else(|| Error::Index {
            place: self.place(),
            index,
            len: self.len(),
        })
    }

    /// The images at `indices` (positions in this split), in that order, as a split of their own.
    ///
    /// # Errors
    /// [`Error::Index`] if a position lies outside the split.
    pub fn subset(&self, indices: &[usize], name: &str) -> Result<Split, Error> {
        let rows = indices.iter().map(|&i| self.row(i)).collect::<Result<Vec<_>, _>>()?;
        let labels = indices.iter().filter_map(|&i| self.labels.get(i).copied()).collect();
        Ok(Split {
            name: name.to_owned(),
            rows: Arc::new(rows),
            labels: Arc::new(labels),
            digest: Arc::default(),
            ..self.clone()
        })
    }

    /// Images `from..to` in stored order; the range ends with the split.
    pub fn range(&self, range: std::ops::Range<usize>) -> Split {
        let to = range.end.min(self.len());
        let from = range.start.min(to);
        Split {
            rows: Arc::new(self.rows.get(from..to).unwrap_or_default().to_vec()),
            labels: Arc::new(self.labels.get(from..to).unwrap_or_default().to_vec()),
            digest: Arc::default(),
            ..self.clone()
        }
    }

    /// Checks that the model has a class for every label.
    ///
    /// # Errors
    /// [`Error::Label`] with the first label that is `classes` or more.
    pub fn check_labels(&self, classes: usize) -> Result<(), Error> {
        match self.labels.iter().position(|&label| label as usize >= classes) {
            None => Ok(()),
            Some(index) => {
                Err(Error::Label { place: self.place(), index, label: self.labels[index], classes })
            }
        }
    }

    /// Checks that prepared images have the shape (C, H, W) the model takes. Raw images pass:
    /// preprocessing brings them to any size.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check_shape(&self, want: [usize; 3]) -> Result<(), Error> {
        if self.prepared() && self.image_shape() != want {
            return Err(Error::Shape { place: self.place(), want, found: self.image_shape() });
        }
        Ok(())
    }

    /// The images at `indices` as the model takes them: `(B,C,H,W)`, contiguous.
    ///
    /// Prepared images are copied, and `preprocess` is not looked at; raw ones go through it.
    /// `augment` is the augmentation with seed and epoch: what happens to an image depends on
    /// these and on its position in this split alone, so neither the batch nor the number of
    /// threads matters.
    ///
    /// # Errors
    /// [`Error::NoPreprocess`] for raw images without preprocessing, [`Error::Preprocess`] for
    /// one that does not suit them, [`Error::Augment`] for a crop of prepared images,
    /// [`Error::Index`] for a position outside the split.
    pub fn pixels(
        &self,
        indices: &[usize],
        preprocess: Option<&Preprocess>,
        augment: Option<(&Augment, u64, u64)>,
    ) -> Result<Vec<f32>, Error> {
        let [c, h, w] = self.image_shape();
        let transform = match (self.prepared(), preprocess) {
            (true, _) => None,
            (false, Some(preprocess)) => Some(Transform::new(preprocess, self.image_shape())?),
            (false, None) => return Err(Error::NoPreprocess { place: self.place() }),
        };
        if let (None, Some((Augment { crop: Some(crop), .. }, _, _))) = (&transform, augment) {
            return Err(Error::Augment {
                item: format!("crop={crop}"),
                expected: "flip or shift only, as the images are prepared tensors".into(),
            });
        }
        let stride = transform.as_ref().map_or(c * h * w, Transform::len);
        let total = stride.checked_mul(indices.len()).ok_or_else(|| Error::Setting {
            name: "batch size",
            expected: "a batch that fits in memory".into(),
            found: indices.len().to_string(),
            remedy: "choose a smaller batch",
        })?;
        let mut out = vec![0f32; total];
        out.par_chunks_mut(stride).zip(indices).try_for_each(|(out, &index)| {
            let row = self.row(index)?;
            let bytes = self.images.get(row).ok_or_else(|| Error::Index {
                place: self.place(),
                index,
                len: self.len(),
            })?;
            let draw = match augment {
                Some((augment, seed, epoch)) => augment.draw([h, w], seed, epoch, index),
                None => Draw::default(),
            };
            match &transform {
                Some(transform) => transform.run(bytes, &draw, out),
                None => copy_prepared(bytes, [h, w], &draw, out),
            }
            Ok(())
        })?;
        Ok(out)
    }
}

/// Prepared pixels, flipped and shifted; what a shift vacates is 0, the mean of normalised images.
fn copy_prepared(bytes: &[u8], [h, w]: [usize; 2], draw: &Draw, out: &mut [f32]) {
    let (values, _) = bytes.as_chunks::<4>();
    for (plane, values) in out.chunks_mut(h * w).zip(values.chunks(h * w)) {
        for (at, out) in plane.iter_mut().enumerate() {
            *out = draw
                .source([at / w, at % w], [h, w])
                .and_then(|[y, x]| values.get(y * w + x))
                .map_or(0.0, |&value| f32::from_le_bytes(value));
        }
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
