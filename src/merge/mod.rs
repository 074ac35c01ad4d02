//! Merging: new weights from several checkpoints of one architecture, without training.
//!
//! [`MergeSession`] opens the checkpoints, chooses on V what the method leaves open, writes the
//! result and measures it on test. [`average`], [`interpolate`], [`lines`] and [`model_stock`] are the
//! formulas alone.

mod formulas;
mod ingredients;
mod session;

pub use formulas::{average, interpolate, lines, model_stock};
pub use ingredients::Error;
pub use session::{CurvePoint, Ingredient, MergeMethod, MergeOptions, MergeSession, Merged};
