//! Layouts are detected from tensor names. Errors use the names of the file.

use super::*;
use crate::models::vit::Distillation;

/// Tensors of a model under a layout's usual names. Names in the backbone start with `root`.
pub(super) fn in_layout(config: &Config, layout: Layout, root: &str) -> HashMap<String, Raw> {
    let mut out = HashMap::new();
    for (canonical, (dtype, shape, bytes)) in raw(config) {
        let names = layout.names(&canonical);
        for (i, name) in names.iter().enumerate() {
            let size = bytes.len() / names.len();
            let mut shape = shape.clone();
            shape[0] /= names.len();
            let root = if name.contains("classifier") { "" } else { root };
            let part = bytes[i * size..(i + 1) * size].to_vec();
            out.insert(format!("{root}{name}"), (dtype, shape, part));
        }
    }
    out
}

fn open_bare(tensors: &HashMap<String, Raw>) -> Result<Checkpoint, Error> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bare.safetensors");
    write(&path, tensors, &[]);
    Checkpoint::open(&path, &Load { heads: Some(2), ..Load::default() })
}

fn zeros(shape: &[usize]) -> Raw {
    (Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()])
}

/// The error for a model in transformers' old names after a change.
fn changed(change: impl FnOnce(&mut HashMap<String, Raw>)) -> String {
    let mut tensors = in_layout(&small(), Layout::TransformersOld, "vit.");
    change(&mut tensors);
    let found = open_bare(&tensors).unwrap_err();
    assert!(matches!(found, Error::Tensors { .. }), "{found}");
    let message = found.to_string();
    assert!(message.contains("transformers (old names)"), "{message}");
    message
}

fn move_key(tensors: &mut HashMap<String, Raw>, from: &str, to: &str) {
    let moved = tensors.remove(from).unwrap();
    tensors.insert(to.to_string(), moved);
}

#[test]
fn every_layout_is_recognised_by_its_names() {
    let expected: Vec<_> = Weights::random(&small().network().unwrap(), 3)
        .unwrap()
        .iter()
        .map(|(_, t)| TensorDtype::F32.encode(t).unwrap())
        .collect();
    let plain = [Layout::Timm, Layout::Transformers, Layout::TransformersOld, Layout::Torchvision];
    for layout in plain {
        let root = if layout.is_transformers() { "vit." } else { "" };
        for wrapper in ["", "module.", "_orig_mod.module.", "state_dict_ema.", "model."] {
            let tensors = in_layout(&small(), layout, root);
            let wrapped: HashMap<_, _> =
                tensors.into_iter().map(|(name, raw)| (format!("{wrapper}{name}"), raw)).collect();
            let found = open_bare(&wrapped).unwrap();
            assert_eq!(found.layout, layout);
            assert_eq!(found.config.vit().unwrap(), &Config { eps: layout.eps(), ..small() });
            let values: Vec<_> =
                found.weights.iter().map(|(_, t)| TensorDtype::F32.encode(t).unwrap()).collect();
            assert_eq!(values, expected);
            let all = format!("{0} of {0} tensor names", wrapped.len());
            assert!(found.recognised.contains(layout.name()), "{}", found.recognised);
            assert!(found.recognised.contains(&all), "{}", found.recognised);
            assert!(found.recognised.contains(wrapper), "{}", found.recognised);
        }
    }
}

#[test]
fn a_pooler_is_ignored_and_saved() {
    let mut tensors = in_layout(&small(), Layout::Transformers, "vit.");
    tensors.insert("vit.pooler.dense.weight".into(), zeros(&[8, 8]));
    tensors.insert("vit.pooler.dense.bias".into(), (Dtype::I32, vec![1], vec![1, 2, 3, 4]));
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("a.safetensors"), dir.path().join("b.safetensors"));
    write(&from, &tensors, &[]);
    let overrides = Load { heads: Some(2), ..Load::default() };
    let found = Checkpoint::open(&from, &overrides).unwrap();
    let all = tensors.len();
    for part in [&format!("{} of {all} tensor names", all - 2), "2 ignored: vit.pooler.dense."] {
        assert!(found.recognised.contains(part), "{}", found.recognised);
    }
    found.save(&to, &found.weights, &provenance("sgd")).unwrap();
    let bytes = fs::read(&to).unwrap();
    let saved = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(saved.names().len(), tensors.len());
    for (name, (_, _, old)) in &tensors {
        assert_eq!(saved.tensor(name).unwrap().data(), old, "{name}");
    }
}

