//! transformers' `preprocessor_config.json`: the preprocessing by its image processors.

use super::Error;
use super::reader::Reader;
use super::settings::Settings;
use crate::data::{CropOffset, Interpolation, Preprocess, Resize};
use crate::models::Config;

/// transformers' default factor for levels, which maps them to units of the full scale.
const FULL_SCALE: f64 = 1.0 / 255.0;

/// The preprocessing steps of planish.
const STEPS: &str = "a resize, a centre crop, a scaling of levels and a normalisation";

/// Settings that planish reads.
const READ: [&str; 14] = [
    "crop_pct",
    "crop_size",
    "do_center_crop",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "feature_extractor_type",
    "image_mean",
    "image_processor_type",
    "image_std",
    "rescale_factor",
    "rescale_offset",
    "resample",
    "size",
];

/// Settings that do not change the pixels of an RGB image. `default_to_square` is one of them,
/// because a single number as `size` is accepted only if it means a square.
const HARMLESS: [&str; 9] = [
    "data_format",
    "default_to_square",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "image_seq_length",
    "input_data_format",
    "processor_class",
    "return_tensors",
];

/// Kinds of processors that do these steps and whose defaults differ from a squash by the bilinear
/// filter; whether they take a single number as `size` for a square; whether they crop.
const KINDS: [(&str, bool, bool); 5] = [
    ("DeiT", true, true),
    ("Beit", false, true),
    ("Bit", false, true),
    ("CLIP", false, true),
    ("Siglip", false, false),
];

/// Suffixes of a processor's name after the kind.
const SUFFIXES: [&str; 4] =
    ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"];

/// Refuses processors with other steps, and unknown settings.
fn check_processor(images: &Settings) -> Result<(), Error> {
    let remedy = "set `resize`, `interpolation`, `mean` and `std`";
    for key in ["image_processor_type", "feature_extractor_type"] {
        let Some(name) = images.text(key)? else { continue };
        let kind = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        if kind == "ViT" {
            continue;
        }
        if kind == "ConvNext" {
            if shortest_edge(images)?.is_none() || !images.states("resample") {
                let means = "this processor has its own defaults for `size` and `resample`, and the \
                     file does not state them";
                return Err(images.not_computed(key, means, STEPS, remedy));
            }
            continue;
        }
        let Some(&(_, square, crops)) = KINDS.iter().find(|(known, ..)| *known == kind) else {
            let means = "planish does not know what this processor does";
            return Err(images.not_computed(key, means, STEPS, remedy));
        };
        let sized = images.get("size").is_some_and(|size| square || size.is_object());
        let crop_known = images.states("do_center_crop") || !crops;
        if !(sized && crop_known && images.states("resample")) {
            let means = "this processor has its own defaults for `size`, `do_center_crop` and \
                 `resample`, and the file does not state them all";
            return Err(images.not_computed(key, means, STEPS, remedy));
        }
    }
    for key in images.keys("") {
        let known = READ.contains(&key) || HARMLESS.contains(&key) || key.starts_with('_');
        let off = key.starts_with("do_") && images.is_off(key);
        if !known && !off {
            let means = "planish does not know what this setting changes";
            return Err(images.not_computed(key, means, STEPS, remedy));
        }
    }
    Ok(())
}

