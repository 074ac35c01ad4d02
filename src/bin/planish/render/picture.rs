//! Images of a data set as small PNG files.

use anyhow::Context;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use planish::data::folds::stratified_halves;
use planish::data::{CropOffset, DataSet, Interpolation, Preprocess, Resize, Split};

/// Longest side of a picture of an image file; images of one size are taken as they are, up to it.
const SIDE: usize = 64;

/// The split of that digest: a whole one, or a half of one cut by `seed` as V and test are.
///
/// # Errors
/// Images that cannot be read.
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
/// An image that cannot be read; normalised tensors, which are no pictures.
pub fn png(split: &Split, image: usize) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(
        !split.prepared(),
        "{}: normalised tensors are no pictures; leave --data out",
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
        .context("an image cannot be written as PNG")?;
    Ok(out)
}
