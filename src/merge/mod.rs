//! Merging: new weights from several checkpoints of one architecture, without training.
//!
//! [`MergeSession`] opens the checkpoints, chooses on V what the method leaves open, writes the
//! result and measures it on test. [`average`] and [`model_stock`] are formulas alone;
//! [`crate::pretrained`] has those of WiSE-FT and LiNeS.

mod formulas;
mod ingredients;
mod session;

pub use formulas::{average, model_stock};
pub use ingredients::Error;
pub use session::{CurvePoint, Ingredient, MergeMethod, MergeOptions, MergeSession, Merged};
