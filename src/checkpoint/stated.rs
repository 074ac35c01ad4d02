//! Preprocessing that options set, written into the configuration of a saved checkpoint.

use super::create::{crop_of, filter_name, short};
use super::read::{position_rows, structure};
use super::reader::{Dialect, Reader};
use super::settings::{PREPROCESSOR_FILE, Settings};
use super::{Checkpoint, Error, Load};
use crate::data::{Interpolation, Preprocess, Resize};
use crate::models::Config;
use serde_json::{Map, Value, json};

impl Checkpoint {
    /// The configuration and the image processor to save: `settings`, and the processor that was
    /// read, with the preprocessing that this checkpoint's options set.
    ///
    /// Both are unchanged if they state it already, or if the edited files would not be read as
    /// the same preprocessing, as for a model without a configuration.
    pub(super) fn with_image_options(
        &self,
        settings: Option<&Settings>,
    ) -> (Option<Settings>, Option<Settings>) {
        let kept = (settings.cloned(), self.images.clone());
        if self.loaded_with.image_options().is_empty()
            || self.states(self.settings.as_ref(), self.images.as_ref())
        {
            return kept;
        }
        let (Some(preprocess), Some(own)) = (&self.preprocess, &self.settings) else {
            return kept;
        };
        let dialect = Dialect::of(Some(own), self.layout);
        let images = match dialect {
            Dialect::Timm => None,
            Dialect::Transformers => Some(self.processor(preprocess)),
        };
        let edit = |settings: &Settings| match dialect {
            Dialect::Timm => self.in_timm_configuration(settings, preprocess),
            Dialect::Transformers => self.in_transformers_configuration(settings, preprocess),
        };
        match self.states(Some(&edit(own)), images.as_ref()) {
            true => (settings.map(edit), images),
            false => kept,
        }
    }

    /// Whether these files state the preprocessing of this checkpoint without its options.
    fn states(&self, settings: Option<&Settings>, images: Option<&Settings>) -> bool {
        let read = || -> Result<(Config, Option<Preprocess>), Error> {
            let overrides = self.loaded_with.without_image_options();
            let mut reader = Reader {
                path: &self.path,
                layout: self.layout,
                dialect: Dialect::of(settings, self.layout),
                settings,
                images,
                overrides: &overrides,
                assumed: Vec::new(),
            };
            let config = match structure(&self.path, &self.names, &self.header)? {
                Config::Vit(config) => {
                    let rows = position_rows(&self.names, &self.header);
                    Config::Vit(reader.complete(config, rows)?)
                }
                Config::Mixer(config) => Config::Mixer(reader.complete_mixer(config)?),
                Config::ConvNext(config) => Config::ConvNext(reader.complete_convnext(config)?),
            };
            let preprocess = reader.preprocess(&config)?;
            Ok((config, preprocess))
        };
        read().is_ok_and(|(config, preprocess)| {
            config.image_size() == self.config.image_size() && preprocess == self.preprocess
        })
    }

    /// timm's `pretrained_cfg` with the values that options set.
    fn in_timm_configuration(&self, settings: &Settings, preprocess: &Preprocess) -> Settings {
        let Load { image_size, mean, std, interpolation, resize, crop_pct, .. } = &self.loaded_with;
        settings.edited(|file| {
            let Some(images) = timm_images(file) else { return };
            let [height, width] = preprocess.image_size;
            if image_size.is_some() {
                put(images, "input_size", json!([preprocess.channels, height, width]));
            }
            if mean.is_some() {
                put(images, "mean", short(&preprocess.mean));
            }
            if std.is_some() {
                put(images, "std", short(&preprocess.std));
            }
            if interpolation.is_some() {
                put(images, "interpolation", json!(filter_name(preprocess.interpolation)));
            }
            if resize.is_some() {
                let (mode, share) = crop_of(preprocess.resize, preprocess.image_size);
                put(images, "crop_mode", json!(mode));
                put(images, "crop_pct", json!(share));
            }
            if let Some(share) = crop_pct {
                put(images, "crop_pct", json!(share));
            }
        })
    }

    /// transformers' configuration with the image size that an option set.
    fn in_transformers_configuration(
        &self,
        settings: &Settings,
        preprocess: &Preprocess,
    ) -> Settings {
        let [height, width] = preprocess.image_size;
        settings.edited(|file| {
            // The configuration of DINOv2 states the size of its stored position embedding.
            let resizes = self.config.vit().is_some_and(|vit| vit.position_resize.is_some());
            if self.loaded_with.image_size.is_some() && !resizes {
                let size = if height == width { json!(height) } else { json!([height, width]) };
                put(file, "image_size", size);
            }
        })
    }

    /// transformers' image processor with the steps that options set. Without one, or with another
    /// resize, it is written anew.
    fn processor(&self, preprocess: &Preprocess) -> Settings {
        let Load { mean, std, interpolation, resize, image_size, .. } = &self.loaded_with;
        let fresh = resize.is_some() || image_size.is_some();
        let (old, fresh) = match &self.images {
            Some(images) => (images.clone(), fresh),
            None => (Settings::empty(PREPROCESSOR_FILE), true),
        };
        old.edited(|file| {
            if fresh {
                file.clear();
                put_resize(file, preprocess);
            }
            if fresh || interpolation.is_some() {
                put(file, "resample", json!(resample(preprocess.interpolation)));
            }
            if fresh || mean.is_some() || std.is_some() {
                // The moments are those of pixels from 0 to 1.
                put(file, "do_rescale", json!(true));
                put(file, "rescale_factor", json!(1.0 / 255.0));
                file.remove("rescale_offset");
                put(file, "do_normalize", json!(true));
                put(file, "image_mean", short(&preprocess.mean));
                put(file, "image_std", short(&preprocess.std));
            }
        })
    }
}

/// Where timm's configuration has the preprocessing. In its old form this is the configuration
/// itself.
fn timm_images(file: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    match file.contains_key("architecture") && !file.contains_key("pretrained_cfg") {
        true => Some(file),
        false => file.entry("pretrained_cfg").or_insert_with(|| json!({})).as_object_mut(),
    }
}

/// The resize and the crop, and the processor of transformers that does them.
fn put_resize(file: &mut Map<String, Value>, preprocess: &Preprocess) {
    let sides = |[height, width]: [usize; 2]| json!({ "height": height, "width": width });
    let (kind, size) = match preprocess.resize {
        Resize::Squash => ("ViT", sides(preprocess.image_size)),
        Resize::SquashTo(size) => ("DeiT", sides(size)),
        Resize::ShortSide(side) => ("CLIP", json!({ "shortest_edge": side })),
    };
    let crops = preprocess.resize != Resize::Squash;
    put(file, "image_processor_type", json!(format!("{kind}ImageProcessor")));
    put(file, "do_convert_rgb", json!(preprocess.channels == 3));
    put(file, "do_resize", json!(true));
    put(file, "size", size);
    put(file, "do_center_crop", json!(crops));
    if crops {
        put(file, "crop_size", sides(preprocess.image_size));
    }
}

/// Pillow's number of the filter.
fn resample(filter: Interpolation) -> usize {
    match filter {
        Interpolation::Nearest => 0,
        Interpolation::Bilinear => 2,
        Interpolation::Bicubic => 3,
    }
}

fn put(object: &mut Map<String, Value>, key: &str, value: Value) {
    object.insert(key.into(), value);
}
