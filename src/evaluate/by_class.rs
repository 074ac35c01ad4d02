//! Figures of each class and of each group of images, and the confusion matrix.

use super::calibration::of_each_class;
use super::{Estimate, Scores, ece_of, mean_stderr};
use crate::predictions::Predictions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Accuracy and losses by class and by group. Of the logits as they are, at T = 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByClass {
    /// Every class of the model, in order.
    pub classes: Vec<ClassFigures>,
    /// The cells of the confusion matrix that are not zero: class of the label, predicted class, number of
    /// images. In order of label, then prediction.
    pub confusion: Vec<[usize; 3]>,
    /// The class of lowest accuracy among those with images. Of equal ones, the one with the higher loss.
    pub worst_class: Option<usize>,
    /// The groups, if the data set has any, in order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupFigures>,
    /// Position in `groups` of the group of lowest accuracy. Of equal ones, the one with the higher loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_group: Option<usize>,
}

/// Figures of one class. Means over the images of the class, except `ece`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Name of the class, or its number if the model has no names.
    pub name: String,
    /// Number of images with this label.
    pub images: usize,
    /// Number of images predicted as this class.
    pub predicted: usize,
    /// Fraction of the class's images that are classified correctly (recall); absent without images.
    pub top1: Option<f64>,
    /// Its standard error.
    pub top1_stderr: Option<f64>,
    /// Mean cross-entropy of the class's images; absent without images.
    pub nll: Option<f64>,
    /// Its standard error.
    pub nll_stderr: Option<f64>,
    /// Calibration error of the class's probability, over all images: Σ over bins of (images in the bin / N)
    /// · |fraction of the class − mean probability|. The mean over classes is `ece_class_wise`.
    pub ece: f64,
    /// Its standard error (jackknife).
    pub ece_stderr: Option<f64>,
}

/// Figures of one group of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupFigures {
    /// Name of the group.
    pub name: String,
    /// Number of images.
    pub images: usize,
    /// Fraction classified correctly.
    pub top1: f64,
    /// Its standard error.
    pub top1_stderr: Option<f64>,
    /// Mean cross-entropy.
    pub nll: f64,
    /// Its standard error.
    pub nll_stderr: Option<f64>,
    /// Expected calibration error of the top class, as [`ece_of`].
    pub ece: f64,
    /// Its standard error (jackknife).
    pub ece_stderr: Option<f64>,
}

/// The figures by class, with the model's class names, and by group: each image's group, as a position in the
/// names of the groups. Groups without images are left out.
pub fn by_class(
    predictions: &Predictions,
    names: Option<&[String]>,
    groups: Option<(&[u32], &[String])>,
) -> ByClass {
    let scores = Scores::at(predictions, |_| 1.0);
    let labels = predictions.labels();
    let mut cells: BTreeMap<[usize; 2], usize> = BTreeMap::new();
    for pair in predictions.map(|_, row, label| [label, largest(row)]) {
        *cells.entry(pair).or_default() += 1;
    }
    let confusion: Vec<[usize; 3]> =
        cells.into_iter().map(|([label, predicted], n)| [label, predicted, n]).collect();
    let mut predicted = vec![0; predictions.classes()];
    confusion.iter().for_each(|&[_, class, n]| predicted[class] += n);
    let mut images: Vec<Vec<usize>> = vec![Vec::new(); predictions.classes()];
    labels.iter().enumerate().for_each(|(i, &label)| images[label as usize].push(i));
    let figures = |(class, (own, ece)): (usize, (&Vec<usize>, Estimate))| {
        let mean = |values: &[f64]| (!own.is_empty()).then(|| mean_of(values, own));
        let (top1, nll) = (mean(&scores.top1), mean(&scores.nll));
        let name = names.and_then(|names| names.get(class)).cloned();
        ClassFigures {
            name: name.unwrap_or_else(|| class.to_string()),
            images: own.len(),
            predicted: predicted[class],
            top1: top1.map(|e| e.mean),
            top1_stderr: top1.and_then(|e| e.stderr),
            nll: nll.map(|e| e.mean),
            nll_stderr: nll.and_then(|e| e.stderr),
            ece: ece.mean,
            ece_stderr: ece.stderr,
        }
    };
    let ece = of_each_class(predictions, |_| 1.0);
    let classes: Vec<ClassFigures> = images.iter().zip(ece).enumerate().map(figures).collect();
    let rated = classes.iter().enumerate().filter_map(|(i, c)| Some((i, c.top1?, c.nll?)));
    let worst_class = worst(rated);
    let groups = groups.map_or(Vec::new(), |(of, names)| by_group(&scores, of, names));
    let worst_group = worst(groups.iter().enumerate().map(|(i, g)| (i, g.top1, g.nll)));
    ByClass { classes, confusion, worst_class, groups, worst_group }
}

