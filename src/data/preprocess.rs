//! What a checkpoint wants done to an image before it sees it.

/// Resampling filter, as Pillow names and numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// PIL 0.
    Nearest,
    /// PIL 2.
    Bilinear,
    /// PIL 3, a = −0.5.
    Bicubic,
}

/// How an image of any size becomes one of the model's size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resize {
    /// To the model's size in one step, whatever the aspect ratio (transformers).
    Squash,
    /// To this height and width, whatever the aspect ratio, then a centre crop (transformers'
    /// DeiT, timm's `squash`).
    SquashTo([usize; 2]),
    /// Shorter side to this many pixels, then a centre crop (timm, torchvision).
    ShortSide(usize),
}

/// Where a centre crop starts when half of the remainder, (have − want)/2, ends in ½.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CropOffset {
    /// Rounds half to even, as torchvision's `center_crop` and so timm.
    HalfToEven,
    /// Rounds down, as transformers' image processors.
    Down,
}

/// Resize, crop and normalisation: pixels/255, minus mean, over standard deviation, per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Height and width the model takes.
    pub image_size: [usize; 2],
    /// Channels the model takes; grey images are repeated to 3, colour images are turned grey
    /// (ITU-R 601, as Pillow's mode `L`) for 1.
    pub channels: usize,
    /// How the size is reached.
    pub resize: Resize,
    /// How the centre crop after the resize rounds.
    pub crop_offset: CropOffset,
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Mean per channel, in units of the full scale.
    pub mean: Vec<f32>,
    /// Standard deviation per channel, in units of the full scale.
    pub std: Vec<f32>,
}
