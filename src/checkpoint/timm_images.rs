//! Image preprocessing from timm's configuration and the options.

use super::reader::{Dialect, Reader};
use super::{Error, Layout};
use crate::data::{CropOffset, Interpolation, Moment, Preprocess, Resize};
use crate::models::Config;

/// torchvision's default short side in pixels for a crop of 224.
const TORCHVISION_SHORT_SIDE: usize = 256;

/// timm's default fraction of the resized image that the crop keeps.
const CROP_PCT: f64 = 0.875;

impl Reader<'_> {
    /// The preprocessing; `None` if mean and standard deviation are not stated, since these have no
    /// usual value.
    ///
    /// # Errors
    /// Values of the wrong type or number, and unsupported filters and crops.
    pub fn preprocess(&mut self, config: &Config) -> Result<Option<Preprocess>, Error> {
        if self.dialect == Dialect::Transformers {
            return self.transformers_images(config);
        }
        let mean = self.moment("mean", self.overrides.mean.clone(), config.channels())?;
        let std = self.moment("std", self.overrides.std.clone(), config.channels())?;
        let (Some(mean), Some(std)) = (mean, std) else { return Ok(None) };
        Ok(Some(Preprocess {
            image_size: config.image_size(),
            channels: config.channels(),
            resize: self.resize(config)?,
            crop_offset: CropOffset::HalfToEven,
            interpolation: self.interpolation()?,
            mean,
            std,
        }))
    }

    /// Mean or standard deviation from option or configuration.
    fn moment(
        &self,
        option: &str,
        given: Option<Vec<f32>>,
        channels: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        let path = format!("pretrained_cfg.{option}");
        let (place, values) = match (given, self.settings) {
            (Some(values), _) => (format!("`{option}`"), values),
            (None, Some(settings)) => match settings.numbers(&path)? {
                Some(values) => (settings.place.clone(), values),
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        self.per_channel(place, path, values, channels).map(Some)
    }

    /// One value per channel; a single value applies to all, as in timm.
    pub(super) fn per_channel(
        &self,
        place: String,
        key: String,
        values: Vec<f32>,
        channels: usize,
    ) -> Result<Vec<f32>, Error> {
        let (moment, flag) = match key.ends_with("std") {
            true => (Moment::Std, "`std`"),
            false => (Moment::Mean, "`mean`"),
        };
        let fit = values.iter().all(|&x| moment.fits(x));
        match values.as_slice() {
            [one] if fit => Ok(vec![*one; channels]),
            _ if fit && values.len() == channels => Ok(values),
            _ => Err(Error::Setting {
                place,
                key,
                expected: format!(
                    "one number {} for each of {channels} channels, in units of the full scale \
                     (level 255)",
                    moment.range()
                ),
                found: format!("{values:?}"),
                remedy: match values.iter().any(|x| x.abs() > 1.0) {
                    true => "divide levels by 255".into(),
                    false => format!("give {flag}"),
                },
            }),
        }
    }

    fn resize(&mut self, config: &Config) -> Result<Resize, Error> {
        if let Some(resize) = self.overrides.resize {
            return Ok(resize);
        }
        let stated = match self.settings {
            Some(settings) => settings.number("pretrained_cfg.crop_pct")?,
            None => None,
        };
        let bare = self.layout == Layout::Torchvision && self.settings.is_none();
        if let (true, None, [224, 224]) = (bare, self.overrides.crop_pct, config.image_size()) {
            let side = TORCHVISION_SHORT_SIDE;
            self.assumed.push(format!("resize: short side to {side}, as torchvision's transforms"));
            return Ok(Resize::ShortSide(side));
        }
        let share = self.overrides.crop_pct.or(stated).unwrap_or_else(|| {
            self.assumed.push(format!("centre crop: {CROP_PCT} of the resized image"));
            CROP_PCT
        });
        let [height, width] = config.image_size();
        let short = (height.min(width) as f64 / share).floor();
        let squash = match self.settings {
            Some(settings) => match settings.text("pretrained_cfg.crop_mode")? {
                None | Some("center") => false,
                Some("squash") => true,
                Some(_) => {
                    let (key, expected) = ("pretrained_cfg.crop_mode", "center or squash");
                    return Err(settings.unsupported(key, expected, "give `resize`"));
                }
            },
            None => false,
        };
        let place = || match (self.overrides.crop_pct, self.settings) {
            (None, Some(settings)) => settings.place.clone(),
            _ => "`crop_pct`".into(),
        };
        let wrong = |expected: &str, found: String| Error::Setting {
            place: place(),
            key: "pretrained_cfg.crop_pct".into(),
            expected: expected.into(),
            found,
            remedy: "give `resize` or `crop_pct`".into(),
        };
        if !(share > 0.0 && share <= 1.0 && short <= f64::from(u16::MAX)) {
            return Err(wrong("a share above 0 and at most 1", share.to_string()));
        }
        if squash {
            let side = |n: usize| (n as f64 / share).floor() as usize;
            return Ok(match share == 1.0 {
                true => Resize::Squash,
                false => Resize::SquashTo([side(height), side(width)]),
            });
        }
        if height != width {
            return Err(wrong("a square image for a centre crop", format!("{height}×{width}")));
        }
        Ok(Resize::ShortSide(short as usize))
    }

    fn interpolation(&mut self) -> Result<Interpolation, Error> {
        if let Some(interpolation) = self.overrides.interpolation {
            return Ok(interpolation);
        }
        let key = "pretrained_cfg.interpolation";
        let stated = match self.settings {
            Some(settings) => settings.text(key)?,
            None => None,
        };
        match (self.settings, stated) {
            (_, Some("nearest")) => Ok(Interpolation::Nearest),
            (_, Some("bilinear")) => Ok(Interpolation::Bilinear),
            (_, Some("bicubic")) => Ok(Interpolation::Bicubic),
            (Some(settings), Some(_)) => {
                let expected = "nearest, bilinear or bicubic";
                Err(settings.unsupported(key, expected, "give `interpolation`"))
            }
            (None, _) if self.layout == Layout::Torchvision => {
                self.assumed.push("interpolation: bilinear".into());
                Ok(Interpolation::Bilinear)
            }
            _ => {
                self.assumed.push("interpolation: bicubic".into());
                Ok(Interpolation::Bicubic)
            }
        }
    }
}
