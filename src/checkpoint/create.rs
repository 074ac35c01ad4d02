//! Writes a new checkpoint in timm's layout, which timm can load.

use super::output::{check_writable, is_file_name, replace, replace_with, target};
use super::provenance::to_value;
use super::save::check_names;
use super::{CONFIG_KEY, Entry, Error, Header, PROVENANCE_KEY, Provenance, TensorDtype};
use crate::data::{CropOffset, Interpolation, Preprocess, Resize};
use crate::models::{Config, Weights, arch};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes a model as f32 with timm's `config.json`, which
/// `timm.create_model("local-dir:FOLDER", pretrained=True)` reads; returns the weights file's
/// path. If `out` ends in `.safetensors`, the configuration goes into the file's metadata.
///
/// # Errors
/// [`Error::ClassNames`] if the number of names is not the number of classes;
/// [`Error::Inexpressible`] for a model that timm's arguments cannot express; those of
/// [`check_writable`]; [`Error::Io`].
pub fn create(
    out: &Path,
    config: &Config,
    preprocess: Option<&Preprocess>,
    weights: &Weights,
    class_names: Option<&[String]>,
    provenance: &Provenance,
) -> Result<PathBuf, Error> {
    check_names(class_names, config.classes())?;
    if let Config::Vit(config) = config
        && let Some(reason) = arch::not_for_timm(config)
    {
        return Err(Error::Inexpressible { reason });
    }
    if let Config::ConvNext(config) = config
        && let Some(reason) = arch::convnext_not_for_timm(config)
    {
        return Err(Error::Inexpressible { reason });
    }
    let image_size = config.image_size();
    if let Some(Resize::SquashTo([height, width])) = preprocess.map(|p| p.resize) {
        let share = crop_share(image_size[0], height);
        if (image_size[1] as f64 / share).floor() as usize != width {
            let reason = "timm crops the same fraction of both sides".into();
            return Err(Error::Inexpressible { reason });
        }
    }
    if preprocess.is_some_and(|p| p.resize != Resize::Squash && p.crop_offset == CropOffset::Down) {
        let reason = "timm's centre crop rounds half a pixel to even, not down".into();
        return Err(Error::Inexpressible { reason });
    }
    check_writable(out)?;
    let configuration = configuration(config, preprocess, class_names);
    let mut metadata = vec![
        ("format".to_string(), "pt".to_string()),
        (PROVENANCE_KEY.to_string(), Value::Array(vec![to_value(provenance)?]).to_string()),
    ];
    if is_file_name(out) {
        metadata.push((CONFIG_KEY.to_string(), configuration.to_string()));
    }
    let mut entries = Vec::new();
    let mut at = 0;
    for (name, tensor) in weights.iter() {
        let end = at + 4 * tensor.elem_count();
        entries.push(Entry {
            name: name.to_string(),
            dtype: TensorDtype::F32.name().to_string(),
            shape: tensor.dims().to_vec(),
            span: (at, end),
        });
        at = end;
    }
    let header = Header { metadata, entries, data_start: 0 };
    let path = target(out);
    replace(&path, |file| {
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(&path, "write"));
        put(&header.to_bytes())?;
        weights.iter().try_for_each(|(_, tensor)| put(&TensorDtype::F32.encode(tensor)?))
    })?;
    if !is_file_name(out) {
        let text = format!("{configuration:#}\n");
        replace_with(&out.join("config.json"), text.as_bytes())?;
    }
    Ok(path)
}

/// timm's `config.json`.
fn configuration(
    config: &Config,
    preprocess: Option<&Preprocess>,
    class_names: Option<&[String]>,
) -> Value {
    let (architecture, model_args) = match config {
        Config::Vit(config) => arch::timm_architecture(config),
        Config::Mixer(config) => arch::timm_mixer(config),
        Config::ConvNext(config) => arch::timm_convnext(config),
    };
    let fixed = !matches!(config, Config::ConvNext(_));
    let (features, pooling, first, classifier) = match config {
        Config::Vit(vit) => (vit.dim, arch::pooling_name(vit.pooling), "patch_embed.proj", "head"),
        Config::Mixer(mixer) => (mixer.dim, "avg", "stem.proj", "head"),
        Config::ConvNext(convnext) => (convnext.features(), "avg", "stem.0", "head.fc"),
    };
    let [height, width] = config.image_size();
    let mut images = json!({
        "custom_load": false,
        "input_size": [config.channels(), height, width],
        "fixed_input_size": fixed,
        "num_classes": config.classes(),
        "pool_size": null,
        "first_conv": first,
        "classifier": classifier,
    });
    if let Some(preprocess) = preprocess {
        images["interpolation"] = json!(filter_name(preprocess.interpolation));
        let (mode, share) = crop_of(preprocess.resize, [height, width]);
        images["crop_mode"] = json!(mode);
        images["crop_pct"] = json!(share);
        images["mean"] = short(&preprocess.mean);
        images["std"] = short(&preprocess.std);
    }
    let mut out = json!({
        "architecture": architecture,
        "num_classes": config.classes(),
        "num_features": features,
        "global_pool": pooling,
    });
    if let Some(names) = class_names {
        out["label_names"] = json!(names);
    }
    if let Some(args) = model_args {
        out["model_args"] = args;
    }
    out["pretrained_cfg"] = images;
    out
}

/// timm's name of a filter.
pub(super) fn filter_name(filter: Interpolation) -> &'static str {
    match filter {
        Interpolation::Nearest => "nearest",
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
    }
}

/// timm's `crop_mode` and `crop_pct` of a resize before a crop to this height and width.
pub(super) fn crop_of(resize: Resize, [height, width]: [usize; 2]) -> (&'static str, f64) {
    match resize {
        Resize::Squash => ("squash", 1.0),
        Resize::SquashTo([side, _]) => ("squash", crop_share(height, side)),
        Resize::ShortSide(side) => ("center", crop_share(height.min(width), side)),
    }
}

/// f32 values with the fewest digits that identify them.
pub(super) fn short(values: &[f32]) -> Value {
    values.iter().map(|x| json!(x.to_string().parse::<f64>().unwrap_or(f64::from(*x)))).collect()
}

/// The fraction c for which ⌊crop / c⌋ gives the short side again: their quotient, or slightly less
/// if rounding would lose a pixel.
fn crop_share(crop: usize, side: usize) -> f64 {
    let share = crop as f64 / side as f64;
    if (crop as f64 / share).floor() < side as f64 { share.next_down() } else { share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crop_fractions_round_trip() {
        for crop in 1..400usize {
            for side in crop..500 {
                let share = crop_share(crop, side);
                assert!(share <= 1.0);
                assert_eq!((crop as f64 / share).floor() as usize, side, "{crop} of {side}");
            }
        }
    }
}
