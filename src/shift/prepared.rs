//! A split's images as corrupted model input.

use super::{Corruption, Error, corrupt};
use crate::data::{Error as DataError, Preprocess, Resize, Split};
use rayon::prelude::*;

/// Images of a split as 8-bit levels of the model's size, and the remaining preprocessing.
///
/// # Errors
/// Images that cannot be read; prepared tensors, which have no levels.
pub fn corrupted(
    split: &Split,
    indices: &[usize],
    preprocess: &Preprocess,
    (corruption, severity): (Corruption, usize),
    seed: u64,
) -> Result<(Split, Preprocess), Error> {
    if split.prepared() {
        return Err(Error::Prepared { place: split.place() });
    }
    let ([h, w], c) = (preprocess.image_size, preprocess.channels);
    // With this mean and deviation the model's values are the levels themselves.
    let plain =
        Preprocess { mean: vec![0.0; c], std: vec![(255.0f32).recip(); c], ..preprocess.clone() };
    let values = split.pixels(indices, Some(&plain), None)?;
    let area = h * w;
    let one = |(values, &index): (&[f32], &usize)| {
        let level = |at: usize| values[at % c * area + at / c].round() as u8;
        let levels: Vec<u8> = (0..values.len()).map(level).collect();
        corrupt(&levels, [h, w, c], corruption, severity, seed, index)
    };
    let images: Vec<Vec<u8>> =
        values.par_chunks(c * area).zip(indices).map(one).collect::<Result<_, _>>()?;
    let all = split.labels();
    let labels = indices.iter().filter_map(|&i| all.get(i).copied()).collect();
    let split = Split::from_levels(split.name(), images.concat(), [c, h, w], labels)?;
    Ok((split, Preprocess { resize: Resize::Squash, ..preprocess.clone() }))
}

impl From<DataError> for Error {
    fn from(source: DataError) -> Self {
        Self::Data(Box::new(source))
    }
}
