//! Logits and labels, validated once so that the figures cannot fail.

use rayon::prelude::*;

/// Why logits and labels are not valid predictions.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// There are no images.
    #[error("there are no images to evaluate; choose a split or subset that has images")]
    NoImages,
    /// The model has no classes.
    #[error("the logits have 0 classes, at least 1 is needed; check the checkpoint's head")]
    NoClasses,
    /// The number of logits does not match images × classes.
    #[error(
        "found {found} logits for {images} labels and {classes} classes, expected images × \
         classes; make both from the same images and checkpoint"
    )]
    Shape {
        /// Number of logits.
        found: usize,
        /// Number of labels.
        images: usize,
        /// Classes a row should have.
        classes: usize,
    },
    /// A label is outside the model's classes.
    #[error(
        "image {image}: label {label} is out of range, the model has classes 0 to {}; \
         use a checkpoint fine-tuned on these classes, or correct the labels",
        .classes - 1
    )]
    Label {
        /// Position of the image, from 0.
        image: usize,
        /// Its label.
        label: u32,
        /// Classes of the model.
        classes: usize,
    },
    /// A logit is infinite or not a number.
    #[error(
        "image {image}, class {class}: the logit is {value}, expected a finite number; \
         check the pixels and weights for values that overflow"
    )]
    NotFinite {
        /// Position of the image, from 0.
        image: usize,
        /// Class, from 0.
        class: usize,
        /// What was found.
        value: f64,
    },
    /// All rows are probability distributions.
    #[error(
        "every row of the logits is a distribution: numbers from 0 to 1 with sum 1; expected \
         logits, the head's output before softmax: give these, or the logarithms of the probabilities"
    )]
    Probabilities,
}

/// Logits (N,C) of N ≥ 1 images, finite, with one label below C each.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    values: Vec<f64>,
    labels: Vec<u32>,
    classes: usize,
}

impl Predictions {
    /// Checks and stores `values`, row-major (N,C), and `labels` (N).
    ///
    /// # Errors
    /// No images or classes, a number of logits other than N·C, a label ≥ C, a logit that is not
    /// finite.
    pub fn new(values: Vec<f64>, classes: usize, labels: &[u32]) -> Result<Self, Error> {
        if labels.is_empty() {
            return Err(Error::NoImages);
        }
        if classes == 0 {
            return Err(Error::NoClasses);
        }
        if labels.len().checked_mul(classes) != Some(values.len()) {
            return Err(Error::Shape { found: values.len(), images: labels.len(), classes });
        }
        for (image, &label) in labels.iter().enumerate() {
            if usize::try_from(label).map_or(true, |label| label >= classes) {
                return Err(Error::Label { image, label, classes });
            }
        }
        if let Some(i) = values.iter().position(|value| !value.is_finite()) {
            let (image, class) = (i / classes, i % classes);
            return Err(Error::NotFinite { image, class, value: values[i] });
        }
        Ok(Self { values, labels: labels.to_vec(), classes })
    }

    /// Refuses rows that are all probability distributions: losses of their softmax would be
    /// finite, plausible and wrong. Logits pass, since a head's rows do not all sum to 1 by chance.
    /// A single class always passes, because the two cannot be distinguished.
    ///
    /// # Errors
    /// [`Error::Probabilities`].
    pub fn check_logits(&self) -> Result<(), Error> {
        let is_distribution = |row: &[f64]| {
            let sum: f64 = row.iter().sum();
            // In f32, each of C roundings is at most 6e-8.
            row.iter().all(|z| (0.0..=1.0).contains(z)) && (sum - 1.0).abs() < 1e-4
        };
        let all = self.classes > 1 && self.values.chunks(self.classes).all(is_distribution);
        if all { Err(Error::Probabilities) } else { Ok(()) }
    }