/// Whether the file belongs to ConvNeXt's processor.
fn is_convnext(images: &Settings) -> Result<bool, Error> {
    for key in ["image_processor_type", "feature_extractor_type"] {
        if images.text(key)?.is_some_and(|name| name.starts_with("ConvNext")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `size` of ConvNeXt's processor, which is the short side; also as a single number. `None` for another
/// processor.
pub(super) fn shortest_edge(images: &Settings) -> Result<Option<usize>, Error> {
    if !is_convnext(images)? {
        return Ok(None);
    }
    match images.get("size").is_some_and(serde_json::Value::is_number) {
        true => images.count("size"),
        false => images.count("size.shortest_edge"),
    }
}

/// The resize of ConvNeXt's processor: below 384 pixels, the short side to ⌊edge / crop_pct⌋ before a
/// centre crop; from 384 on, a squash.
fn convnext_resize(config: &Config, images: &Settings) -> Result<Resize, Error> {
    let remedy = "give `resize`";
    let edge = shortest_edge(images)?.unwrap_or(0);
    if config.image_size() != [edge; 2] {
        let expected = format!("the model's {:?}", config.image_size());
        return Err(images.unsupported("size", &expected, remedy));
    }
    if images.flag("do_center_crop")? == Some(true) {
        let means = "it crops the images a second time";
        return Err(images.not_computed("do_center_crop", means, STEPS, remedy));
    }
    if edge >= 384 {
        return Ok(Resize::Squash);
    }
    match images.number("crop_pct")? {
        Some(share) if share > 0.0 && share <= 1.0 => {
            Ok(Resize::ShortSide((edge as f64 / share) as usize))
        }
        _ => Err(images.unsupported("crop_pct", "a share above 0 and at most 1", remedy)),
    }
}

impl Reader<'_> {
    /// The preprocessing; `None` if mean and standard deviation are not stated.
    ///
    /// transformers computes (r x − m)/s on levels x with `rescale_factor` r; planish computes
    /// (x/255 − m′)/s′. They are equal for m′ = m/(255 r) and s′ = s/(255 r).
    ///
    /// # Errors
    /// Values of the wrong type or number, and unsupported steps.
    pub(super) fn transformers_images(
        &mut self,
        config: &Config,
    ) -> Result<Option<Preprocess>, Error> {
        let flags = self.overrides;
        let asked = flags.resize.is_some() && flags.interpolation.is_some();
        let replaced = flags.mean.is_some() && flags.std.is_some();
        let moments = match self.images {
            // If the user states every step, the file is ignored.
            Some(_) if asked && replaced => None,
            Some(images) => {
                check_processor(images)?;
                if replaced { None } else { stated_moments(images)? }
            }
            None => None,
        };
        let place = self.images.map_or("", |images| images.place.as_str());
        let mut values = Vec::new();
        for (option, given, i) in
            [("mean", &self.overrides.mean, 0), ("std", &self.overrides.std, 1)]
        {
            let (place, found) = match (given, &moments) {
                (Some(given), _) => (format!("`{option}`"), given.clone()),
                (None, Some(moments)) => (place.to_string(), moments[i].clone()),
                (None, None) => return Ok(None),
            };
            values.push(self.per_channel(
                place,
                format!("image_{option}"),
                found,
                config.channels(),
            )?);
        }
        let (std, mean) = (values.pop().unwrap_or_default(), values.pop().unwrap_or_default());
        Ok(Some(Preprocess {
            image_size: config.image_size(),
            channels: config.channels(),
            resize: self.transformers_resize(config)?,
            crop_offset: CropOffset::Down,
            interpolation: self.transformers_filter()?,
            mean,
            std,
        }))
    }

    fn transformers_resize(&mut self, config: &Config) -> Result<Resize, Error> {
        if let Some(share) = self.overrides.crop_pct {
            return Err(Error::Option {
                option: "crop_pct",
                expected: "a resize in pixels, as transformers specifies it".into(),
                found: share.to_string(),
                remedy: "give `resize`",
            });
        }
        if let Some(resize) = self.overrides.resize {
            return Ok(resize);
        }
        let Some(images) = self.images else {
            self.assumed.push("resize: to the model's size, ignoring the aspect ratio".into());
            return Ok(Resize::Squash);
        };
        let remedy = "give `resize`";
        if images.flag("do_resize")? == Some(false) {
            return Err(images.unsupported("do_resize", "true", remedy));
        }
        if is_convnext(images)? {
            return convnext_resize(config, images);
        }
        if images.states("crop_pct") {
            let means = "it changes the resize of ConvNeXt's processor only";
            return Err(images.not_computed("crop_pct", means, STEPS, remedy));
        }
        let crops = images.flag("do_center_crop")? == Some(true);
        let crop = match images.get("crop_size") {
            Some(value) if value.is_object() => Some(sides(images, "crop_size")?),
            _ => images.pair("crop_size")?,
        };
        if crops && crop.is_some_and(|crop| crop != config.image_size()) {
            let expected = format!("the model's {:?}", config.image_size());
            return Err(images.unsupported("crop_size", &expected, remedy));
        }
        if images.get("size.shortest_edge").is_some() {
            let Some(edge) = images.count("size.shortest_edge")?.filter(|_| crops) else {
                let expected = "a centre crop after a resize of the shortest edge";
                return Err(images.unsupported("do_center_crop", expected, remedy));
            };
            return match edge >= config.image_size()[0].max(config.image_size()[1]) {
                true => Ok(Resize::ShortSide(edge)),
                false => {
                    let expected = "at least the side of the crop";
                    Err(images.unsupported("size.shortest_edge", expected, remedy))
                }
            };
        }
        let size = match images.get("size") {
            Some(value) if value.is_object() => Some(sides(images, "size")?),
            _ => images.pair("size")?,
        };
        match size {
            Some(size) if size == config.image_size() => Ok(Resize::Squash),
            None => {
                self.assumed.push("resize: to the model's size, ignoring the aspect ratio".into());
                Ok(Resize::Squash)
            }
            Some([height, width]) if crops => {
                let [least_height, least_width] = config.image_size();
                if height < least_height || width < least_width {
                    let expected = "at least the size of the crop";
                    return Err(images.unsupported("size", expected, remedy));
                }
                Ok(Resize::SquashTo([height, width]))
            }
            Some(_) => {
                let expected = format!("the model's {:?}", config.image_size());
                Err(images.unsupported("size", &expected, remedy))
            }
        }
    }

    fn transformers_filter(&mut self) -> Result<Interpolation, Error> {
        if let Some(interpolation) = self.overrides.interpolation {
            return Ok(interpolation);
        }
        let stated = match self.images {
            Some(images) => images.count("resample")?.map(|filter| (images, filter)),
            None => None,
        };
        match stated {
            Some((_, 0)) => Ok(Interpolation::Nearest),
            Some((_, 2)) => Ok(Interpolation::Bilinear),
            Some((_, 3)) => Ok(Interpolation::Bicubic),
            Some((images, _)) => {
                let expected = "0 (nearest), 2 (bilinear) or 3 (bicubic)";
                Err(images.unsupported("resample", expected, "give `interpolation`"))
            }
            None => {
                self.assumed.push("interpolation: bilinear".into());
                Ok(Interpolation::Bilinear)
            }
        }
    }
}

/// A size with both sides, as an object or a number; `None` if it is not stated or has one side only.
pub(super) fn extent(images: &Settings, key: &str) -> Result<Option<[usize; 2]>, Error> {
    match images.get(key) {
        Some(value) if value.get("height").is_some() => sides(images, key).map(Some),
        Some(value) if value.is_object() => Ok(None),
        _ => images.pair(key),
    }
}

/// Height and width of an object that has both.
fn sides(images: &Settings, key: &str) -> Result<[usize; 2], Error> {
    let side = |side: &str| images.count(&format!("{key}.{side}"));
    match (side("height")?, side("width")?) {
        (Some(height), Some(width)) => Ok([height, width]),
        _ => Err(images.unsupported(key, "a number, or height and width", "give `resize`")),
    }
}

/// Mean and standard deviation in units of the full scale, if the file states the normalisation.
fn stated_moments(images: &Settings) -> Result<Option<[Vec<f32>; 2]>, Error> {
    let remedy = "give `mean` and `std`";
    if images.flag("rescale_offset")? == Some(true) {
        return Err(images.unsupported("rescale_offset", "false", remedy));
    }
    let factor = match images.flag("do_rescale")? {
        Some(false) => 1.0,
        _ => images.number("rescale_factor")?.unwrap_or(FULL_SCALE),
    };
    if factor <= 0.0 {
        return Err(images.unsupported("rescale_factor", "a positive number", remedy));
    }
    let (mean, std) = match images.flag("do_normalize")? {
        Some(false) => (vec![0.0], vec![1.0]),
        _ => match (images.numbers("image_mean")?, images.numbers("image_std")?) {
            (Some(mean), Some(std)) => (mean, std),
            _ => return Ok(None),
        },
    };
    // Allow for 1/255 written in decimals.
    let scale = factor * 255.0;
    let scale = if (scale - 1.0).abs() < 1e-9 { 1.0 } else { scale };
    check_unit(images, scale, &mean, &std)?;
    let scaled = |x: Vec<f32>| x.iter().map(|&x| (f64::from(x) / scale) as f32).collect();
    Ok(Some([scaled(mean), scaled(std)]))
}

/// Checks that mean and standard deviation are those of pixels from 0 to `scale`.
///
/// Pixels in other units than the full scale are rare. A file that states them by mistake, such as
/// `do_rescale: false` with an `image_std` of 0.5, divides by less than the distance of two levels.
fn check_unit(images: &Settings, scale: f64, mean: &[f32], std: &[f32]) -> Result<(), Error> {
    let least = if scale == 1.0 { 0.0 } else { scale / 255.0 };
    // The values of the file are rounded to single precision.
    let within = |x: f32, from: f64| f64::from(x) >= from * (1.0 - 1e-6) && f64::from(x) <= scale;
    let fits = |x: f32| within(x, least) && x > 0.0;
    let (key, range) = if !mean.iter().all(|&x| within(x, 0.0)) {
        ("image_mean", format!("from 0 to {scale}"))
    } else if !std.iter().all(|&x| fits(x)) {
        let least = if least > 0.0 { format!("at least {least}") } else { "above 0".into() };
        ("image_std", format!("{least} and at most {scale}"))
    } else {
        return Ok(());
    };
    let unit = match images.flag("do_rescale")? {
        Some(false) => "levels 0 to 255, as do_rescale is false".to_owned(),
        _ => format!("pixels from 0 to {scale}, as rescale_factor makes them"),
    };
    let expected = format!("numbers {range}, in units of {unit}");
    let remedy = match scale == 1.0 {
        true => "divide levels by 255, or give `mean` and `std`",
        false => "correct do_rescale and rescale_factor, or give `mean` and `std`",
    };
    Err(images.unsupported(key, &expected, remedy))
}
