//! Classes of images without labels.

use crate::checkpoint::Checkpoint;
use crate::data::{DamagedFile, DataInfo, DataSet, OnBadSample, Split};
use crate::error::{Error, Result};
use crate::options::check;
use crate::predictions::Predictions;
use crate::session::bad_samples::{damage_note, leave_out};
use crate::session::evaluate::predict;
use crate::session::{Context, data_info, objective};
use candle_core::DType;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which images, and how many classes of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Prediction options"))]
pub struct PredictOptions {
    /// Images: a folder, including its subfolders, or one file (JPEG, PNG, WebP, BMP, TIFF, GIF)
    #[cfg_attr(feature = "cli", arg(long, value_name = "D"))]
    pub data: PathBuf,
    /// Number of classes to list for each image, the most probable first
    #[cfg_attr(feature = "cli", arg(long, value_name = "K", default_value_t = 5))]
    pub top: usize,
    /// What to do with an image file that cannot be decoded
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "fail|skip",
            default_value = "fail",
            hide_possible_values = true,
            hide_short_help = true
        )
    )]
    pub on_bad_sample: OnBadSample,
}

/// The most probable classes of one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictedImage {
    /// The file.
    pub path: PathBuf,
    /// The classes, the most probable first.
    pub classes: Vec<ClassProbability>,
}

/// A class and its probability, softmax of the logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassProbability {
    /// Its name, or its number if the checkpoint has no class names.
    pub class: String,
    /// Its probability.
    pub probability: f64,
}

/// The classes of some images.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// The images.
    pub images: Vec<PredictedImage>,
    /// Their folder.
    pub data: DataInfo,
    /// Damaged image files that were decoded in part and used.
    pub damaged: Vec<DamagedFile>,
    /// Notes for readers.
    pub notes: Vec<String>,
}

/// A prediction, ready to run.
pub struct PredictSession {
    /// The options.
    pub options: PredictOptions,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    data: DataSet,
    notes: Vec<String>,
}

impl PredictSession {
    /// Lists the images.
    ///
    /// # Errors
    /// Invalid options; no images; a checkpoint without preprocessing.
    pub fn prepare(options: &PredictOptions, checkpoint: Checkpoint) -> Result<Self> {
        check::count("top", options.top)?;
        let mut data = DataSet::unlabelled(&options.data)?;
        let mut notes = data.notes.clone();
        notes.extend(leave_out(options.on_bad_sample, &mut data, checkpoint.preprocess.as_ref())?);
        let files = |split: &Split| {
            (0..split.len()).find_map(|i| split.file(i).filter(|path| path.to_str().is_none()))
        };
        if let Some(path) = data.only().and_then(files) {
            let path = path.display();
            return Err(Error::Missing(format!(
                "{path}: the name is not UTF-8, which reports need: rename it"
            )));
        }
        let last = checkpoint.history.last();
        if !last.is_some_and(|step| ["calibrate", "fix"].contains(&&*step.method)) {
            notes.push(
                "planish has not calibrated this checkpoint, so its probabilities may be too high or too low; \
                 `planish calibrate` corrects them"
                    .into(),
            );
        }
        Ok(Self { options: options.clone(), checkpoint, data, notes })
    }

    /// Computes the probabilities.
    ///
    /// # Errors
    /// Images that cannot be decoded; logits that are not finite.
    pub fn run(&self, context: &Context) -> Result<Predicted> {
        let Self { options, checkpoint, data, notes } = self;
        let split = data.only().ok_or_else(|| Error::Missing("no images".into()))?;
        let model = objective(checkpoint, DType::F32, context.engine)?;
        let found = predict(checkpoint, &model, split, "predicting", context)?;
        let names = |class: usize| match &checkpoint.class_names {
            Some(names) => names[class].clone(),
            None => class.to_string(),
        };
        let images =
            most_probable(&found, options.top).into_iter().enumerate().map(|(i, classes)| {
                let named =
                    |(class, probability)| ClassProbability { class: names(class), probability };
                PredictedImage {
                    path: split.file(i).unwrap_or_default(),
                    classes: classes.into_iter().map(named).collect(),
                }
            });
        let damaged = data.damaged();
        let mut notes = notes.clone();
        notes.extend(damage_note(&damaged));
        Ok(Predicted {
            images: images.collect(),
            data: data_info(data, split, "all images, sorted by folder and name"),
            damaged,
            notes,
        })
    }
}

/// The classes of highest probability of each image, at most `top`. Of equal ones, the lower number is first.
fn most_probable(predictions: &Predictions, top: usize) -> Vec<Vec<(usize, f64)>> {
    predictions.map(|_, row, _| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|z| (z - max).exp()).sum();
        let mut all: Vec<(usize, f64)> =
            row.iter().enumerate().map(|(class, z)| (class, (z - max).exp() / sum)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(top);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_sorted_by_probability() {
        let logits = vec![0.0, 2f64.ln(), 5f64.ln(), 0.0, 0.0, 0.0];
        let predictions = Predictions::new(logits, 3, &[0, 0]).unwrap();
        let found = most_probable(&predictions, 2);
        let expected = [[(2, 5.0 / 8.0), (1, 2.0 / 8.0)], [(0, 1.0 / 3.0), (1, 1.0 / 3.0)]];
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.len(), 2);
            for (a, b) in found.iter().zip(expected) {
                assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-12, "{found:?}");
            }
        }
        assert_eq!(most_probable(&predictions, 9)[0].len(), 3);
    }
}
