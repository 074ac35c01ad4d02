//! Seeded augmentation of training images: flip, shift, random resized crop.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use super::Error;
use crate::random::{below, stream, unit};

/// Random augmentation of a training image, drawn anew in each epoch.
///
/// In JSON and TOML it is the list parsed by [`Augment::from_str`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Augment {
    /// Mirror left and right with probability 1/2.
    pub flip: bool,
    /// Shift by up to this many pixels of the model's image, vertically and horizontally; vacated
    /// pixels are black (level 0), or 0.0 in prepared images.
    pub shift: usize,
    /// Random resized crop: minimum fraction of the image's area that is kept, in (0, 1].
    pub crop: Option<f32>,
}

impl FromStr for Augment {
    type Err = Error;

    /// Parses a list such as `flip,shift=2,crop=0.8`; `none` or an empty list means no
    /// augmentation.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut augment = Augment::default();
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        for item in items.filter(|item| *item != "none") {
            let fail = |expected: &str| Error::Augment {
                item: item.to_owned(),
                expected: expected.to_owned(),
            };
            match item.split_once('=') {
                None if item == "flip" => augment.flip = true,
                Some(("shift", pixels)) => {
                    augment.shift = pixels
                        .parse::<u16>()
                        .map_err(|_| fail("shift=K with K a number of pixels up to 65535"))?
                        .into();
                }
                Some(("crop", scale)) => {
                    let scale = scale.parse().ok().filter(|s| *s > 0.0 && *s <= 1.0);
                    augment.crop =
                        Some(scale.ok_or_else(|| {
                            fail("crop=S with S the minimum area kept, in (0, 1]")
                        })?);
                }
                _ => return Err(fail("flip, shift=K, crop=S or none, separated by commas")),
            }
        }
        Ok(augment)
    }
}

impl TryFrom<String> for Augment {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Augment> for String {
    fn from(augment: Augment) -> String {
        augment.to_string()
    }
}

impl fmt::Display for Augment {
    /// The list that [`Augment::from_str`] parses.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut items: Vec<String> = Vec::new();
        items.extend(self.flip.then(|| "flip".to_owned()));
        items.extend((self.shift > 0).then(|| format!("shift={}", self.shift)));
        items.extend(self.crop.map(|crop| format!("crop={crop}")));
        match items.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&items.join(",")),
        }
    }
}

/// A rectangle of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// What happens to one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Draw {
    pub flip: bool,
    /// Pixels down and right.
    pub shift: [i64; 2],
    pub crop: Option<Window>,
}

impl Augment {
    /// The augmentation of image `index`, of stored height and width `size`, in one epoch.
    pub(super) fn draw(&self, size: [usize; 2], seed: u64, epoch: u64, index: usize) -> Draw {
        let mut rng = stream(seed, &format!("augmentation, epoch {epoch}, image {index}"));
        // Drawn whether used or not, so that one setting does not affect the others' random
        // numbers.
        let flip = below(&mut rng, 2) == 1;
        let span = 2 * self.shift as u64 + 1;
        let shift = [0; 2].map(|_: i64| below(&mut rng, span) as i64 - self.shift as i64);
        let crop = self.crop.map(|scale| random_crop(size, f64::from(scale), || unit(&mut rng)));
        Draw { flip: flip && self.flip, shift, crop }
    }
}

/// A window of at least `scale` of the area, with width to height between 3/4 and 4/3; the whole
/// image after ten failed draws (Szegedy et al., CVPR 2015, as in torchvision's
/// `RandomResizedCrop`).
///
/// The ratio of the longer to the shorter side is uniform in [1, 4/3], not log-uniform: the last
/// bit of `exp` depends on the machine, which could change the rounding of a side.
fn random_crop([height, width]: [usize; 2], scale: f64, mut unit: impl FnMut() -> f64) -> Window {
    let area = (height * width) as f64;
    for _ in 0..10 {
        let kept = area * (scale + (1.0 - scale) * unit());
        let ratio = 1.0 + unit() / 3.0;
        let ratio = if unit() < 0.5 { ratio } else { 1.0 / ratio };
        let w = (kept * ratio).sqrt().round() as usize;
        let h = (kept / ratio).sqrt().round() as usize;
        let (down, right) = (unit(), unit());
        if (1..=height).contains(&h) && (1..=width).contains(&w) {
            let top = (down * (height - h + 1) as f64) as usize;
            let left = (right * (width - w + 1) as f64) as usize;
            return Window { top, left, height: h, width: w };
        }
    }
    Window { top: 0, left: 0, height, width }
}

