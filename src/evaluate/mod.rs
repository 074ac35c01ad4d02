//! Metrics of a model's logits: losses, accuracy, calibration, and temperature scaling.
//!
//! All computations are in f64 and sum in the order of images, so results do not depend on the
//! number of threads. [`Scores`] has the contribution of each image; every figure is a mean or a
//! sum of them, with a standard error.

mod by_class;
mod calibration;
mod compare;
mod conformal;
mod correlation;
mod crossed;
mod effect;
mod error;
mod holm;
mod info;
mod jackknife;
mod mcnemar;
mod metrics;
mod out_of_distribution;
mod rounding;
mod scores;
mod selective;
mod student;
mod summary;
mod temperature;
mod verdict;

pub use by_class::{ByClass, ClassFigures, GroupFigures, by_class};
pub use calibration::{
    BINS, Bin, ece, ece_class_wise, ece_equal_mass, ece_of, null_ece, reliability,
};
pub use compare::{Comparison, Difference, RESAMPLES, compare};
pub use conformal::{Score, Sets, sets, threshold};
pub use correlation::{Correlation, FEWEST, correlation, pearson, spearman};
pub use crossed::{Crossed, crossed};
pub use effect::Effect;
pub use error::Error;
pub use holm::{LEVEL, holm, holm_above_zero, p_above_zero};
pub use info::PredictionsInfo;
pub use mcnemar::{McNemar, mcnemar};
pub use metrics::{Estimate, brier, hits, linearised, losses, mean_stderr, paired, ratio};
pub use out_of_distribution::{Detection, detect, max_probability, negative_energy};
pub use rounding::{ROUNDING, rounding};
pub use scores::Scores;
pub use selective::aurc;
pub use student::{student_cdf, student_quantile, student_tail};
pub use summary::{
    Details, Reliability, Summary, Temperature, Temperatures, summarise, summarise_at,
};
pub use temperature::{Bound, Fit, fit};
pub use verdict::{EQUIVALENT_NATS, FEW, FEWEST_SEEDS, Verdict, equivalence, smallest_visible};

/// Version of the figures' definitions. It is raised when one of them changes, so that stored
/// figures of an older definition are recognised.
pub const DEFINITIONS: u32 = 2;

#[cfg(test)]
mod reference_tests;
