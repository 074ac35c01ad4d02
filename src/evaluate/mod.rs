//! How good a model's logits are: losses, accuracy, calibration, and what one temperature mends.
//!
//! Everything is f64, takes images in the order given and sums in that order, so a figure does not
//! depend on the number of threads. [`Scores`] holds what each image contributes; every figure is
//! a mean or a sum of them, with a standard error.

mod calibration;
mod compare;
mod correlation;
mod info;
mod jackknife;
mod mcnemar;
mod metrics;
mod out_of_distribution;
mod predictions;
mod scores;
mod selective;
mod summary;
mod temperature;

pub use calibration::{BINS, Bin, ece, ece_class_wise, ece_equal_mass, ece_of, reliability};
pub use compare::{Comparison, Difference, FEW, RESAMPLES, Verdict, compare};
pub use correlation::{Correlation, FEWEST, correlation, pearson, spearman};
pub use info::PredictionsInfo;
pub use mcnemar::{McNemar, mcnemar};
pub use metrics::{Estimate, brier, hits, losses, mean_stderr, paired};
pub use out_of_distribution::{Detection, detect, max_probability, negative_energy};
pub use predictions::{Error, Predictions};
pub use scores::Scores;
pub use selective::aurc;
pub use summary::{
    Details, Reliability, Summary, Temperature, Temperatures, summarise, summarise_at,
};
pub use temperature::{Bound, Fit, fit};

/// Version of the figures' definitions: raised whenever one of them changes, so that no figure kept
/// from before is taken for one of now.
pub const DEFINITIONS: u32 = 2;

#[cfg(test)]
mod reference_tests;
