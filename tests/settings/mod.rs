//! Parses the preprocessing settings in the Pillow reference files.

use planish::data::{CropOffset, Interpolation, Preprocess, Resize};

/// `squash|short FILTER H W [SHORT] CHANNELS`, with a normalisation that leaves levels / 255.
pub fn parse(settings: &str) -> Preprocess {
    let words: Vec<&str> = settings.split(' ').collect();
    let number = |i: usize| words[i].parse::<usize>().unwrap();
    let channels = number(words.len() - 1);
    Preprocess {
        image_size: [number(2), number(3)],
        channels,
        resize: match words[0] {
            "squash" => Resize::Squash,
            "short" => Resize::ShortSide(number(4)),
            other => panic!("{other}"),
        },
        crop_offset: CropOffset::HalfToEven,
        interpolation: match words[1] {
            "nearest" => Interpolation::Nearest,
            "bilinear" => Interpolation::Bilinear,
            "bicubic" => Interpolation::Bicubic,
            other => panic!("{other}"),
        },
        mean: vec![0.0; channels],
        std: vec![1.0; channels],
    }
}
