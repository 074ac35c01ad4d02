//! A split: immutable, shared images and labels in stored order.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Error;
use super::files::{DamagedFile, Files};
use super::store::{ImageBuffer, Store};

/// The groups of images, such as domains.
#[derive(Clone, Debug)]
struct Groups {
    names: Arc<Vec<String>>,
    /// Of each image, a position in `names`.
    of: Vec<u32>,
}

impl Groups {
    fn at(&self, images: impl Iterator<Item = usize>) -> Arc<Self> {
        let of = images.filter_map(|image| self.of.get(image).copied()).collect();
        Arc::new(Self { names: self.names.clone(), of })
    }
}

/// Images and labels of one part of a data set. Clones and subsets share the pixels.
#[derive(Clone, Debug)]
pub struct Split {
    name: String,
    source: Arc<str>,
    pub(super) store: Arc<Store>,
    pub(super) rows: Arc<Vec<usize>>,
    labels: Arc<Vec<u32>>,
    class_names: Option<Arc<Vec<String>>>,
    groups: Option<Arc<Groups>>,
    digests: Arc<OnceLock<[String; 2]>>,
    pub(super) skipped: usize,
}

impl Split {
    /// All of `images`, one label each.
    pub(super) fn new(
        source: &str,
        name: &str,
        images: ImageBuffer,
        labels: Vec<u32>,
        class_names: Option<Vec<String>>,
    ) -> Self {
        Self::stored(source, name, Store::Memory(images), labels, class_names)
    }

    /// Images in files, one label each.
    pub(super) fn of_files(
        source: &str,
        name: &str,
        files: Files,
        labels: Vec<u32>,
        class_names: Option<Vec<String>>,
    ) -> Self {
        Self::stored(source, name, Store::Files(files), labels, class_names)
    }

