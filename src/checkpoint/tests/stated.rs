//! Preprocessing that options set, in written checkpoints.

use super::layouts::in_layout;
use super::*;

/// Opens `from` with options, saves it, and returns the folder and the saved configuration files.
fn saved(from: &Path, load: &Load) -> (TempDir, Checkpoint, Value, Option<Value>) {
    let checkpoint = Checkpoint::open(from, load).unwrap();
    let out = TempDir::new().unwrap();
    let to = out.path().join("new");
    checkpoint.save(&to, &checkpoint.weights, &provenance("sgd")).unwrap();
    assert_eq!(checkpoint.unstored_options_note(&to), None);
    let again = open(&to).unwrap();
    assert_eq!(again.preprocess, checkpoint.preprocess);
    assert_eq!(again.config, checkpoint.config);
    let file = |name: &str| fs::read_to_string(to.join(name)).ok();
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let config = file("config.json").map(json).unwrap();
    (out, checkpoint, config, file("preprocessor_config.json").map(json))
}

#[test]
fn options_are_written_into_a_timm_configuration() {
    let dir = folder(&raw(&small()), &configuration());
    let load = Load { mean: Some(vec![0.3]), std: Some(vec![0.2]), ..Load::default() };
    let (_out, _, config, _) = saved(dir.path(), &load);
    let mut expected = configuration();
    expected["pretrained_cfg"]["mean"] = json!([0.3]);
    expected["pretrained_cfg"]["std"] = json!([0.2]);
    assert_eq!(config, expected);

    let load = Load {
        interpolation: Some(Interpolation::Bicubic),
        resize: Some(Resize::SquashTo([32, 32])),
        ..Load::default()
    };
    let (_out, _, config, _) = saved(dir.path(), &load);
    let mut expected = configuration();
    expected["pretrained_cfg"]["interpolation"] = json!("bicubic");
    expected["pretrained_cfg"]["crop_mode"] = json!("squash");
    expected["pretrained_cfg"]["crop_pct"] = json!(0.875);
    assert_eq!(config, expected);

    let load = Load { crop_pct: Some(0.8), ..Load::default() };
    let (_out, found, config, _) = saved(dir.path(), &load);
    assert_eq!(found.preprocess.unwrap().resize, Resize::ShortSide(35));
    assert_eq!(config["pretrained_cfg"]["crop_pct"], json!(0.8));
}

#[test]
fn options_are_written_into_the_old_form_of_a_timm_configuration() {
    let mut old = configuration();
    let images = old.as_object_mut().unwrap().remove("pretrained_cfg").unwrap();
    old.as_object_mut().unwrap().extend(images.as_object().unwrap().clone());
    let dir = folder(&raw(&small()), &old);
    let load = Load { mean: Some(vec![0.3]), ..Load::default() };
    let (_out, _, config, _) = saved(dir.path(), &load);
    old["mean"] = json!([0.3]);
    assert_eq!(config, old);
}

/// transformers' configuration of [`small`].
fn transformers() -> Value {
    json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit",
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "image_size": 28, "patch_size": 7, "num_channels": 1, "qkv_bias": true,
    })
}

#[test]
fn options_are_written_into_an_image_processor() {
    let dir = folder(&in_layout(&small(), Layout::TransformersOld, "vit."), &transformers());
    // Levels from 0 to 255, as do_rescale is false.
    let images = json!({
        "image_processor_type": "ViTImageProcessor", "do_resize": true, "do_rescale": false,
        "do_normalize": true, "size": {"height": 28, "width": 28}, "resample": 2,
        "image_mean": [127.5], "image_std": [51.0], "do_convert_rgb": false,
    });
    fs::write(dir.path().join("preprocessor_config.json"), images.to_string()).unwrap();
    let load = Load { mean: Some(vec![0.25]), ..Load::default() };
    let (_out, _, config, found) = saved(dir.path(), &load);
    assert_eq!(config, transformers());
    let found = found.unwrap();
    assert_eq!(found["image_mean"], json!([0.25]));
    // 51/255.
    assert_eq!(found["image_std"], json!([0.2]));
    assert_eq!(
        (&found["do_rescale"], &found["rescale_factor"]),
        (&json!(true), &json!(1.0 / 255.0))
    );
    assert_eq!((&found["resample"], &found["do_convert_rgb"]), (&json!(2), &json!(false)));
}

#[test]
fn a_missing_image_processor_is_written_if_options_state_all_of_it() {
    let dir = folder(&in_layout(&small(), Layout::TransformersOld, "vit."), &transformers());
    for (resize, kind, size) in [
        (Resize::Squash, "ViTImageProcessor", json!({"height": 28, "width": 28})),
        (Resize::SquashTo([32, 36]), "DeiTImageProcessor", json!({"height": 32, "width": 36})),
        (Resize::ShortSide(32), "CLIPImageProcessor", json!({"shortest_edge": 32})),
    ] {
        let load = Load {
            mean: Some(vec![0.25]),
            std: Some(vec![0.5]),
            resize: Some(resize),
            interpolation: Some(Interpolation::Bicubic),
            ..Load::default()
        };
        let (_out, _, _, images) = saved(dir.path(), &load);
        let images = images.unwrap();
        assert_eq!((&images["image_processor_type"], &images["size"]), (&json!(kind), &size));
        assert_eq!(images["do_center_crop"], json!(resize != Resize::Squash));
        assert_eq!(images["resample"], json!(3));
    }
}

#[test]
fn a_file_without_a_configuration_gets_a_note() {
    let dir = TempDir::new().unwrap();
    let from = dir.path().join("bare.safetensors");
    write(&from, &raw(&small()), &[]);
    let load = Load {
        heads: Some(2),
        mean: Some(vec![0.25]),
        std: Some(vec![0.5]),
        image_size: Some([28, 28]),
        ..Load::default()
    };
    let checkpoint = Checkpoint::open(&from, &load).unwrap();
    let to = dir.path().join("new.safetensors");
    checkpoint.save(&to, &checkpoint.weights, &provenance("sgd")).unwrap();
    let note = checkpoint.unstored_options_note(&to).unwrap();
    assert!(note.contains("`mean`, `std`"), "{note}");
}

#[test]
fn configurations_that_agree_with_the_options_keep_their_text() {
    let dir = folder(&raw(&small()), &configuration());
    let load = Load { mean: Some(vec![0.25]), std: Some(vec![0.5]), ..Load::default() };
    let checkpoint = Checkpoint::open(dir.path(), &load).unwrap();
    let to = dir.path().join("new");
    checkpoint.save(&to, &checkpoint.weights, &provenance("sgd")).unwrap();
    let text = |folder: &Path| fs::read_to_string(folder.join("config.json")).unwrap();
    assert_eq!(text(&to), text(dir.path()));
}
