//! How good a model's logits are: losses, accuracy, calibration, and what one temperature mends.
//!
//! Everything is f64, takes images in the order given and sums in that order, so a figure does not
//! depend on the number of threads.

mod calibration;
mod metrics;
mod predictions;
mod summary;
mod temperature;

pub use calibration::{BINS, Bin, ece, reliability};
pub use metrics::{Estimate, brier, hits, losses, mean_stderr, paired};
pub use predictions::{Error, Predictions};
pub use summary::{Summary, Temperature, summarise};
pub use temperature::{Fit, fit};
