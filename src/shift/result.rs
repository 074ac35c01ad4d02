//! Results of `eval` on shifted and on out-of-distribution images.

use crate::data::DataInfo;
use crate::evaluate::{Detection, Summary};
use serde::{Deserialize, Serialize};

/// One corruption at one severity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorruptedCell {
    /// Its name, as CIFAR-10-C's files have it.
    pub corruption: String,
    /// 1 to 5.
    pub severity: usize,
    /// Figures on the corrupted images, at the temperature of the clean ones.
    pub figures: Summary,
}

/// The mean over corruptions at one severity, clean images being severity 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeverityMeans {
    /// 0 to 5.
    pub severity: usize,
    /// Mean NLL, nats.
    pub nll: f64,
    /// Mean top-1 accuracy.
    pub top1: f64,
    /// Mean ECE over bins of equal width.
    pub ece: f64,
    /// Mean ECE at the temperature of the clean images.
    pub calibrated_ece: f64,
}

/// The whole matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shifts {
    /// Whose settings, `CIFAR-10-C` or `ImageNet-C`, or the folder that the images were read from.
    pub settings: String,
    /// Whether all cells that were asked for are there.
    pub finished: bool,
    /// Cells in the paper's order.
    pub cells: Vec<CorruptedCell>,
    /// Mean over cells of the share of images classified wrongly: the mean corruption error of
    /// Hendrycks and Dietterich, ICLR 2019, before they divide by AlexNet's.
    pub mean_error: f64,
    /// By severity.
    pub by_severity: Vec<SeverityMeans>,
}

/// Images of another kind than those the model knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Other {
    /// As it was called on the command line.
    pub name: String,
    /// The images.
    pub data: DataInfo,
    /// Told apart by the largest softmax probability.
    pub max_probability: Detection,
    /// Told apart by the energy.
    pub energy: Detection,
}