#[test]
fn a_file_may_mix_old_and_new_names() {
    let mut tensors = in_layout(&small(), Layout::TransformersOld, "vit.");
    for (kind, old, new) in
        [("weight", "intermediate.dense", "mlp.fc1"), ("bias", "output.dense", "mlp.fc2")]
    {
        let old = format!("vit.encoder.layer.1.{old}.{kind}");
        move_key(&mut tensors, &old, &format!("vit.layers.1.{new}.{kind}"));
    }
    let found = open_bare(&tensors).unwrap();
    assert_eq!(found.layout, Layout::TransformersOld);
    assert!(found.recognised.contains("2 as in transformers (new names)"), "{}", found.recognised);
    let names_in_file = found.file_tensors("blocks.1.mlp.fc1.weight").unwrap();
    assert_eq!(names_in_file, ["vit.layers.1.mlp.fc1.weight"]);
}

#[test]
fn errors_list_the_names_in_the_file() {
    let key = "vit.encoder.layer.1.attention.attention.key.bias";
    let message = changed(|t| drop(t.remove(key)));
    assert!(message.contains(&format!("1 missing: {key}")), "{message}");
    let message = changed(|t| drop(t.remove("vit.embeddings.cls_token")));
    assert!(message.contains("1 missing: vit.embeddings.cls_token"), "{message}");
    // Canonical names are unexpected in a transformers file.
    let message = changed(|t| drop(t.insert("cls_token".into(), zeros(&[1, 1, 8]))));
    assert!(message.contains("1 unexpected: cls_token"), "{message}");
    let message = changed(|t| drop(t.insert("cls_classifier.bias".into(), zeros(&[3]))));
    assert!(message.contains("1 unexpected: "), "{message}");
    let query = "vit.encoder.layer.0.attention.attention.query.weight";
    let message = changed(|t| drop(t.insert(query.into(), zeros(&[16, 8]))));
    let part = format!("{query} (expected [8, 8], found [16, 8])");
    assert!(message.contains(&part), "{message}");
    let message = changed(|t| drop(t.insert(query.into(), zeros(&[0, usize::MAX]))));
    assert!(message.contains(query), "{message}");
}

#[test]
fn a_backbone_without_a_classifier_is_refused() {
    let mut bare = in_layout(&small(), Layout::TransformersOld, "");
    bare.retain(|name, _| !name.starts_with("classifier"));
    bare.insert("pooler.dense.weight".into(), zeros(&[8, 8]));
    bare.insert("pooler.dense.bias".into(), zeros(&[8]));
    let mut timm = raw(&small());
    timm.retain(|name, _| !name.starts_with("head"));
    let mut torchvision = in_layout(&small(), Layout::Torchvision, "");
    torchvision.retain(|name, _| !name.starts_with("heads"));
    for tensors in [bare, timm, torchvision] {
        let found = open_bare(&tensors).unwrap_err();
        assert!(matches!(found, Error::NoClassifier { .. }), "{found}");
        assert!(found.to_string().contains("fine-tune a classifier"), "{found}");
    }
}

#[test]
fn a_bare_backbone_with_a_classifier_opens() {
    let found = open_bare(&in_layout(&small(), Layout::Transformers, "")).unwrap();
    assert_eq!(found.layout, Layout::Transformers);
    assert_eq!(found.file_tensors("cls_token").unwrap(), ["embeddings.cls_token"]);
}

