//! Options of an evaluation.

use crate::engine::Precision;
use crate::shift::Shift;
use std::path::PathBuf;

/// Options of an evaluation. These are also the flags of `eval`.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Evaluation options"))]
pub struct EvaluateOptions {
    /// Split to evaluate. [default: test, or the only split]
    ///
    /// The whole split is evaluated, in stored order. `val` can also select the images that fine-tuning
    /// held out.
    #[cfg_attr(feature = "cli", arg(long, value_name = "S"))]
    pub split: Option<String>,
    /// Operands of matrix products: f32, or bf16 with f32 accumulation
    #[cfg_attr(feature = "cli", arg(long, value_name = "f32|bf16", default_value_t))]
    pub precision: Precision,
    /// Write logits, labels and temperatures, for `planish compare`.
    ///
    /// The file is safetensors with `logits` (N,C) f32, `labels` (N) i64 and `temperature` (N) f64,
    /// in stored order.
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE"))]
    pub dump: Option<PathBuf>,
    /// Write accuracy, NLL and calibration of each class to this CSV file.
    ///
    /// One row per class: images, predictions, accuracy, NLL and ECE with standard errors. The same figures are
    /// in the JSON report.
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE"))]
    pub per_class: Option<PathBuf>,
    /// Write the confusion matrix to this CSV file: a row per label, a column per predicted class
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE"))]
    pub confusion: Option<PathBuf>,
    /// Also evaluate corrupted versions of the images.
    ///
    /// `corruptions` applies the fifteen common corruptions at five severities, at the model's image
    /// size. Names and severities select some of them. `cifar-c:DIR` instead of `corruptions` reads
    /// the files of CIFAR-10-C or CIFAR-100-C. With --json, an interrupted run resumes; a file with
    /// results of another model is an error.
    #[cfg_attr(feature = "cli", arg(long, value_name = "corruptions[:names][:severities]"))]
    pub shift: Option<Shift>,
    /// Measure out-of-distribution detection on this data set (repeatable)
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "NAME=DATA", value_parser = crate::shift::ood)
    )]
    pub ood: Vec<(String, String)>,
}