fn by_group(scores: &Scores, of: &[u32], names: &[String]) -> Vec<GroupFigures> {
    let mut images: Vec<Vec<usize>> = vec![Vec::new(); names.len()];
    of.iter().enumerate().for_each(|(i, &group)| images[group as usize].push(i));
    let filled = names.iter().zip(&images).filter(|(_, own)| !own.is_empty());
    let figures = |(name, own): (&String, &Vec<usize>)| {
        let (top1, nll) = (mean_of(&scores.top1, own), mean_of(&scores.nll, own));
        let ece = ece_of(&scores.subset(own));
        GroupFigures {
            name: name.clone(),
            images: own.len(),
            top1: top1.mean,
            top1_stderr: top1.stderr,
            nll: nll.mean,
            nll_stderr: nll.stderr,
            ece: ece.mean,
            ece_stderr: ece.stderr,
        }
    };
    filled.map(figures).collect()
}

impl ByClass {
    /// Classes with images, lowest accuracy first; of equal ones, the highest loss first.
    pub fn worst_first(&self) -> Vec<&ClassFigures> {
        let mut all: Vec<&ClassFigures> =
            self.classes.iter().filter(|class| class.images > 0).collect();
        all.sort_by(|a, b| {
            let key = |c: &ClassFigures| (c.top1.unwrap_or(0.0), -c.nll.unwrap_or(0.0));
            let (a, b) = (key(a), key(b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        all
    }

    /// Cells off the diagonal, most images first: class of the label, predicted class, number of images.
    pub fn confusions(&self) -> Vec<[usize; 3]> {
        let mut all: Vec<[usize; 3]> =
            self.confusion.iter().filter(|cell| cell[0] != cell[1]).copied().collect();
        all.sort_by_key(|cell| std::cmp::Reverse(cell[2]));
        all
    }

    /// The table of classes as CSV: a row per class.
    ///
    /// # Errors
    /// Those of the writer; none in practice, since it writes to memory.
    pub fn classes_csv(&self) -> csv::Result<Vec<u8>> {
        let mut out = csv::Writer::from_writer(Vec::new());
        out.write_record([
            "class",
            "name",
            "images",
            "predicted",
            "top1",
            "top1_stderr",
            "nll",
            "nll_stderr",
            "ece",
            "ece_stderr",
        ])?;
        let text = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
        for (i, c) in self.classes.iter().enumerate() {
            out.write_record([
                i.to_string(),
                c.name.clone(),
                c.images.to_string(),
                c.predicted.to_string(),
                text(c.top1),
                text(c.top1_stderr),
                text(c.nll),
                text(c.nll_stderr),
                c.ece.to_string(),
                text(c.ece_stderr),
            ])?;
        }
        out.into_inner().map_err(|error| error.into_error().into())
    }

    /// The confusion matrix as CSV: a row per label, a column per predicted class, with names.
    ///
    /// # Errors
    /// Those of the writer; none in practice, since it writes to memory.
    pub fn confusion_csv(&self) -> csv::Result<Vec<u8>> {
        let mut out = csv::Writer::from_writer(Vec::new());
        let names = self.classes.iter().map(|class| class.name.as_str());
        out.write_record(std::iter::once("label").chain(names))?;
        // The cells are in order of the labels.
        let mut cells = self.confusion.iter().peekable();
        for (label, class) in self.classes.iter().enumerate() {
            let mut row = vec![0; self.classes.len()];
            while let Some(&[_, predicted, n]) = cells.next_if(|cell| cell[0] == label) {
                row[predicted] = n;
            }
            let cells = row.iter().map(usize::to_string);
            out.write_record(std::iter::once(class.name.clone()).chain(cells))?;
        }
        out.into_inner().map_err(|error| error.into_error().into())
    }
}

/// The class with the largest logit; of equal ones, the lowest.
fn largest(row: &[f64]) -> usize {
    let better = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
    (1..row.len()).fold(0, better)
}

fn mean_of(values: &[f64], images: &[usize]) -> Estimate {
    mean_stderr(&images.iter().map(|&i| values[i]).collect::<Vec<_>>())
}

fn worst(rated: impl Iterator<Item = (usize, f64, f64)>) -> Option<usize> {
    rated.min_by(|a, b| a.1.total_cmp(&b.1).then(b.2.total_cmp(&a.2))).map(|(i, ..)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p() -> Predictions {
        // Softmax of ln 3, 0 is 3/4, 1/4. The classes of the rows: 0, 1, 0, 0.
        let l = 3f64.ln();
        Predictions::new(vec![l, 0.0, 0.0, l, l, 0.0, l, 0.0], 2, &[0, 0, 1, 0]).unwrap()
    }

    #[test]
    fn classes_are_counted_by_hand() {
        let names = ["cat".to_owned(), "dog".to_owned()];
        let found = by_class(&p(), Some(&names), None);
        assert_eq!(found.confusion, [[0, 0, 2], [0, 1, 1], [1, 0, 1]]);
        let [cat, dog] = &found.classes[..] else { panic!("two classes") };
        assert_eq!((cat.images, cat.predicted, dog.images, dog.predicted), (3, 3, 1, 1));
        assert_eq!((cat.name.as_str(), cat.top1, dog.top1), ("cat", Some(2.0 / 3.0), Some(0.0)));
        // Of 1, 0, 1: s² = 1/3, so s/√3 = 1/3.
        assert!((cat.top1_stderr.unwrap() - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(dog.top1_stderr, None);
        let nll = (2.0 * (4f64 / 3.0).ln() + 4f64.ln()) / 3.0;
        assert!((cat.nll.unwrap() - nll).abs() < 1e-15);
        // Cats at p = 3/4: two of three images; at p = 1/4: one of one. |2 − 9/4|/4 + |1 − 1/4|/4 = 1/4.
        assert!((cat.ece - 0.25).abs() < 1e-15 && (dog.ece - 0.25).abs() < 1e-15);
        assert_eq!(found.worst_class, Some(1));
        assert_eq!(found.worst_first()[0].name, "dog");
        assert_eq!(found.confusions(), [[0, 1, 1], [1, 0, 1]]);
    }

    #[test]
    fn groups_have_their_own_figures() {
        let names = ["sketch".to_owned(), "none".to_owned(), "photo".to_owned()];
        let found = by_class(&p(), None, Some((&[2, 0, 0, 2], &names)));
        let [sketch, photo] = &found.groups[..] else { panic!("two groups") };
        assert_eq!((sketch.name.as_str(), sketch.images, sketch.top1), ("sketch", 2, 0.0));
        assert_eq!((photo.name.as_str(), photo.images, photo.top1), ("photo", 2, 1.0));
        // Confidence 3/4 throughout, and accuracies 0 and 1.
        assert!((sketch.ece - 0.75).abs() < 1e-15 && (photo.ece - 0.25).abs() < 1e-15);
        assert_eq!((found.worst_group, found.classes[1].name.as_str()), (Some(0), "1"));
    }

    #[test]
    fn a_class_without_images_has_no_accuracy() {
        let p = Predictions::new(vec![0.0, 1.0, 0.0], 3, &[1]).unwrap();
        let found = by_class(&p, None, None);
        assert_eq!((found.classes[2].images, found.classes[2].top1), (0, None));
        assert_eq!(found.worst_class, Some(1));
        let text = String::from_utf8(found.classes_csv().unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("class,name,images,predicted,top1,top1_stderr,nll"), "{text}");
        assert!(
            lines[1].starts_with("0,0,0,0,,,,,") && lines[2].starts_with("1,1,1,1,1,,"),
            "{text}"
        );
        let matrix = String::from_utf8(found.confusion_csv().unwrap()).unwrap();
        assert_eq!(matrix, "label,0,1,2\n0,0,0,0\n1,0,1,0\n2,0,0,0\n");
    }
}
