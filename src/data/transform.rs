//! Converts image bytes to model input with the arithmetic of Pillow and torchvision.

use std::borrow::Cow;
use std::fmt;

use super::augment::{Draw, Window};
use super::resample::resample;
use super::{CropOffset, Error, Interpolation, Moment, Preprocess, Resize};

/// Maximum number of values of one resized image. An extreme aspect ratio could otherwise need
/// gigabytes before the crop.
const MOST_VALUES: usize = 1 << 28;

impl Preprocess {
    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// [`Error::Preprocess`] if the image is empty; the channels are neither 1 nor 3; mean or
    /// standard deviation does not have one value per channel; a mean is not from 0 to 1; a
    /// standard deviation is not above 0 and at most 1; or the short side is less than the crop.
    pub fn check(&self) -> Result<(), Error> {
        let fail = |place, expected: String, found: String, remedy| {
            Err(Error::Preprocess { place, expected, found, remedy })
        };
        let [h, w] = self.image_size;
        let most = MOST_VALUES / 3;
        if h == 0 || w == 0 || h.checked_mul(w).is_none_or(|area| area > most) {
            let expected = format!("between 1 and {most} pixels");
            return fail("image size", expected, format!("{h}×{w}"), "set `image_size`");
        }
        if self.channels != 1 && self.channels != 3 {
            let found = self.channels.to_string();
            let remedy = "give the images as tensors:FILE";
            return fail("channels", "1 (grey) or 3 (RGB)".into(), found, remedy);
        }
        for (moment, place, values, remedy) in [
            (Moment::Mean, "mean", &self.mean, "set `mean`"),
            (Moment::Std, "standard deviation", &self.std, "set `std`"),
        ] {
            if values.len() != self.channels || values.iter().any(|&x| !moment.fits(x)) {
                let levels = values.iter().any(|x| x.abs() > 1.0);
                let remedy = if levels { "divide levels by 255" } else { remedy };
                let expected = format!(
                    "{} numbers {}, one per channel, in units of the full scale (level 255)",
                    self.channels,
                    moment.range()
                );
                return fail(place, expected, format!("{values:?}"), remedy);
            }
        }
        match self.resize {
            Resize::SquashTo([height, width]) if height < h || width < w => fail(
                "resize",
                format!("at least {h}×{w}, the crop's size"),
                format!("{height}×{width}"),
                "correct crop_pct or size in the checkpoint's configuration",
            ),
            Resize::ShortSide(side) if side < h.max(w) => fail(
                "resize",
                format!("a short side of at least {}, the crop's", h.max(w)),
                side.to_string(),
                "correct crop_pct or size in the checkpoint's configuration",
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Preprocess {
    /// One line, such as `short side to 256 (bicubic), centre crop 224×224, RGB, mean [0.5, 0.5,
    /// 0.5], std [0.5, 0.5, 0.5]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [h, w] = self.image_size;
        let filter = self.interpolation;
        let offset = match self.crop_offset {
            CropOffset::HalfToEven => "",
            CropOffset::Down => " (offset rounded down)",
        };
        match self.resize {
            Resize::Squash => write!(f, "resize to {h}×{w} ({filter})")?,
            Resize::SquashTo([height, width]) => {
                write!(f, "resize to {height}×{width} ({filter}), centre crop {h}×{w}{offset}")?;
            }
            Resize::ShortSide(side) => {
                write!(f, "short side to {side} ({filter}), centre crop {h}×{w}{offset}")?;
            }
        }
        match self.channels {
            1 => f.write_str(", grey")?,
            3 => f.write_str(", RGB")?,
            n => write!(f, ", {n} channels")?,
        }
        write!(f, ", mean {:?}, std {:?}", self.mean, self.std)
    }
}

/// A preprocessing prepared for images of one shape.
pub(super) struct Transform {
    /// Channels, height and width as stored.
    stored: [usize; 3],
    /// Height and width after the resize of an uncropped image.
    resized: [usize; 2],
    crop_offset: CropOffset,
    /// Channels, height and width of the model's input.
    target: [usize; 3],
    interpolation: Interpolation,
    /// Per channel, the normalised value of each of the 256 levels.
    levels: Vec<[f32; 256]>,
}

impl Transform {
    /// Checks `preprocess` against images of `stored` shape (C, H, W).
    pub fn new(preprocess: &Preprocess, stored: [usize; 3]) -> Result<Self, Error> {
        preprocess.check()?;
        let [c, h, w] = stored;
        let fail = |expected: &str| Error::Preprocess {
            place: "stored images",
            expected: expected.to_owned(),
            found: format!("{c} channels of {h}×{w}"),
            remedy: "give images with a usual aspect ratio, or prepared ones as tensors:FILE",
        };
        if (c != 1 && c != 3) || h == 0 || w == 0 {
            return Err(fail("1 (grey) or 3 (RGB) channels and at least one pixel"));
        }
        let resized = match preprocess.resize {
            Resize::Squash => Some(preprocess.image_size),
            Resize::SquashTo(size) => Some(size),
            Resize::ShortSide(side) => short_side([h, w], side),
        };
        // The first pass has the stored height and the new width.
        let resized = resized
            .filter(|&[to, w]| w.checked_mul(to.max(h)).is_some_and(|n| n <= MOST_VALUES / 3))
            .ok_or_else(|| fail("an aspect ratio whose resized image fits in memory"))?;
        let levels = preprocess.mean.iter().zip(&preprocess.std);
        let levels = levels
            .map(|(mean, std)| std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std))
            .collect();
        let [th, tw] = preprocess.image_size;
        Ok(Self {
            stored,
            resized,
            crop_offset: preprocess.crop_offset,
            target: [preprocess.channels, th, tw],
            interpolation: preprocess.interpolation,
            levels,
        })
    }

    /// Transforms one image, `(H,W,C)` levels, into `out`, `(C,H,W)`.
    ///
    /// A random crop replaces resize and centre crop: its window is resized to the model's size in
    /// one step.
    pub fn run(&self, image: &[u8], draw: &Draw, out: &mut [f32]) {
        let [stored_channels, h, w] = self.stored;
        let [channels, th, tw] = self.target;
        let (image, c) = match (stored_channels, channels) {
            (3, 1) => (Cow::Owned(grey(image)), 1),
            (c, _) => (Cow::Borrowed(image), c),
        };
        let (image, size, resized) = match draw.crop {
            Some(window) => {
                (Cow::Owned(cut(&image, w, c, window)), [window.height, window.width], [th, tw])
            }
            None => (image, [h, w], self.resized),
        };
        let image = if size == resized {
            image
        } else {
            Cow::Owned(resample(&image, size, resized, c, self.interpolation))
        };
        let [top, left] = [(resized[0], th), (resized[1], tw)]
            .map(|(have, want)| centre(have, want, self.crop_offset));
        for (channel, (plane, levels)) in out.chunks_mut(th * tw).zip(&self.levels).enumerate() {
            let channel = channel.min(c - 1);
            for (at, out) in plane.iter_mut().enumerate() {
                let level = draw
                    .source([at / tw, at % tw], [th, tw])
                    .and_then(|[y, x]| {
                        image.get(((y + top) * resized[1] + x + left) * c + channel).copied()
                    })
                    .unwrap_or(0);
                *out = levels[usize::from(level)];
            }
        }
    }
}

/// Height and width with the shorter side `side` and the same aspect ratio; the longer side is
/// rounded down, as in torchvision's `Resize`. `None` on overflow.
fn short_side([h, w]: [usize; 2], side: usize) -> Option<[usize; 2]> {
    let long = |long: usize, short: usize| Some(side.checked_mul(long)? / short);
    if h <= w { Some([side, long(w, h)?]) } else { Some([long(h, w)?, side]) }
}

/// First row or column of a centre crop: (have − want)/2, with ½ rounded as `offset` specifies.
fn centre(have: usize, want: usize, offset: CropOffset) -> usize {
    let twice = have.saturating_sub(want);
    let down = twice / 2;
    match offset {
        CropOffset::HalfToEven => down + usize::from(twice % 2 == 1 && down % 2 == 1),
        CropOffset::Down => down,
    }
}

/// Pillow's `convert("L")`: ITU-R 601-2 luma in 16-bit fixed-point arithmetic.
fn grey(rgb: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgb.as_chunks::<3>();
    let luma = |[r, g, b]: [u8; 3]| {
        (u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16
    };
    pixels.iter().map(|&p| luma(p) as u8).collect()
}

/// The pixels of `window` in an image of width `w` with `c` channels.
fn cut(image: &[u8], w: usize, c: usize, window: Window) -> Vec<u8> {
    (window.top..window.top + window.height)
        .filter_map(|y| image.get((y * w + window.left) * c..)?.get(..window.width * c))
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes and offsets of torchvision and transformers, by `tests/reference/make_crops.py`.
    #[test]
    fn resized_sides_and_crop_offsets_match_the_libraries() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/crops.json");
        let cases: Vec<[usize; 11]> =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut different = 0;
        for [h, w, side, crop_h, crop_w, to_h, to_w, top, left, their_top, their_left] in cases {
            let resized = short_side([h, w], side);
            assert_eq!(resized, Some([to_h, to_w]), "{h}×{w} to {side}");
            let offsets = |offset| [centre(to_h, crop_h, offset), centre(to_w, crop_w, offset)];
            let case = format!("{crop_h}×{crop_w} of {to_h}×{to_w}");
            assert_eq!(offsets(CropOffset::HalfToEven), [top, left], "torchvision, {case}");
            assert_eq!(offsets(CropOffset::Down), [their_top, their_left], "transformers, {case}");
            different += usize::from([top, left] != [their_top, their_left]);
        }
        assert_eq!(different, 123);
    }
}
