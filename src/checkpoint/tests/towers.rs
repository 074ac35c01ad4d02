//! DINOv2, CLIP and SigLIP as transformers saves them, with changed configurations and names.

use super::*;
use crate::models::vit::Activation;

/// A folder of `tests/reference/layouts`, with a changed configuration and changed tensors.
fn changed(
    name: &str,
    config: impl FnOnce(&mut Value),
    tensors: impl FnOnce(&mut Tensors),
) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/layouts").join(name);
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    tensors(&mut all);
    let text = fs::read_to_string(from.join("config.json")).unwrap();
    let mut configuration: Value = serde_json::from_str(&text).unwrap();
    config(&mut configuration);
    let dir = folder(&all, &configuration);
    let name = "preprocessor_config.json";
    fs::copy(from.join(name), dir.path().join(name)).unwrap();
    dir
}

type Tensors = HashMap<String, Raw>;

fn configured(name: &str, key: &str, value: Value) -> Result<Checkpoint, Error> {
    let config = |config: &mut Value| {
        let target = match config.get("vision_config").is_some() && !key.contains('/') {
            true => &mut config["vision_config"],
            false => config,
        };
        target[key.trim_start_matches('/')] = value;
    };
    open(changed(name, config, |_| {}).path())
}

#[test]
fn contradictions_with_the_tensors() {
    for (name, key, value) in [
        ("transformers5-dinov2", "image_size", json!(8)),
        ("transformers5-dinov2", "mlp_ratio", json!(4)),
        ("transformers5-dinov2", "use_swiglu_ffn", json!(true)),
        ("transformers5-dinov2", "qkv_bias", json!(false)),
        ("transformers5-dinov2", "model_type", json!("dinov2_with_registers")),
        ("transformers5-dinov2", "model_type", json!("vit")),
        ("transformers5-dinov2-registers", "model_type", json!("dinov2")),
        ("transformers5-dinov2-registers", "num_register_tokens", json!(4)),
        ("transformers5-dinov2-saved", "mlp_ratio", json!(4)),
        ("transformers5-clip", "hidden_size", json!(16)),
        ("transformers5-clip", "intermediate_size", json!(16)),
        ("transformers5-clip", "/model_type", json!("siglip")),
        ("transformers5-siglip", "/model_type", json!("vit")),
        ("transformers5-siglip", "image_size", json!(16)),
        ("transformers5", "model_type", json!("dinov2")),
    ] {
        let found = configured(name, key, value).unwrap_err();
        assert!(matches!(found, Error::Contradiction { .. }), "{name} {key}: {found}");
    }
}

#[test]
fn unsupported_settings() {
    for (name, key, value) in [
        ("transformers5-dinov2", "hidden_act", json!("relu")),
        ("transformers5-dinov2", "rope_theta", json!(100)),
        ("transformers5-dinov2", "problem_type", json!("regression")),
        ("transformers5-clip", "hidden_act", json!("relu")),
        ("transformers5-clip", "strange", json!(1)),
        ("transformers5-siglip", "/strange", json!(1)),
        ("transformers5-siglip", "/model_type", json!("siglip2")),
    ] {
        let found = configured(name, key, value).unwrap_err();
        assert!(matches!(found, Error::NotComputed { .. }), "{name} {key}: {found}");
    }
}

