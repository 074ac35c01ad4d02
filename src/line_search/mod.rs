//! Line searches in one layer's weights: w_ℓ − α d.
//!
//! [`Path`] evaluates the model along the line. [`first_minimum`] finds the first local minimum of
//! the loss on it. Diagnosis searches along the gradient over V, PoF and PoL along the gradient of
//! a batch.

mod minimum;
mod path;
mod reach;

pub use minimum::{Line, Minimum, first_minimum};
pub use path::{Path, moved};
pub use reach::longest;
