//! Why two models cannot be compared.

use crate::post_train::POST_TRAINING;
use crate::session::evaluate::EVALUATION;
use std::path::PathBuf;

/// Why two models cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a report of a supported command and version.
    #[error(
        "{}: expected a report of schema {EVALUATION} or {}, found {found}; pass a report that \
         `planish eval` or `planish post-train` wrote to `json`", .path.display(), POST_TRAINING
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// A report without logits. A paired comparison needs the logits of each image.
    #[error(
        "{}: the report refers to no saved logits, which a paired comparison needs; run the \
         command again with `dump`, or compare the checkpoints with `data`", .path.display()
    )]
    NoPredictions {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint without images.
    #[error(
        "{}: a checkpoint needs `data` with images to evaluate it on; set `data`, or pass reports \
         made with `dump`", .path.display()
    )]
    NoData {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The numbers of classes differ.
    #[error(
        "{a} has {} classes and {b} has {}: probabilities over different classes cannot be \
         compared; pass models with the same classes", .classes[0], .classes[1]
    )]
    OtherClasses {
        /// The first model.
        a: String,
        /// The second.
        b: String,
        /// Classes of each.
        classes: [usize; 2],
    },
    /// Only one side has a temperature.
    #[error(
        "{path}: the logits have no temperature, but the other side has one, so calibrated figures \
         are not comparable; add a tensor `temperature` (N) F64, fitted on validation images (all \
         1 for none), or compare the checkpoints with `data`"
    )]
    NoTemperature {
        /// The side without a temperature.
        path: String,
    },
    /// An adapter, for a side that is logits and not a checkpoint.
    #[error("`adapter` applies to B, and {} is not a checkpoint; omit `adapter`", .path.display())]
    NoBase {
        /// The second side.
        path: PathBuf,
    },
    /// The two were not scored on the same images.
    #[error("{a} and {b} were not scored on the same images: {how}; evaluate both on one split")]
    OtherImages {
        /// The first model.
        a: String,
        /// The second.
        b: String,
        /// What differs.
        how: String,
    },
}