    fn stored(
        source: &str,
        name: &str,
        store: Store,
        labels: Vec<u32>,
        class_names: Option<Vec<String>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            source: source.into(),
            store: Arc::new(store),
            rows: Arc::new((0..labels.len()).collect()),
            labels: Arc::new(labels),
            class_names: class_names.map(Arc::new),
            groups: None,
            digests: Arc::default(),
            skipped: 0,
        }
    }

    /// The same split with a group for each image: a position in `names`.
    pub(super) fn grouped(self, of: Vec<u32>, names: Vec<String>) -> Self {
        Self { groups: Some(Arc::new(Groups { names: Arc::new(names), of })), ..self }
    }

    /// Raw images in memory: `levels` is `(N,H,W,C)` and `shape` is (C, H, W), with C = 1 or 3.
    ///
    /// # Errors
    /// [`Error::Empty`] without labels; [`Error::Setting`] if the sizes are inconsistent.
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
        let images = ImageBuffer { bytes: levels, start: 0, shape, prepared: false };
        Ok(Self::new("memory", name, images, labels, None))
    }

    /// Name of the split: from its file, or from the role it was split off for.
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

    /// The file of an image; `None` if it is not in a file of its own.
    pub fn file(&self, image: usize) -> Option<std::path::PathBuf> {
        match &*self.store {
            Store::Files(files) => files.path(*self.rows.get(image)?),
            _ => None,
        }
    }

    /// Class names, if the data set has them.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref().map(Vec::as_slice)
    }

    /// The group of each image, as a position in the groups' names, and these names, if the data set has groups.
    pub fn groups(&self) -> Option<(&[u32], &[String])> {
        self.groups.as_ref().map(|groups| (&groups.of[..], &groups.names[..]))
    }

    /// Channels of the images. 3 for image files, including grey ones, because common data loaders
    /// convert them to RGB.
    pub fn channels(&self) -> usize {
        self.image_shape().map_or(3, |[channels, _, _]| channels)
    }

    /// Channels, height and width of every stored image; `None` for image files, whose sizes may
    /// differ.
    pub fn image_shape(&self) -> Option<[usize; 3]> {
        match &*self.store {
            Store::Memory(images) => Some(images.shape),
            Store::Files(_) => None,
        }
    }

    /// Whether the images are normalised tensors, which are passed to the model unchanged.
    pub fn prepared(&self) -> bool {
        matches!(&*self.store, Store::Memory(images) if images.prepared)
    }

    /// Number of image files left out of the whole split; see [`Split::sound`].
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The damaged files of this split among those decoded so far, in stored order. Their images
    /// are used like any other.
    pub fn damaged(&self) -> Vec<DamagedFile> {
        let Store::Files(files) = &*self.store else { return Vec::new() };
        let damaged = files.damaged();
        self.rows.iter().filter_map(|row| damaged.get(row).cloned()).collect()
    }

    /// Whether images are decoded from files on access.
    pub fn decodes(&self) -> bool {
        matches!(&*self.store, Store::Files(_))
    }

    /// SHA-256 of the split's content, in hexadecimal.
    ///
    /// Images in memory: `u8` or `f32`, the numbers N, C, H, W (8 bytes little-endian each), the
    /// images' bytes in order, the labels (4 bytes each). Image files: `files`, N (8 bytes), the
    /// SHA-256 of each file's bytes in order (32 bytes; zeros if it cannot be read), the labels. So
    /// the digest does not depend on names and folders. It is computed once, which reads each file
    /// once.
    pub fn digest(&self) -> &str {
        &self.digests()[0]
    }

    /// The digest of the images and their order, without labels.
    pub fn image_digest(&self) -> &str {
        &self.digests()[1]
    }

    fn digests(&self) -> &[String; 2] {
        self.digests.get_or_init(|| {
            let mut hash = Sha256::new();
            match &*self.store {
                Store::Memory(images) => {
                    hash.update(if images.prepared { &b"f32"[..] } else { b"u8" });
                    let [c, h, w] = images.shape;
                    for n in [self.len(), c, h, w] {
                        hash.update((n as u64).to_le_bytes());
                    }
                    let all = self.rows.iter().filter_map(|&row| images.get(row));
                    all.for_each(|image| hash.update(image));
                }
                Store::Files(files) => {
                    hash.update(b"files");
                    hash.update((self.len() as u64).to_le_bytes());
                    let hashes: Vec<_> = self.rows.par_iter().map(|&row| files.hash(row)).collect();
                    hashes.iter().for_each(|file| hash.update(file));
                }
            }
            let images = hash.clone();
            self.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
            [hash, images].map(|hash| {
                hash.finalize().iter().fold(String::new(), |mut hex, byte| {
                    // Writing to a string cannot fail.
                    let _ = write!(hex, "{byte:02x}");
                    hex
                })
            })
        })
    }

    /// The same images with the classes `names`: label y becomes `map[y]`.
    ///
    /// # Errors
    /// [`Error::Label`] for a label that is not in `map`.
    pub(super) fn relabelled(&self, map: &[u32], names: &[String]) -> Result<Split, Error> {
        self.check_labels(map.len())?;
        let labels = self.labels.iter().filter_map(|&y| map.get(y as usize).copied()).collect();
        Ok(Split {
            labels: Arc::new(labels),
            class_names: Some(Arc::new(names.to_vec())),
            digests: Arc::default(),
            ..self.clone()
        })
    }

    pub(super) fn row(&self, index: usize) -> Result<usize, Error> {
        self.rows.get(index).copied().ok_or_else(|| Error::Index {
            place: self.place(),
            index,
            len: self.len(),
        })
    }

    /// The same images, all with label 0, for uses that ignore labels.
    pub fn unlabelled(&self) -> Split {
        let labels = Arc::new(vec![0; self.len()]);
        Split { labels, class_names: None, digests: Arc::default(), ..self.clone() }
    }

    /// The images at `indices` (positions in this split), in this order, as a separate split.
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
            groups: self.groups.as_ref().map(|groups| groups.at(indices.iter().copied())),
            digests: Arc::default(),
            ..self.clone()
        })
    }

    /// Images `from..to` in stored order; the range is clipped to the split.
    pub fn range(&self, range: std::ops::Range<usize>) -> Split {
        let to = range.end.min(self.len());
        let from = range.start.min(to);
        Split {
            rows: Arc::new(self.rows.get(from..to).unwrap_or_default().to_vec()),
            labels: Arc::new(self.labels.get(from..to).unwrap_or_default().to_vec()),
            groups: self.groups.as_ref().map(|groups| groups.at(from..to)),
            digests: Arc::default(),
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

    /// Checks that prepared images have the model's shape (C, H, W). Raw images always pass,
    /// because preprocessing resizes them.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check_shape(&self, want: [usize; 3]) -> Result<(), Error> {
        match self.image_shape() {
            Some(found) if self.prepared() && found != want => {
                Err(Error::Shape { place: self.place(), want, found })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
