//! Image preprocessing as the checkpoint requires it.

use crate::options::text::size;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Resampling filter, with Pillow's names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// PIL 0.
    Nearest,
    /// PIL 2.
    Bilinear,
    /// PIL 3, a = −0.5.
    Bicubic,
}

/// How an image is resized to the model's size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// To the model's size in one step, ignoring the aspect ratio (transformers).
    Squash,
    /// To this height and width, ignoring the aspect ratio, then a centre crop (transformers' DeiT,
    /// timm's `squash`).
    SquashTo([usize; 2]),
    /// Shorter side to this number of pixels, then a centre crop (timm, torchvision).
    ShortSide(usize),
}

/// Rounding of the centre crop's offset, (have − want)/2, if it ends in ½.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropOffset {
    /// Half to even, as in torchvision's `center_crop` and timm.
    HalfToEven,
    /// Down, as in transformers' image processors.
    Down,
}

/// Resize, crop and normalisation: (pixels/255 − mean)/standard deviation, per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Height and width the model takes.
    pub image_size: [usize; 2],
    /// Channels of the model's input. Grey images are repeated to 3 channels; colour images are
    /// converted to grey for 1 (ITU-R 601, as Pillow's mode `L`).
    pub channels: usize,
    /// Resize.
    pub resize: Resize,
    /// Rounding of the centre crop's offset.
    pub crop_offset: CropOffset,
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Mean per channel, in units of the full scale.
    pub mean: Vec<f32>,
    /// Standard deviation per channel, in units of the full scale.
    pub std: Vec<f32>,
}

/// A normalisation parameter, in units of the full scale (pixels are divided by 255 first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The mean.
    Mean,
    /// The standard deviation.
    Std,
}

impl Moment {
    /// Whether the value is possible for pixels from 0 to 1. Their standard deviation is at most
    /// 0.5; 1 is allowed and means no scaling.
    pub fn fits(self, value: f32) -> bool {
        match self {
            Moment::Mean => (0.0..=1.0).contains(&value),
            Moment::Std => value > 0.0 && value <= 1.0,
        }
    }

    /// The valid range, in words.
    pub fn range(self) -> &'static str {
        match self {
            Moment::Mean => "from 0 to 1",
            Moment::Std => "above 0 and at most 1",
        }
    }
}

impl FromStr for Interpolation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "nearest" => Ok(Interpolation::Nearest),
            "bilinear" => Ok(Interpolation::Bilinear),
            "bicubic" => Ok(Interpolation::Bicubic),
            _ => Err("expected nearest, bilinear or bicubic"),
        }
    }
}

impl fmt::Display for Interpolation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Interpolation::Nearest => "nearest",
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        })
    }
}

impl FromStr for Resize {
    type Err = String;

    /// Parses `squash`, the short side in pixels, or `HxW`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "squash" => Ok(Resize::Squash),
            Ok(side) if side > 0 => Ok(Resize::ShortSide(side)),
            _ if text.contains(['x', '×']) => size(text).map(Resize::SquashTo),
            _ => Err("expected `squash`, the short side in pixels, or HxW".into()),
        }
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Resize::Squash => f.write_str("squash"),
            Resize::SquashTo([height, width]) => write!(f, "{height}x{width}"),
            Resize::ShortSide(side) => write!(f, "{side}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_resizes_round_trip() {
        let filters = [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic];
        assert!(filters.into_iter().all(|filter| filter.to_string().parse() == Ok(filter)));
        assert!("lanczos".parse::<Interpolation>().is_err());
        let all = [Resize::Squash, Resize::ShortSide(256), Resize::SquashTo([256, 240])];
        assert!(all.into_iter().all(|resize| resize.to_string().parse() == Ok(resize)));
        assert!(["0x1", "0", "crop"].iter().all(|text| text.parse::<Resize>().is_err()));
    }
}
