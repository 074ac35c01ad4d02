//! Training, validation and test images of a run.

use super::FinetuneOptions;
use crate::data::{ClassError, DataInfo, DataSet, Error as DataError, Role, Split, require};
use crate::session::data_info;

/// Fraction of the training images held out if there are no other validation images.
const HELD_OUT: f64 = 0.1;

/// The images.
pub struct FinetuneImages {
    /// The training split as stored.
    pub whole: Split,
    /// The images to train on.
    pub train: Split,
    /// The images that select the best epoch.
    pub val: Option<Split>,
    /// The images for the final figures.
    pub test: Option<Split>,
    /// Fraction of `whole` held out as `val`; 0 if none was.
    pub fraction: f64,
    /// Number of classes, from the labels and class names of all splits.
    pub classes: usize,
    /// Whether `classes` comes from class names. Otherwise it comes from the highest label.
    pub named: bool,
}

impl FinetuneImages {
    /// Divides the data. The held-out images are taken from the whole training split; a range or
    /// sample is then taken from the rest. So `diagnose` finds the held-out images from the seed and
    /// the fraction alone.
    ///
    /// # Errors
    /// No training split; a range or sample that leaves no images; a label without a class name.
    pub fn divide(
        options: &FinetuneOptions,
        data: &DataSet,
        seed: u64,
    ) -> Result<FinetuneImages, DataError> {
        let whole = require(Role::Train, data.train().or(data.only()))?.clone();
        let given = data.val().cloned();
        let usual = if given.is_some() { 0.0 } else { HELD_OUT };
        let fraction = options.val_fraction.unwrap_or(usual);
        let (rest, cut) = options.fitted(fraction, seed).divide(whole.labels());
        let empty = |what: String| DataError::Empty { place: format!("{}, {what}", whole.place()) };
        if fraction > 0.0 && cut.is_empty() {
            return Err(empty(format!("{fraction} of it held out")));
        }
        if let Some(range) = options.train_range.as_ref().filter(|range| range.end > whole.len()) {
            return Err(DataError::Setting {
                name: "`train_range`",
                expected: format!("A..B with B at most {}, the number of images", whole.len()),
                found: format!("{}..{}", range.start, range.end),
                remedy: "choose a range within the training split",
            });
        }
        if rest.is_empty() {
            return Err(empty("without images that are held out or outside `train_range`".into()));
        }
        let val = match fraction > 0.0 {
            true => Some(whole.subset(&cut, "val")?),
            false => given,
        };
        let train = whole.subset(&rest, "train")?;
        let test = data.test().cloned();
        let splits = [Some(&whole), val.as_ref(), test.as_ref()].into_iter().flatten();
        let named = whole.class_names().map_or(0, <[String]>::len);
        let mut highest = 0;
        for split in splits {
            let label = split.labels().iter().max().copied().unwrap_or(0);
            if named > 0 && label as usize >= named {
                let place = split.place();
                return Err(DataError::Classes(ClassError::Unnamed { place, label, names: named }));
            }
            highest = highest.max(label as usize);
        }
        Ok(FinetuneImages {
            classes: named.max(highest + 1),
            named: named > 0,
            whole,
            train,
            val,
            test,
            fraction,
        })
    }

    /// Descriptions of the splits for a report.
    pub fn info(&self, data: &DataSet) -> Vec<DataInfo> {
        let mut out = vec![data_info(data, &self.train, "training images")];
        if let Some(val) = &self.val {
            let origin = match self.fraction > 0.0 {
                true => format!("held out of train, {}", self.fraction),
                false => "split val".into(),
            };
            out.push(data_info(data, val, &origin));
        }
        out.extend(self.test.as_ref().map(|test| data_info(data, test, "split test")));
        out
    }
}