#[test]
fn torchvision_heads_and_old_mlp_names() {
    for (weight, bias) in [
        ("heads.weight", "heads.bias"),
        ("heads.0.weight", "heads.0.bias"),
        ("heads.1.weight", "heads.1.bias"),
    ] {
        let mut tensors = in_layout(&small(), Layout::Torchvision, "");
        move_key(&mut tensors, "heads.head.weight", weight);
        move_key(&mut tensors, "heads.head.bias", bias);
        for (old, new) in [("mlp.0", "mlp.linear_1"), ("mlp.3", "mlp.linear_2")] {
            let block = |name: &str| format!("encoder.layers.encoder_layer_1.{name}.weight");
            move_key(&mut tensors, &block(old), &block(new));
        }
        let found = open_bare(&tensors).unwrap();
        assert_eq!(found.config.vit().unwrap(), &small());
        assert_eq!(found.file_tensors("head.weight").unwrap(), [weight]);
    }
    let mut tensors = in_layout(&small(), Layout::Torchvision, "");
    tensors.insert("heads.pre_logits.weight".into(), zeros(&[8, 8]));
    let message = open_bare(&tensors).unwrap_err().to_string();
    assert!(message.contains("1 unexpected: heads.pre_logits.weight"), "{message}");
    for name in ["class_token", "encoder.layers.encoder_layer_0.self_attention.in_proj_bias"] {
        let mut tensors = in_layout(&small(), Layout::Torchvision, "");
        tensors.remove(name);
        let message = open_bare(&tensors).unwrap_err().to_string();
        assert!(message.contains(&format!("1 missing: {name}")), "{message}");
    }
}

#[test]
fn torchvision_without_a_configuration() {
    let mut config = small();
    (config.image_size, config.patch_size, config.channels) = ([224, 224], [112, 112], 3);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bare.safetensors");
    write(&path, &in_layout(&config, Layout::Torchvision, ""), &[]);
    assert!(matches!(open(&path), Err(Error::HeadsUnknown { .. })));
    let overrides = Load { heads: Some(2), ..Load::default() };
    assert_eq!(Checkpoint::open(&path, &overrides).unwrap().preprocess, None);
    let (mean, std) = (Some(vec![0.5; 3]), Some(vec![0.25; 3]));
    let found = Checkpoint::open(&path, &Load { mean, std, ..overrides }).unwrap();
    let preprocess = found.preprocess.unwrap();
    assert_eq!(preprocess.resize, Resize::ShortSide(256));
    assert_eq!(preprocess.crop_offset, CropOffset::HalfToEven);
    assert_eq!(preprocess.interpolation, Interpolation::Bilinear);
    let assumed = found.assumed.join("; ");
    assert!(assumed.contains("short side to 256") && assumed.contains("bilinear"), "{assumed}");
    // Heads of vit_b, vit_l and vit_h in torchvision's source.
    let published = super::super::torchvision::published_heads;
    assert_eq!(published(768, 12, 3072), Some(12));
    assert_eq!(published(1024, 24, 4096), Some(16));
    assert_eq!(published(1280, 32, 5120), Some(16));
    assert_eq!(published(768, 11, 3072), None);
}

#[test]
fn distilled_models_need_all_their_tensors() {
    let mut config = small();
    config.distillation = Distillation::TokenAndHead;
    assert_eq!(open_bare(&raw(&config)).unwrap().config.vit().unwrap(), &config);
    for name in ["head_dist.weight", "cls_token"] {
        let mut tensors = raw(&config);
        tensors.remove(name);
        let message = open_bare(&tensors).unwrap_err().to_string();
        assert!(message.contains(&format!("1 missing: {name}")), "{message}");
    }
    let mut timm = configuration();
    timm["model_args"]["global_pool"] = json!("avg");
    let found = open(folder(&raw(&config), &timm).path()).unwrap_err();
    assert!(matches!(found, Error::Contradiction { key: "global_pool", .. }), "{found}");
    // With one classifier the token only takes part in attention.
    config.distillation = Distillation::Token;
    config.eps = Layout::Transformers.eps();
    let one = in_layout(&config, Layout::Transformers, "deit.");
    let found = open_bare(&one).unwrap();
    assert_eq!(found.config.vit().unwrap(), &config);
    assert_eq!(found.file_tensors("dist_token").unwrap(), ["deit.embeddings.distillation_token"]);
}
