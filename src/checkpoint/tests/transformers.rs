//! transformers' configuration and image processor.

use super::layouts::in_layout;
use super::*;
use crate::models::vit::Activation;

/// The configuration that transformers writes for [`small`].
fn configuration() -> Value {
    json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit",
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "image_size": 28, "patch_size": 7, "num_channels": 1, "qkv_bias": true,
        "id2label": {"0": "cat", "1": "dog", "2": "bird"},
    })
}

/// The configuration of transformers' image processor, for images with one channel.
fn images() -> Value {
    json!({
        "do_resize": true, "do_rescale": true, "do_normalize": true,
        "size": {"height": 28, "width": 28}, "resample": 2,
        "rescale_factor": 0.00392156862745098, "image_mean": [0.5], "image_std": [0.25],
    })
}

fn open_with(configuration: &Value, images: Option<&Value>) -> Result<Checkpoint, Error> {
    let dir = folder(&in_layout(&small(), Layout::TransformersOld, "vit."), configuration);
    if let Some(images) = images {
        fs::write(dir.path().join("preprocessor_config.json"), images.to_string()).unwrap();
    }
    open(dir.path())
}

fn changed(mut json: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        json[key] = value.clone();
    }
    json
}

#[test]
fn the_configuration_takes_precedence_over_defaults() {
    let found = open_with(&configuration(), Some(&images())).unwrap();
    assert_eq!(found.config.vit().unwrap(), &Config { eps: 1e-12, ..small() });
    assert_eq!(found.assumed, Vec::<String>::new());
    assert_eq!(found.architecture, "ViTForImageClassification");
    assert_eq!(found.class_names.unwrap(), ["cat", "dog", "bird"]);
    for (name, activation) in [
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
    ] {
        let changes = json!({"hidden_act": name, "layer_norm_eps": 1e-5, "image_size": [28, 28]});
        let found = open_with(&changed(configuration(), &changes), None).unwrap();
        assert_eq!(
            (found.config.vit().unwrap().activation, found.config.vit().unwrap().eps),
            (activation, 1e-5)
        );
        assert_eq!(found.preprocess, None);
    }
    let mut minimal = configuration();
    for key in ["hidden_act", "layer_norm_eps", "id2label", "image_size"] {
        minimal.as_object_mut().unwrap().remove(key);
    }
    let found = open_with(&minimal, None).unwrap();
    assert_eq!(found.config.vit().unwrap(), &Config { eps: 1e-12, ..small() });
    let assumed = found.assumed.join("; ");
    for part in ["1e-12", "exact GELU", "image size 28×28"] {
        assert!(assumed.contains(part), "{assumed}");
    }
    let nameless = json!({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}});
    assert_eq!(open_with(&changed(configuration(), &nameless), None).unwrap().class_names, None);
}

#[test]
fn configurations_that_contradict_the_tensors() {
    for changes in [
        json!({"hidden_size": 16}),
        json!({"num_hidden_layers": 3}),
        json!({"intermediate_size": 32}),
        json!({"num_channels": 3}),
        json!({"patch_size": 14}),
        json!({"patch_size": [7, 14]}),
        json!({"image_size": 56}),
        json!({"num_attention_heads": 3}),
        json!({"num_attention_heads": 0}),
        json!({"qkv_bias": false}),
        json!({"num_labels": 4}),
        json!({"id2label": {"0": "cat", "1": "dog"}}),
    ] {
        let found = open_with(&changed(configuration(), &changes), None).unwrap_err();
        assert!(matches!(found, Error::Contradiction { .. }), "{changes}: {found}");
        assert!(found.to_string().contains("config.json"), "{found}");
    }
}

#[test]
fn unsupported_configurations() {
    for (changes, part) in [
        (json!({"layer_norm_eps": 0}), "between 0 and 1"),
        (json!({"id2label": {"0": "cat", "1": "dog", "3": "bird"}}), "without a gap"),
        (json!({"id2label": ["cat", "dog", "bird"]}), "without a gap"),
        (json!({"hidden_size": "8"}), "a whole number"),
    ] {
        let found = open_with(&changed(configuration(), &changes), None).unwrap_err();
        assert!(matches!(found, Error::Setting { .. }), "{changes}: {found}");
        assert!(found.to_string().contains(part), "{found}");
    }
    let mut minimal = configuration();
    minimal.as_object_mut().unwrap().remove("num_attention_heads");
    assert!(matches!(open_with(&minimal, None), Err(Error::HeadsUnknown { .. })));
}