    /// Number N of images.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// Number C of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Labels (N).
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Logits (N,C), row-major.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The images at these positions, in this order; positions past the end are ignored.
    ///
    /// # Errors
    /// No image is left.
    pub fn subset(&self, images: &[usize]) -> Result<Self, Error> {
        let kept = || images.iter().filter(|&&i| i < self.images());
        let labels: Vec<u32> = kept().map(|&i| self.labels[i]).collect();
        let rows = kept().flat_map(|&i| &self.values[i * self.classes..(i + 1) * self.classes]);
        Self::new(rows.copied().collect(), self.classes, &labels)
    }

    /// The same with class c as class `places[c]`.
    ///
    /// # Errors
    /// `places` is not a permutation of the classes.
    pub fn reordered(&self, places: &[usize]) -> Result<Self, Error> {
        let mut values = vec![f64::NAN; self.values.len()];
        for (old, new) in self.values.chunks(self.classes).zip(values.chunks_mut(self.classes)) {
            for (z, &place) in old.iter().zip(places) {
                if let Some(slot) = new.get_mut(place) {
                    *slot = *z;
                }
            }
        }
        let place = |label: &u32| places.get(*label as usize).map_or(u32::MAX, |p| *p as u32);
        let labels: Vec<u32> = self.labels.iter().map(place).collect();
        Self::new(values, self.classes, &labels)
    }

    /// `f(image, logits, label)` of every image, in order, computed on all threads.
    pub(crate) fn map<T: Send>(&self, f: impl Fn(usize, &[f64], usize) -> T + Sync) -> Vec<T> {
        let rows = self.values.par_chunks_exact(self.classes).with_min_len(64);
        rows.zip(&self.labels)
            .enumerate()
            .map(|(image, (row, &label))| f(image, row, label as usize))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_input_is_reported() {
        let new = |values: &[f64], classes, labels: &[u32]| {
            Predictions::new(values.to_vec(), classes, labels).unwrap_err()
        };
        assert_eq!(new(&[], 3, &[]), Error::NoImages);
        assert_eq!(new(&[], 0, &[0]), Error::NoClasses);
        let shape = Error::Shape { found: 3, images: 2, classes: 2 };
        assert_eq!(new(&[1.0, 2.0, 3.0], 2, &[0, 1]), shape);
        assert!(matches!(new(&[1.0], usize::MAX, &[0, 0]), Error::Shape { .. }));
        let label = new(&[1.0; 4], 2, &[0, 2]);
        assert_eq!(label, Error::Label { image: 1, label: 2, classes: 2 });
        assert!(label.to_string().contains("image 1: label 2 is out of range"), "{label}");
        assert!(label.to_string().contains("0 to 1"), "{label}");
        let infinite = new(&[1.0, 1.0, 1.0, f64::INFINITY], 2, &[0, 1]);
        assert_eq!(infinite, Error::NotFinite { image: 1, class: 1, value: f64::INFINITY });
    }

    #[test]
    fn probabilities_are_not_logits() {
        let check = |values: &[f64], classes| {
            let labels = vec![0; values.len() / classes];
            Predictions::new(values.to_vec(), classes, &labels).unwrap().check_logits()
        };
        assert_eq!(check(&[0.25, 0.75, 1.0, 0.0], 2), Err(Error::Probabilities));
        assert_eq!(check(&[0.333333, 0.333333, 0.333333], 3), Err(Error::Probabilities));
        assert_eq!(check(&[0.25, 0.75, 1.5, -0.5], 2), Ok(()));
        assert_eq!(check(&[0.25, 0.75, 0.5, 0.4], 2), Ok(()));
        assert_eq!(check(&[1.0, 1.0], 1), Ok(()));
    }

    #[test]
    fn a_subset_keeps_the_requested_order() {
        let all = Predictions::new((0..6).map(f64::from).collect(), 2, &[0, 1, 0]).unwrap();
        let some = all.subset(&[2, 1]).unwrap();
        assert_eq!((some.values(), some.labels()), ([4.0, 5.0, 2.0, 3.0].as_slice(), &[0, 1][..]));
        assert_eq!(all.subset(&[]), Err(Error::NoImages));
    }
}
