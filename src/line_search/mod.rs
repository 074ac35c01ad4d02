//! Line searches in one layer's weights: w_ℓ − α d.
//!
//! [`Path`] evaluates the model along the line, and [`first_minimum`] finds the first local minimum of
//! the loss on it. Diagnosis searches along the gradient of V, PoF and PoL along that of a batch.

mod minimum;
mod path;
mod reach;

pub use minimum::{Line, Minimum, first_minimum};
pub use path::{Path, is_linear, moved};
pub use reach::longest;