#[test]
fn image_processors() {
    let read = |changes: Value| {
        let found = open_with(&configuration(), Some(&changed(images(), &changes))).unwrap();
        found.preprocess.unwrap()
    };
    let plain = read(json!({}));
    assert_eq!((plain.resize, plain.interpolation), (Resize::Squash, Interpolation::Bilinear));
    assert_eq!((plain.mean, plain.std), (vec![0.5], vec![0.25]));
    assert_eq!(read(json!({"size": 28, "resample": 3})).interpolation, Interpolation::Bicubic);
    assert_eq!(read(json!({"size": 28, "resample": 0})).interpolation, Interpolation::Nearest);
    let crop = json!({"size": {"shortest_edge": 32}, "do_center_crop": true, "crop_size": 28});
    let cropped = read(crop);
    assert_eq!(cropped.resize, Resize::ShortSide(32));
    assert_eq!(cropped.crop_offset, CropOffset::Down);
    let deit = json!({"size": 32, "do_center_crop": true, "crop_size": 28});
    assert_eq!(read(deit).resize, Resize::SquashTo([32, 32]));
    let raw = read(json!({"do_normalize": false, "image_mean": null}));
    assert_eq!((raw.mean, raw.std), (vec![0.0], vec![1.0]));
    // (x − 127.5)/51 on levels is (x/255 − 0.5)/0.2.
    let levels = read(json!({"do_rescale": false, "image_mean": [127.5], "image_std": [51.0]}));
    assert_eq!((levels.mean, levels.std), (vec![0.5], vec![0.2]));
    // Unscaled levels: x = (x/255 − 0)/(1/255).
    let plain = read(json!({"do_rescale": false, "do_normalize": false}));
    assert_eq!((plain.mean, plain.std), (vec![0.0], vec![1.0 / 255.0]));
    // (x/127.5 − 1)/0.5 on levels is (x/255 − 0.5)/0.25.
    let doubled = json!({"rescale_factor": 1.0 / 127.5, "image_mean": [1.0], "image_std": [0.5]});
    let doubled = read(doubled);
    assert_eq!((doubled.mean, doubled.std), (vec![0.5], vec![0.25]));
}

#[test]
fn mean_and_std_options_replace_the_normalisation_of_the_file() {
    let dir = folder(&in_layout(&small(), Layout::TransformersOld, "vit."), &configuration());
    let file = dir.path().join("preprocessor_config.json");
    fs::write(&file, changed(images(), &json!({"image_mean": [127.5]})).to_string()).unwrap();
    let flags = |mean: f32, std: f32| {
        let (mean, std) = (Some(vec![mean]), Some(vec![std]));
        Checkpoint::open(dir.path(), &Load { mean, std, ..Load::default() })
    };
    let found = flags(0.5, 0.2).unwrap().preprocess.unwrap();
    assert_eq!((found.mean, found.std), (vec![0.5], vec![0.2]));
    for (mean, std, flag) in [(127.5, 0.2, "`mean`"), (0.5, 51.0, "`std`")] {
        let found = flags(mean, std).unwrap_err();
        assert!(matches!(&found, Error::Setting { place, .. } if place == flag), "{found}");
        assert!(found.to_string().contains("full scale"), "{found}");
    }
}

#[test]
fn unsupported_image_processors() {
    for (changes, part) in [
        (json!({"resample": 1}), "`interpolation`"),
        (json!({"do_resize": false}), "`resize`"),
        (json!({"size": 32}), "`resize`"),
        (json!({"size": {"height": 28}}), "height and width"),
        (json!({"size": 14, "do_center_crop": true, "crop_size": 28}), "the size of the crop"),
        (json!({"do_center_crop": true, "crop_size": {"height": 14, "width": 14}}), "[28, 28]"),
        (json!({"size": {"shortest_edge": 32}}), "a centre crop"),
        (json!({"size": {"shortest_edge": 14}, "do_center_crop": true}), "the side of the crop"),
        (json!({"image_mean": [0.5, 0.5]}), "for each of 1 channels"),
        (json!({"image_std": [0.0]}), "above 0"),
        // Means and deviations in levels, although pixels are divided by 255 first.
        (json!({"image_mean": [127.5]}), "divide levels by 255"),
        (json!({"image_std": [51.0]}), "divide levels by 255"),
        (json!({"image_mean": [-0.5]}), "from 0 to 1"),
        // Fractions of the full scale, although pixels stay levels; and levels above 255.
        (json!({"do_rescale": false}), "do_rescale is false"),
        (json!({"rescale_factor": 1.0}), "as rescale_factor makes them"),
        (json!({"do_rescale": false, "image_std": [51], "image_mean": [300]}), "from 0 to 255"),
        (json!({"rescale_factor": 1.0 / 127.5, "image_std": [3.0]}), "at most 2"),
        (json!({"rescale_factor": 0.0}), "a positive number"),
        (json!({"rescale_offset": true}), "`mean`"),
    ] {
        let found = open_with(&configuration(), Some(&changed(images(), &changes))).unwrap_err();
        assert!(matches!(found, Error::Setting { .. }), "{changes}: {found}");
        let message = found.to_string();
        assert!(message.contains(part) && message.contains("preprocessor"), "{message}");
    }
    let found = open_with(&configuration(), Some(&json!("x"))).unwrap_err();
    assert!(matches!(found, Error::Setting { .. }), "{found}");
}