impl Draw {
    /// Source position of pixel `[y, x]` in an image of height and width `size` that is first
    /// flipped, then shifted; `None` where the shift vacated it.
    pub(super) fn source(&self, [y, x]: [usize; 2], size: [usize; 2]) -> Option<[usize; 2]> {
        let back = |at: usize, shift: i64, len: usize| {
            usize::try_from(at as i64 - shift).ok().filter(|&i| i < len)
        };
        let y = back(y, self.shift[0], size[0])?;
        let x = back(x, self.shift[1], size[1])?;
        Some([y, if self.flip { size[1] - 1 - x } else { x }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read() {
        let augment: Augment = "flip,shift=2,crop=0.8".parse().unwrap();
        assert_eq!(augment, Augment { flip: true, shift: 2, crop: Some(0.8) });
        for text in ["flip,shift=2,crop=0.8", "crop=0.25", "none"] {
            assert_eq!(text.parse::<Augment>().unwrap().to_string(), text);
        }
        assert_eq!("none".parse::<Augment>().unwrap(), Augment::default());
        assert_eq!("".parse::<Augment>().unwrap(), Augment::default());
    }

    #[test]
    fn invalid_items_are_reported() {
        for item in ["flop", "flip=1", "shift", "shift=-1", "shift=99999", "crop=0", "crop=1.5"] {
            let error = format!("flip,{item}").parse::<Augment>().unwrap_err();
            assert!(matches!(&error, Error::Augment { item: i, .. } if i == item), "{error}");
        }
    }

    #[test]
    fn half_of_the_images_are_flipped_and_shifts_fill_their_range() {
        let augment = Augment { flip: true, shift: 2, crop: None };
        let draws: Vec<Draw> = (0..4000).map(|i| augment.draw([8, 8], 0, 0, i)).collect();
        let flipped = draws.iter().filter(|d| d.flip).count();
        // Five standard deviations of a binomial(4000, 1/2) are 158.
        assert!(flipped.abs_diff(2000) < 158, "{flipped}");
        for dy in -2..=2 {
            for dx in -2..=2 {
                let hits = draws.iter().filter(|d| d.shift == [dy, dx]).count();
                // Five standard deviations of a binomial(4000, 1/25) are 62.
                assert!(hits.abs_diff(160) < 62, "{dy} {dx} {hits}");
            }
        }
    }

    #[test]
    fn crops_keep_their_area_and_aspect() {
        let augment = Augment { crop: Some(0.25), ..Augment::default() };
        let mut least = 1.0f64;
        for index in 0..2000 {
            let Some(w) = augment.draw([60, 80], 1, 0, index).crop else { panic!("no crop") };
            assert!(w.top + w.height <= 60 && w.left + w.width <= 80);
            let share = (w.height * w.width) as f64 / 4800.0;
            // Each side is rounded by at most half a pixel, of 30 or more.
            assert!(share > 0.25 * (1.0 - 0.5 / 30.0f64).powi(2), "{w:?}");
            let ratio = w.width as f64 / w.height as f64;
            assert!((0.73..1.37).contains(&ratio), "{w:?}");
            least = least.min(share);
        }
        assert!(least < 0.27, "small crops occur: {least}");
    }

    #[test]
    fn an_image_too_elongated_to_crop_is_kept_whole() {
        let window = random_crop([2, 100], 1.0, || 0.5);
        assert_eq!(window, Window { top: 0, left: 0, height: 2, width: 100 });
    }

    #[test]
    fn a_source_is_flipped_then_shifted() {
        let draw = Draw { flip: true, shift: [0, 1], crop: None };
        // Row a b c, flipped: c b a, one to the right: _ c b.
        let row: Vec<_> = (0..3).map(|x| draw.source([0, x], [1, 3]).map(|[_, x]| x)).collect();
        assert_eq!(row, [None, Some(2), Some(1)]);
        let up = Draw { flip: false, shift: [-1, 0], crop: None };
        assert_eq!(up.source([0, 0], [2, 1]), Some([1, 0]));
        assert_eq!(up.source([1, 0], [2, 1]), None);
    }
}
