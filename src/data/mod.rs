//! Images and labels: readers, preprocessing, splits.

mod preprocess;

pub use preprocess::{Interpolation, Preprocess, Resize};
