//! One evaluation of a checkpoint on a split: loss, accuracy, calibration, corrupted images and
//! out-of-distribution images.

mod options;
mod session;

pub use options::EvaluateOptions;
pub use session::{EvaluateSession, Evaluated};
