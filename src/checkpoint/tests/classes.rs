//! Class names in the configuration that is saved with a retrained head.

use super::layouts::in_layout;
use super::*;

/// Weights with a new random head for `classes` classes.
fn retrained(checkpoint: &Checkpoint, classes: usize) -> Weights {
    let network = checkpoint.config.clone().with_classes(classes).network().unwrap();
    let random = Weights::random(&network, 9).unwrap();
    let tensor = |(name, fresh): (&str, &Tensor)| match checkpoint.weights.get(name) {
        Some(kept) if !name.starts_with("head") => kept.clone(),
        _ => fresh.clone(),
    };
    Weights::new(&network, random.iter().map(tensor).collect()).unwrap()
}

/// Saves with new classes, as a folder and as a file. Returns the configuration, the same in both.
fn saved(checkpoint: &Checkpoint, classes: usize, names: Option<&[&str]>) -> Value {
    let names: Option<Vec<String>> = names.map(|all| all.iter().map(|&n| n.into()).collect());
    let weights = retrained(checkpoint, classes);
    let dir = TempDir::new().unwrap();
    let (folder, file) = (dir.path().join("new"), dir.path().join("new.safetensors"));
    let mut found = Vec::new();
    for out in [&folder, &file] {
        let origin = provenance("finetune");
        checkpoint.save_with_classes(out, &weights, names.as_deref(), &origin).unwrap();
        let reopened = open(out).unwrap();
        assert_eq!(
            (reopened.layout, reopened.config.vit().unwrap().classes),
            (checkpoint.layout, classes)
        );
        assert_eq!(reopened.class_names, names);
        assert_eq!(reopened.preprocess, checkpoint.preprocess);
        for ((name, a), (_, b)) in reopened.weights.iter().zip(weights.iter()) {
            assert_eq!(a.dims(), b.dims(), "{name}");
            assert!(!numbers::moved(a, b).unwrap().contains(&true), "{name}");
        }
        found.push(reopened);
    }
    let text = fs::read_to_string(folder.join("config.json")).unwrap();
    let embedded = found[1].metadata.iter().find(|(key, _)| key == CONFIG_KEY);
    assert_eq!(embedded.map(|(_, text)| text), Some(&text));
    // The `safetensors` crate can read the file.
    safetensors::SafeTensors::deserialize(&fs::read(&file).unwrap()).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn new_classes_replace_the_old_ones_in_a_timm_configuration() {
    let mut original = configuration();
    original["label_names"] = json!(["cat", "dog", "emu"]);
    original["label_descriptions"] = json!({"cat": "a cat", "dog": "a dog", "emu": "a bird"});
    original["pretrained_cfg"]["num_classes"] = json!(3);
    original["pretrained_cfg"]["label_names"] = json!(["cat", "dog", "emu"]);
    original["model_args"]["num_classes"] = json!(3);
    let dir = folder(&raw(&small()), &original);
    let checkpoint = open(dir.path()).unwrap();
    for (classes, names) in [(3, vec!["fox", "cat", "gnu"]), (2, vec!["cat", "fox"])] {
        let mut expected = original.clone();
        expected["num_classes"] = json!(classes);
        expected["label_names"] = json!(names);
        expected["label_descriptions"] = json!({"cat": "a cat"});
        expected["model_args"]["num_classes"] = json!(classes);
        expected["pretrained_cfg"]["num_classes"] = json!(classes);
        expected["pretrained_cfg"].as_object_mut().unwrap().shift_remove("label_names");
        assert_eq!(saved(&checkpoint, classes, Some(&names)), expected);
    }
    for classes in [3, 5] {
        let found = saved(&checkpoint, classes, None).to_string();
        for old in ["cat", "dog", "emu", "label"] {
            assert!(!found.contains(old), "{found}");
        }
    }
}

#[test]
fn new_classes_replace_the_old_ones_in_a_transformers_configuration() {
    let original = json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit",
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "image_size": 28, "patch_size": 7, "num_channels": 1, "qkv_bias": true, "num_labels": 3,
        "id2label": {"0": "cat", "1": "dog", "2": "emu"},
        "label2id": {"cat": 0, "dog": 1, "emu": 2},
    });
    for layout in [Layout::Transformers, Layout::TransformersOld] {
        let dir = folder(&in_layout(&small(), layout, "vit."), &original);
        let checkpoint = open(dir.path()).unwrap();
        let mut expected = original.clone();
        expected["id2label"] = json!({"0": "fox", "1": "cat", "2": "gnu"});
        expected["label2id"] = json!({"fox": 0, "cat": 1, "gnu": 2});
        assert_eq!(saved(&checkpoint, 3, Some(&["fox", "cat", "gnu"])), expected);
        expected["num_labels"] = json!(2);
        expected["id2label"] = json!({"0": "fox", "1": "cat"});
        expected["label2id"] = json!({"fox": 0, "cat": 1});
        assert_eq!(saved(&checkpoint, 2, Some(&["fox", "cat"])), expected);
        // transformers writes these names for unnamed classes.
        expected["id2label"] = json!({"0": "LABEL_0", "1": "LABEL_1"});
        expected["label2id"] = json!({"LABEL_0": 0, "LABEL_1": 1});
        assert_eq!(saved(&checkpoint, 2, None), expected);
    }
}

