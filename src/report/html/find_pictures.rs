//! Pictures of the images that tuning fixed or broke, read from the data set.

use super::input::{Input, Report};
use super::pictures::Pictures;
use crate::data::folds::stratified_halves;
use crate::data::{
    CropOffset, DataSet, Error as DataError, Interpolation, Preprocess, Resize, Split,
};
use crate::post_train::result::Flips;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// Maximum side of a picture, in pixels. Larger images are scaled down to it.
const SIDE: usize = 64;

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// No result names images.
    #[error(
        "`data`: none of the results lists changed images; add a result of post-train, or remove `data`"
    )]
    NoFlips,
    /// The data set does not contain the images of a result.
    #[error(
        "{data}: expected images with SHA-256 {digest} ({origin}), found no split or half of a split with this \
         digest; set `data` as for post-train"
    )]
    OtherImages {
        /// The given data set.
        data: String,
        /// Digest of the expected images.
        digest: String,
        /// Origin of the expected images.
        origin: String,
    },
    /// The images are normalised tensors.
    #[error("{place}: normalised tensors cannot be shown as pictures; remove `data`")]
    Prepared {
        /// The split.
        place: String,
    },
    /// The images cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An image that PNG cannot represent.
    #[error("cannot encode an image as PNG: {0}")]
    Png(#[from] image::ImageError),
}

/// Pictures for each result whose images are in the data set `data`.
///
/// # Errors
/// [`PictureError`].
pub fn find_pictures(data: &str, results: &[Input]) -> Result<Vec<Pictures>, PictureError> {
    let changed = results.iter().filter_map(|input| match &input.report {
        Report::PostTraining(r) => {
            let part = r.test.as_ref().or(r.validation.as_ref())?;
            part.flips.as_ref().map(|flips| (part, flips, r.run.run.seed))
        }
        _ => None,
    });
    let (mut shown, mut missed): (Vec<Pictures>, _) = (Vec::new(), None);
    for (part, Flips { most_fixed, most_broken, .. }, seed) in changed {
        let Some(split) = split_of(data, &part.data.digest, seed)? else {
            missed = missed.or(Some(&part.data));
            continue;
        };
        let at = match shown.iter().position(|p| p.digest == part.data.digest) {
            Some(at) => at,
            None => {
                let classes = split.class_names().unwrap_or_default().to_vec();
                let digest = part.data.digest.clone();
                shown.push(Pictures { digest, classes, pngs: Vec::new() });
                shown.len() - 1
            }
        };
        for flip in most_fixed.iter().chain(most_broken) {
            if !shown[at].pngs.iter().any(|(image, _)| *image == flip.image) {
                shown[at].pngs.push((flip.image, png(&split, flip.image)?));
            }
        }
    }
    match (shown.is_empty(), missed) {
        (false, _) => Ok(shown),
        (true, None) => Err(PictureError::NoFlips),
        (true, Some(of)) => {
            let (digest, origin) = (of.digest.clone(), of.origin.clone());
            Err(PictureError::OtherImages { data: data.into(), digest, origin })
        }
    }
}

/// Finds the split with this digest: a whole split, or a half of one, divided by `seed` as V and
/// test are.
fn split_of(spec: &str, digest: &str, seed: u64) -> Result<Option<Split>, DataError> {
    let data = DataSet::open(spec)?;
    for whole in data.splits() {
        if whole.digest() == digest {
            return Ok(Some(whole.clone()));
        }
        let halves = stratified_halves(whole.labels(), seed);
        for half in [halves.1, halves.0].iter().filter(|half| !half.is_empty()) {
            let half = whole.subset(half, whole.name())?;
            if half.digest() == digest {
                return Ok(Some(half));
            }
        }
    }
    Ok(None)
}

/// One image as a PNG file.
fn png(split: &Split, image: usize) -> Result<Vec<u8>, PictureError> {
    if split.prepared() {
        return Err(PictureError::Prepared { place: split.place() });
    }
    let [channels, h, w] = split.image_shape().unwrap_or([3, SIDE, SIDE]);
    let (h, w) = (h.min(SIDE), w.min(SIDE));
    let preprocess = Preprocess {
        image_size: [h, w],
        channels,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0; channels],
        std: vec![1.0; channels],
    };
    let planes = split.pixels(&[image], Some(&preprocess), None)?;
    let level = |x: f32| (255.0 * x).round().clamp(0.0, 255.0) as u8;
    let mut levels = Vec::with_capacity(planes.len());
    for at in 0..h * w {
        levels.extend(planes.iter().skip(at).step_by(h * w).map(|&x| level(x)));
    }
    let colour = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut out = Vec::new();
    let encoder = PngEncoder::new(&mut out);
    encoder.write_image(&levels, w as u32, h as u32, colour)?;
    Ok(out)
}