/// transformers takes images of any size that patches tile; the option replaces the processor's.
#[test]
fn dinov2_takes_images_of_another_size_than_its_positions() {
    let dir = changed("transformers5-dinov2", |_| {}, |_| {});
    let sized =
        |size| Checkpoint::open(dir.path(), &Load { image_size: Some(size), ..Load::default() });
    let resize = Some(Resize::Squash);
    let option = Load { image_size: Some([16, 8]), resize, ..Load::default() };
    let found = Checkpoint::open(dir.path(), &option).unwrap();
    let vit = found.config.vit().unwrap();
    assert_eq!((vit.image_size, vit.tokens()), ([16, 8], 1 + 4 * 2));
    assert_eq!(vit.position_resize.unwrap().grid, [3, 3]);
    assert_eq!(found.weights.get("pos_embed").unwrap().dims(), [1, 10, 8]);
    assert!(matches!(sized([10, 10]), Err(Error::Contradiction { .. })));
    // The written files state the size in the processor, not as that of the positions.
    let out = TempDir::new().unwrap();
    found.save(&out.path().join("x"), &found.weights, &provenance("sgd")).unwrap();
    let again = open(&out.path().join("x")).unwrap();
    assert_eq!((&again.config, &again.preprocess), (&found.config, &found.preprocess));
    let text = fs::read_to_string(out.path().join("x/config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["image_size"], json!(12));
}

/// A file without its last norm must not pass for a network without one.
#[test]
fn a_missing_last_norm_is_missing() {
    let mut tensors = raw(&small());
    tensors.retain(|name, _| !name.starts_with("norm."));
    let found = open(folder(&tensors, &configuration()).path()).unwrap_err();
    assert!(
        matches!(&found, Error::Tensors { report, .. } if report.missing.len() == 2),
        "{found}"
    );
    let mut stated = configuration();
    stated["model_args"]["final_norm"] = json!(false);
    assert!(open(folder(&tensors, &stated).path()).is_ok());
}

/// The norms of queries and keys have as many numbers as a head.
#[test]
fn norms_of_queries_show_the_heads() {
    let tensors = raw(&Config { qk_norm: true, ..small() });
    let mut nameless = configuration();
    nameless.as_object_mut().unwrap().remove("architecture");
    nameless["model_args"].as_object_mut().unwrap().remove("num_heads");
    let found = open(folder(&tensors, &nameless).path()).unwrap();
    assert_eq!(found.config.vit().unwrap(), &Config { qk_norm: true, ..small() });
    nameless["model_args"]["num_heads"] = json!(4);
    let found = open(folder(&tensors, &nameless).path()).unwrap_err();
    assert!(matches!(found, Error::Contradiction { key: "heads", .. }), "{found}");
}

/// CLIP's nested configuration does not state values that are the defaults. An older dictionary beside
/// it replaces all values, by its own or by the defaults.
#[test]
fn nested_configurations_of_clip() {
    let activation = |config: &dyn Fn(&mut Value)| {
        let dir = changed("transformers5-clip-gelu-f16", |value| config(value), |_| {});
        open(dir.path()).map(|found| found.config.vit().unwrap().activation)
    };
    assert_eq!(activation(&|_| {}).unwrap(), Activation::Gelu);
    let silent = |config: &mut Value| {
        config["vision_config"].as_object_mut().unwrap().remove("hidden_act");
    };
    assert_eq!(activation(&silent).unwrap(), Activation::QuickGelu);
    let earlier = |config: &mut Value| {
        config["vision_config_dict"] = json!({"num_attention_heads": 2});
    };
    assert_eq!(activation(&earlier).unwrap(), Activation::QuickGelu);
    let contradicting = |config: &mut Value| {
        config["vision_config_dict"] = json!({"num_attention_heads": 2, "hidden_size": 16});
    };
    assert!(matches!(activation(&contradicting), Err(Error::Contradiction { .. })));
}

/// A bare backbone, alone or with the rest of the model around it.
#[test]
fn backbones_get_a_head() {
    for (name, root, width) in [
        ("transformers5-dinov2", "dinov2.", 16),
        ("transformers5-dinov2-registers", "dinov2_with_registers.", 16),
        ("transformers5-clip", "vision_model.", 8),
        ("transformers5-siglip", "vision_model.", 8),
    ] {
        for stripped in [false, true] {
            let dir = changed(
                name,
                |_| {},
                |tensors| {
                    tensors.retain(|name, _| !name.starts_with("classifier."));
                    if root == "vision_model." && !stripped {
                        tensors.insert("logit_scale".into(), (Dtype::F32, vec![], vec![0; 4]));
                        let text = "text_model.encoder.layers.0.mlp.fc1.bias";
                        tensors.insert(text.into(), (Dtype::F32, vec![2], vec![0; 8]));
                    }
                    if stripped {
                        let strip = |(name, raw): (String, Raw)| {
                            (name.strip_prefix(root).unwrap_or(&name).to_string(), raw)
                        };
                        *tensors = std::mem::take(tensors).into_iter().map(strip).collect();
                    }
                },
            );
            let found = open(dir.path()).unwrap_err();
            assert!(matches!(found, Error::NoClassifier { .. }), "{name}: {found}");
            let found = Checkpoint::open_backbone(dir.path(), &Load::default(), 5).unwrap();
            assert!(found.headless);
            assert_eq!(found.weights.get("head.weight").unwrap().dims(), [5, width]);
            assert_eq!(found.file_tensors("head.bias").unwrap(), ["classifier.bias"]);
        }
    }
}