#[test]
fn a_new_head_keeps_the_stored_type_the_order_and_all_other_tensors() {
    let mut tensors = raw(&small());
    let half = |bytes: &[u8]| -> Vec<u8> {
        let (values, _) = bytes.as_chunks::<4>();
        let half = |x: &[u8; 4]| half::f16::from_f32(f32::from_le_bytes(*x)).to_le_bytes();
        values.iter().flat_map(half).collect()
    };
    for (dtype, _, bytes) in tensors.values_mut() {
        (*dtype, *bytes) = (Dtype::F16, half(bytes));
    }
    let dir = folder(&tensors, &configuration());
    let checkpoint = open(dir.path()).unwrap();
    let weights = retrained(&checkpoint, 5);
    let out = TempDir::new().unwrap();
    let to = out.path().join("new");
    let origin = provenance("finetune");
    let path = checkpoint.save_with_classes(&to, &weights, None, &origin).unwrap().path;
    let order = |path: &Path| -> Vec<String> {
        let header = Header::read(path, &fs::read(path).unwrap()).unwrap();
        header.entries.into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(order(&path), order(&checkpoint.path));
    let bytes = fs::read(&path).unwrap();
    let found = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, (_, shape, old)) in &tensors {
        let view = found.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F16, "{name}");
        match weights.get(name).filter(|_| name.starts_with("head")) {
            Some(fresh) => {
                assert_eq!(view.shape(), fresh.dims(), "{name}");
                let single = TensorDtype::F32.encode(fresh).unwrap();
                assert_eq!(view.data(), half(&single), "{name}");
            }
            None => assert_eq!((view.shape(), view.data()), (&shape[..], &old[..]), "{name}"),
        }
    }
    let names = ["a".to_owned()];
    let found = checkpoint.save_with_classes(&to, &weights, Some(&names), &origin).unwrap_err();
    assert!(matches!(found, Error::ClassNames { expected: 5, found: 1 }), "{found}");
}

#[test]
fn a_patch_is_rejected_if_the_classes_differ() {
    let mut original = configuration();
    original["label_names"] = json!(["cat", "dog", "emu"]);
    let dir = folder(&raw(&small()), &original);
    let checkpoint = open(dir.path()).unwrap();
    let out = TempDir::new().unwrap();
    let (same, other) = (out.path().join("same"), out.path().join("other"));
    let origin = provenance("finetune");
    checkpoint.save(&same, &checkpoint.weights, &origin).unwrap();
    let patch = |b: &Path| Patch::between(&checkpoint.path, &b.join("model.safetensors"));
    assert!(patch(&same).is_ok());
    let names = ["fox", "gnu", "cat"].map(String::from);
    checkpoint.save_with_classes(&other, &checkpoint.weights, Some(&names), &origin).unwrap();
    let found = patch(&other).unwrap_err();
    assert!(matches!(found, Error::Refused(Refused::OtherConfiguration { .. })), "{found}");
}
