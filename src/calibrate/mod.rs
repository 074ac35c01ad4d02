//! Calibration: a map of the logits, fitted on V and folded into the head, so that the checkpoint
//! itself is calibrated and inference needs no other code.
//!
//! [`CalibrateSession`] fits it, writes the result and measures it on test. [`fit_scaling`] is the
//! fit alone.

mod head;
pub mod laplace;
mod newton;
mod scaling;
mod session;

pub use head::{calibrated, check_head};
pub use scaling::{Map, Scaling, Structured, fit_scaling};
pub use session::{
    CalibrateOptions, CalibrateSession, Calibrated, LaplaceFigures, LaplaceOnTest, NullEce,
};
