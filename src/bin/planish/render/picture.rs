//! Images of a data set as small PNG files.

use anyhow::Context;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use planish::data::folds::stratified_halves;
use planish::data::{CropOffset, DataSet, Interpolation, Preprocess, Resize, Split};

/// Maximum side of a picture, in pixels. Larger images are scaled down to it.
const SIDE: usize = 64;

/// Finds the split with this digest: a whole split, or a half of one, divided by `seed` as V and
/// test are.
///
/// # Errors
/// The images cannot be read.
pub fn split(spec: &str, digest: &str, seed: u64) -> anyhow::Result<Option<Split>> {
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
///
/// # Errors
/// The image cannot be read, or it is a normalised tensor.
pub fn png(split: &Split, image: usize) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(
        !split.prepared(),
        "{}: normalised tensors cannot be shown as pictures; remove --data",
        split.place()
    );
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
    encoder
        .write_image(&levels, w as u32, h as u32, colour)
        .context("cannot encode an image as PNG")?;
    Ok(out)
}
