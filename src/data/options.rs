//! Options for data sources.

use super::ClassOrder;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Data sources, and their use for training, validation and testing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Data options"))]
pub struct DataOptions {
    /// Images: a folder of class folders (JPEG, PNG, WebP, BMP, TIFF, GIF), a CSV file of paths and labels,
    /// Parquet files, tar archives of webdataset, an IDX or CIFAR folder, or tensors:FILE or tensors:FOLDER (prepared images); repeatable
    #[cfg_attr(feature = "cli", arg(long, value_name = "D", required = true))]
    #[serde(with = "super::sources")]
    pub data: Vec<String>,
    /// Training images, instead of the split `train` of D; repeatable
    #[cfg_attr(feature = "cli", arg(long, value_name = "D"))]
    #[serde(with = "super::sources")]
    pub train_data: Vec<String>,
    /// Validation images, instead of the split `val` of D; repeatable
    #[cfg_attr(feature = "cli", arg(long, value_name = "D"))]
    #[serde(with = "super::sources")]
    pub val_data: Vec<String>,
    /// Test images, instead of the split `test` of D; repeatable
    #[cfg_attr(feature = "cli", arg(long, value_name = "D"))]
    #[serde(with = "super::sources")]
    pub test_data: Vec<String>,
    /// Hold out this fraction of the training split as validation images
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "FRACTION", conflicts_with = "val_data", hide_short_help = true)
    )]
    pub val_from_train: Option<f64>,
    /// Which images to train on, if planish fine-tuned the checkpoint on a part of the training split
    /// (`--train-samples`, `--train-range`): `fitted` for that part, `all` for the whole split
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "fitted|all",
            default_value = "fitted",
            hide_possible_values = true,
            hide_short_help = true
        )
    )]
    pub train_on: TrainOn,
    /// How class folders are numbered: by the checkpoint's class names, or in sorted order
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "name|sorted",
            default_value = "name",
            hide_possible_values = true,
            hide_short_help = true
        )
    )]
    pub class_order: ClassOrder,
    /// What to do with an image file that cannot be decoded, or that a CSV file lists and that does not exist: `fail` stops with an error; `skip` decodes
    /// all files first and leaves out the bad ones, with notes. A JPEG file that decodes with a warning
    /// about damaged data counts as bad for `skip`; with `fail` it is used as decoded, with a note
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

/// The training images to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum TrainOn {
    /// the images that the checkpoint was fine-tuned on, if it states them
    #[default]
    Fitted,
    /// the whole training split
    All,
}

/// Handling of image files that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum OnBadSample {
    /// the first such file is an error
    #[default]
    Fail,
    /// such files are left out everywhere
    Skip,
}

impl DataOptions {
    /// Tensor files among the data sources.
    pub fn files(&self) -> Vec<&Path> {
        let all = [&self.data, &self.train_data, &self.val_data, &self.test_data];
        all.into_iter()
            .flatten()
            .filter_map(|data| data.strip_prefix("tensors:"))
            .map(Path::new)
            .collect()
    }
}
