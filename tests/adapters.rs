//! Adapters that peft wrote (`tests/reference/make_adapters.py`): logits, gradients and merged weights
//! match peft's; saving writes the merged checkpoint; adapters that do not fit are refused.

use candle_core::{DType, Device, Tensor};
use planish::checkpoint::{
    Checkpoint, ClassNames, Error, Load, NewAdapter, Provenance, Refused, StepSettings,
};
use planish::engine::Engine;
use planish::models::layers::{adapters, join, select};
use planish::models::lora::{LoraUpdate, Target, factors};
use planish::models::{Granularity, Layer};
use planish::objective::{Activations, Objective};
use planish::session::objective;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// f64 differs from PyTorch by the order of sums; f32 rounds at 6e-8, and a derivative costs a digit.
const TOLERANCES: [(DType, [f64; 2]); 2] =
    [(DType::F64, [1e-10, 1e-9]), (DType::F32, [1e-5, 1e-4])];

/// Each adapter and its base.
const ADAPTERS: [(&str, &str); 5] = [
    ("vit-lora", "layouts/transformers5"),
    ("vit-rslora", "layouts/transformers4"),
    ("vit-dora", "layouts/transformers4"),
    ("timm-lora", "timm-tiny"),
    ("timm-dora", "timm-tiny"),
];

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

fn adapter(name: &str) -> PathBuf {
    reference("adapters").join(name)
}

fn open_with(base: &Path, adapter: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(base, &Load { adapter: Some(adapter.into()), ..Load::default() })
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn error(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (numbers(found), numbers(expected));
    assert_eq!(found.len(), expected.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied()).max(1e-12)
}

struct Expected(HashMap<String, Tensor>);

impl Expected {
    fn of(name: &str) -> Self {
        let path = adapter(name).join("reference.safetensors");
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    fn images(&self) -> Activations {
        let labels: Vec<i64> = self.0["labels"].to_vec1().unwrap();
        let labels = labels.iter().map(|&l| l as u32).collect();
        Activations { stage: 0, values: self.0["pixel_values"].clone(), labels }
    }

    fn logits_error(&self, model: &Objective) -> f64 {
        let found = model.predict(&self.images()).unwrap();
        error(&Tensor::new(found.values(), &Device::Cpu).unwrap(), &self.0["logits"])
    }
}

/// peft's name of a parameter of an adapted network.
fn in_peft(name: &str) -> String {
    let name = match name.contains("attn.qkv.lora") || name.starts_with("head.lora") {
        true => name.to_string(),
        false => name.replace("attn.qkv.", "attention."),
    };
    let mut name = name.replace(".q.lora", ".q_proj.lora").replace(".k.lora", ".k_proj.lora");
    name = name.replace(".v.lora", ".v_proj.lora");
    let end = if name.ends_with("lora_magnitude") { "_vector" } else { ".weight" };
    format!("base_model.model.{name}{end}")
}

/// The same with the modules of transformers.
fn in_transformers(name: &str) -> String {
    let name = name.replace("model.blocks.", "model.vit.layers.");
    name.replace("attn.proj", "attention.o_proj")
}

#[test]
fn merged_weights_and_logits_match_peft() {
    for (name, base) in ADAPTERS {
        let (checkpoint, expected) =
            (open_with(&reference(base), &adapter(name)).unwrap(), Expected::of(name));
        for (dtype, [logits, _]) in TOLERANCES {
            let model = objective(&checkpoint, dtype, &Engine::cpu()).unwrap();
            let found = expected.logits_error(&model);
            assert!(found < logits, "{name} {dtype:?}: {found}");
        }
        let weights = checkpoint.weights_as(DType::F64).unwrap();
        let all: Vec<(String, Tensor)> =
            weights.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        let in_file: HashMap<String, Tensor> =
            checkpoint.to_file(&all).unwrap().into_iter().collect();
        let merged: Vec<_> =
            expected.0.iter().filter_map(|(k, v)| Some((k.strip_prefix("merged/")?, v))).collect();
        assert!(!merged.is_empty());
        for (own, expected) in merged {
            // Rounding of a sum of a few products.
            let found = error(&in_file[own], expected);
            assert!(found < 1e-14, "{name} {own}: {found}");
        }
    }
}

/// The reference of a parameter of an adapter.
fn of_param<'a>(expected: &'a Expected, of: &str, name: &str) -> Option<&'a Tensor> {
    let keys = [in_peft(name), in_transformers(&in_peft(name))];
    keys.iter().find_map(|key| expected.0.get(&format!("{of}/{key}")))
}

#[test]
fn derivatives_of_an_adapter_match_peft() {
    for (name, base) in ADAPTERS {
        let (base, expected) = (reference(base), Expected::of(name));
        let checkpoint = open_with(&base, &adapter(name)).unwrap();
        for (dtype, [logits, derivative]) in TOLERANCES {
            let (network, weights) = checkpoint.unmerged(dtype).unwrap().unwrap();
            let model = Objective::new(Arc::new(network), weights, &Engine::cpu());
            assert!(expected.logits_error(&model) < logits, "{name} {dtype:?}");
            let own = join(&adapters(&model.network, Granularity::Block));
            let vectors: Vec<Tensor> =
                own.tensors.iter().map(|&i| vector(model.weights.tensor(i))).collect();
            let found = model.hvp(&expected.images(), &own, &vectors).unwrap();
            let loss = Tensor::new(found.loss, &Device::Cpu).unwrap();
            assert!(error(&loss, &expected.0["loss"]) < logits, "{name} {dtype:?}");
            for (of, found) in [("gradient", &found.gradient), ("hvp", &found.hvp)] {
                for (&i, found) in own.tensors.iter().zip(found) {
                    let param = &model.network.params()[i].name;
                    let expected = of_param(&expected, of, param).unwrap();
                    let error = error(found, expected);
                    assert!(error < derivative, "{name} {dtype:?} {of} {param}: {error}");
                }
            }
            let all = expected.0.keys().filter(|k| k.starts_with("hvp/")).count();
            assert_eq!(own.tensors.len(), all, "{name}");
        }
    }
}

/// Entry k is 1 − 2 frac(k φ), as in the script.
fn vector(like: &Tensor) -> Tensor {
    let entry = |k: usize| 1.0 - 2.0 * (k as f64 * 0.6180339887498949).fract();
    let values: Vec<f64> = (1..=like.elem_count()).map(entry).collect();
    let vector = Tensor::from_vec(values, like.dims(), &Device::Cpu).unwrap();
    vector.to_dtype(like.dtype()).unwrap()
}

#[test]
fn adapters_are_layers() {
    let checkpoint = open_with(&reference("layouts/transformers4"), &adapter("vit-dora")).unwrap();
    let (network, _) = checkpoint.unmerged(DType::F32).unwrap().unwrap();
    let names = |granularity| {
        let layers = adapters(&network, granularity);
        layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(Granularity::Block), ["block.0.lora", "block.1.lora"]);
    let parts = ["block.0.attn.lora", "block.0.mlp.lora", "block.1.attn.lora", "block.1.mlp.lora"];
    let mut found = names(Granularity::Sublayer);
    found.sort();
    assert_eq!(found, parts);
    let one = |pattern: &str| -> Layer {
        let mut found = select(&network, pattern).unwrap();
        assert_eq!(found.len(), 1);
        found.remove(0)
    };
    let tensors = |layer: &Layer| -> Vec<&str> {
        layer.tensors.iter().map(|&i| network.params()[i].name.as_str()).collect()
    };
    let layer = one("block.1.lora");
    assert_eq!((layer.first_stage, layer.last_stage, layer.tensors.len()), (3, 4, 9));
    assert!(tensors(&layer).iter().all(|name| name.starts_with("blocks.1.")));
    let mlp = ["lora_A", "lora_B", "lora_magnitude"].map(|kind| format!("blocks.1.mlp.fc1.{kind}"));
    assert_eq!(tensors(&one("block.1.mlp.lora")), mlp);
    assert_eq!(one("block.*.lora").tensors.len(), 18);
    // Layers of the base do not contain the adapter, and are those of the plain network.
    assert_eq!(network.blocks(), checkpoint.network.blocks());
}

fn provenance(checkpoint: &Checkpoint) -> Provenance {
    Provenance {
        method: "sgd".into(),
        perturb: Vec::new(),
        update: vec!["head".into()],
        seed: 0,
        version: "0".into(),
        parent_digest: Some(checkpoint.digest.clone()),
        data_digest: None,
        split: None,
        sample: None,
        settings: StepSettings::default(),
    }
}

fn assert_same_logits(a: &Checkpoint, b: &Checkpoint, images: &Activations) {
    let logits = |checkpoint: &Checkpoint| {
        let model = objective(checkpoint, DType::F32, &Engine::cpu()).unwrap();
        model.predict(images).unwrap().values().to_vec()
    };
    assert_eq!(logits(a), logits(b));
}

#[test]
fn saving_writes_the_merged_checkpoint() {
    for (name, base) in ADAPTERS {
        let (base, expected) = (reference(base), Expected::of(name));
        let checkpoint = open_with(&base, &adapter(name)).unwrap();
        let plain = Checkpoint::open(&base, &Load::default()).unwrap();
        assert_ne!(checkpoint.digest, plain.digest, "{name}");
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("merged");
        let saved = checkpoint.save(&out, &checkpoint.weights, &provenance(&checkpoint)).unwrap();
        let again = Checkpoint::open(&saved.path, &Load::default()).unwrap();
        assert_same_logits(&checkpoint, &again, &expected.images());
        assert_eq!(again.config, checkpoint.config);
        let steps: Vec<&str> = again.history.iter().map(|step| step.method.as_str()).collect();
        assert_eq!(steps, ["adapter", "sgd"], "{name}");
        assert_eq!(again.history[0].parent_digest.as_ref(), Some(&plain.digest));
        assert_eq!(checkpoint.round_trip().unwrap(), Vec::<String>::new());
        let error = checkpoint.hold().unwrap_err();
        assert!(matches!(error, Error::Refused(Refused::Adapter { .. })), "{error}");
    }
}

/// A copy of a folder's files in a new folder.
fn copy(from: &Path) -> TempDir {
    let dir = TempDir::new().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Changes the tensors of a safetensors file.
fn rewrite(file: &Path, change: impl Fn(&str, Tensor) -> Option<(String, Tensor)>) {
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let changed: HashMap<String, Tensor> =
        tensors.into_iter().filter_map(|(name, tensor)| change(&name, tensor)).collect();
    candle_core::safetensors::save(&changed, file).unwrap();
}

#[test]
fn a_bare_backbone_takes_the_head_of_the_adapter() {
    let base = copy(&reference("layouts/transformers5"));
    let file = base.path().join("model.safetensors");
    rewrite(&file, |name, t| (!name.starts_with("classifier")).then(|| (name.into(), t)));
    assert!(matches!(
        Checkpoint::open(base.path(), &Load::default()),
        Err(Error::NoClassifier { .. })
    ));
    let found = open_with(base.path(), &adapter("vit-lora")).unwrap();
    let whole = open_with(&reference("layouts/transformers5"), &adapter("vit-lora")).unwrap();
    let images = Expected::of("vit-lora").images();
    assert_same_logits(&found, &whole, &images);
    assert_eq!((found.config.classes(), found.class_names.is_none()), (4, true));
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("merged");
    let saved = found.save(&out, &found.weights, &provenance(&found)).unwrap();
    let again = Checkpoint::open(&saved.path, &Load::default()).unwrap();
    assert_same_logits(&found, &again, &images);
    // Without a head in the adapter, there is none at all.
    let headless = copy(&adapter("vit-lora"));
    let weights = headless.path().join("adapter_model.safetensors");
    rewrite(&weights, |name, t| (!name.contains("classifier")).then(|| (name.into(), t)));
    let config = headless.path().join("adapter_config.json");
    set(&config, "modules_to_save", Value::Null);
    let error = open_with(base.path(), headless.path()).unwrap_err();
    assert!(matches!(error, Error::AdapterBase { head: false, .. }), "{error}");
    assert!(error.to_string().contains("the adapter stores no head"), "{error}");
}

fn set(config: &Path, key: &str, value: Value) {
    let mut json: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    json[key] = value;
    std::fs::write(config, json.to_string()).unwrap();
}

/// The adapter of a checkpoint, to be written again.
fn rewritten(checkpoint: &Checkpoint, peft: &Value) -> NewAdapter {
    let (_, weights) = checkpoint.unmerged(DType::F32).unwrap().unwrap();
    let updates = checkpoint.adapter().unwrap().updates();
    let whole = ["head.weight", "head.bias"];
    NewAdapter {
        rank: peft["r"].as_u64().unwrap() as usize,
        alpha: peft["lora_alpha"].as_f64().unwrap(),
        rank_stabilised: peft["use_rslora"].as_bool().unwrap(),
        magnitude: peft["use_dora"].as_bool().unwrap(),
        updates: updates
            .iter()
            .map(|update| (update.target.clone(), factors(update, &weights).unwrap()))
            .collect(),
        whole: whole.map(|name| (name.into(), weights.get(name).unwrap().clone())).into(),
        class_names: ClassNames::OfBase,
    }
}

#[test]
fn adapters_are_written_as_peft_writes_them() {
    // The names that peft's loader looks for, and the layers of those names.
    for (name, base, targets, layers) in [
        ("vit-lora", "layouts/transformers5", ["attention.q_proj", "attention.v_proj"], json!([1])),
        ("timm-lora", "timm-tiny", ["attn.qkv", "mlp.fc2"], Value::Null),
    ] {
        let (base, from) = (reference(base), adapter(name));
        let checkpoint = open_with(&base, &from).unwrap();
        let read = |path: &Path| -> Value {
            serde_json::from_slice(&std::fs::read(path.join("adapter_config.json")).unwrap())
                .unwrap()
        };
        let peft = read(&from);
        let dir = TempDir::new().unwrap();
        let new = rewritten(&checkpoint, &peft);
        // An adapter is written for its base, which has no adapter.
        let step = Provenance { parent_digest: None, ..provenance(&checkpoint) };
        let file = checkpoint.save_adapter(dir.path(), &new, &step).unwrap();
        let own = read(dir.path());
        for key in ["peft_type", "r", "use_rslora", "use_dora", "modules_to_save", "bias"] {
            assert_eq!(own[key], peft[key], "{name} {key}");
        }
        assert_eq!(own["lora_alpha"].as_f64(), peft["lora_alpha"].as_f64());
        assert_eq!(own["layers_to_transform"], layers, "{name}");
        let listed: Vec<&str> =
            own["target_modules"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(targets.iter().all(|target| listed.contains(target)), "{listed:?}");
        // The same tensors under the same names. Those of a ViT in transformers are also there under
        // the names of version 4.
        let found = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
        let path = from.join("adapter_model.safetensors");
        let expected = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        for (key, tensor) in &expected {
            assert_eq!(found[key].dims(), tensor.dims(), "{name} {key}");
            assert_eq!(numbers(&found[key]), numbers(tensor), "{name} {key}");
        }
        let others = found.keys().filter(|key| !expected.contains_key(*key));
        let others: Vec<&String> = others.collect();
        assert!(others.iter().all(|key| key.contains(".encoder.layer.1.attention.attention.")));
        assert_eq!(others.len(), if name == "vit-lora" { 4 } else { 0 });
        let again = open_with(&base, dir.path()).unwrap();
        assert_same_logits(&checkpoint, &again, &Expected::of(name).images());
        assert_eq!(again.history.last().unwrap().method, "sgd");
    }
}

/// The configuration of an adapter that planish writes.
fn written(checkpoint: &Checkpoint, new: &NewAdapter) -> Value {
    let dir = TempDir::new().unwrap();
    checkpoint.save_adapter(dir.path(), new, &provenance(checkpoint)).unwrap();
    serde_json::from_slice(&std::fs::read(dir.path().join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn ambiguous_names_of_modules_are_written_in_full() {
    // In version 4, `output.dense` ends the names of two modules of a block.
    let base = reference("layouts/transformers4");
    let checkpoint = open_with(&base, &adapter("vit-rslora")).unwrap();
    let peft = json!({"r": 2, "lora_alpha": 3, "use_rslora": true, "use_dora": false});
    let mut new = rewritten(&checkpoint, &peft);
    new.updates.retain(|(target, _)| target.weight.ends_with("mlp.fc2.weight"));
    let config = written(&checkpoint, &new);
    let expected = json!([
        "vit.encoder.layer.0.output.dense",
        "vit.encoder.layer.1.output.dense",
        "vit.layers.0.mlp.fc2",
        "vit.layers.1.mlp.fc2",
    ]);
    assert_eq!(
        (&config["target_modules"], &config["layers_to_transform"]),
        (&expected, &Value::Null)
    );
}

#[test]
fn layers_of_timm_are_written_in_full() {
    // peft finds no index in `blocks.1.mlp.fc2`.
    let checkpoint = open_with(&reference("timm-tiny"), &adapter("timm-lora")).unwrap();
    let peft = json!({"r": 3, "lora_alpha": 4, "use_rslora": false, "use_dora": false});
    let mut new = rewritten(&checkpoint, &peft);
    new.updates.retain(|(target, _)| target.weight.starts_with("blocks.1."));
    let config = written(&checkpoint, &new);
    assert_eq!(config["target_modules"], json!(["blocks.1.attn.qkv", "blocks.1.mlp.fc2"]));
    assert_eq!(config["layers_to_transform"], Value::Null);
}

#[test]
fn modules_without_adapters_in_peft_are_refused() {
    let open = |base: &str, heads: Option<usize>| {
        let base = reference("layouts").join(base);
        Checkpoint::open(&base, &Load { heads, ..Load::default() }).unwrap()
    };
    // Query, key and value are parameters of one module.
    let checkpoint = open("torchvision", Some(2));
    let update = |weight: &str| LoraUpdate {
        target: Target { weight: weight.into(), index: 0, count: 1 },
        rank: 1,
        scale: 1.0,
        magnitude: false,
    };
    checkpoint.check_adapter(&[update("blocks.0.mlp.fc1.weight")]).unwrap();
    let error = checkpoint.check_adapter(&[update("blocks.0.attn.qkv.weight")]).unwrap_err();
    let expected = "peft has no adapter for blocks.0.attn.qkv in the torchvision layout";
    assert!(error.to_string().starts_with(expected), "{error}");
    let weight = update("stages.0.blocks.0.mlp.fc1.weight");
    open("timm-convnext", None).check_adapter(std::slice::from_ref(&weight)).unwrap();
    // Convolutions of 1×1.
    let convolutions = open("timm-convnextv2-conv", None).check_adapter(&[weight]);
    assert!(matches!(convolutions, Err(Error::NoAdapterFormat { .. })));
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let base = reference("layouts/transformers5");
    let refused = |dir: &Path| open_with(&base, dir).unwrap_err().to_string();
    let weights = |dir: &TempDir| dir.path().join("adapter_model.safetensors");

    let dir = copy(&adapter("vit-lora"));
    rewrite(&weights(&dir), |name, t| {
        (!name.contains("classifier.bias")).then(|| (name.into(), t))
    });
    rewrite(&weights(&dir), |name, t| (!name.contains("classifier")).then(|| (name.into(), t)));
    let message = refused(dir.path());
    assert!(
        message.contains("not complete: classifier: no parameters, although `modules_to_save`"),
        "{message}"
    );

    let dir = copy(&adapter("vit-lora"));
    rewrite(&weights(&dir), |name, t| {
        (!name.ends_with("q_proj.lora_B.weight")).then(|| (name.into(), t))
    });
    let message = refused(dir.path());
    assert!(message.contains("vit.layers.1.attention.q_proj: no lora_A or lora_B"), "{message}");

    let dir = copy(&adapter("vit-lora"));
    rewrite(&weights(&dir), |name, t| Some((name.replace("q_proj", "w_proj"), t)));
    let message = refused(dir.path());
    let expected = "for other modules than those of a network in the transformers (new names) layout; \
                    it names vit.layers.1.attention.w_proj";
    assert!(message.contains(expected), "{message}");

    // The head of a wider model.
    let error = open_with(&base, &adapter("timm-lora")).unwrap_err();
    assert!(matches!(error, Error::AdapterBase { head: true, .. }), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("classifier.weight (expected [4, 8], found [4, 12])"), "{cause}");

    let dir = copy(&adapter("vit-lora"));
    rewrite(&weights(&dir), |name, t| {
        let wide = name.contains("q_proj.lora_A");
        Some((name.into(), if wide { Tensor::cat(&[&t, &t], 1).unwrap() } else { t }))
    });
    let message = refused(dir.path());
    let expected =
        "does not fit this base: blocks.1.attn.qkv.q (the base has 8×8, the adapter 8×16)";
    assert!(message.contains(expected), "{message}");

    let dir = copy(&adapter("vit-lora"));
    rewrite(&weights(&dir), |name, t| Some((name.replace("layers.1", "layers.7"), t)));
    assert!(refused(dir.path()).contains("the network has no such weight"));

    let dir = copy(&adapter("vit-lora"));
    set(&dir.path().join("adapter_config.json"), "use_dora", json!(true));
    assert!(refused(dir.path()).contains("no lora_magnitude_vector"));

    let dir = copy(&adapter("vit-lora"));
    std::fs::write(weights(&dir), [0; 30]).unwrap();
    assert!(matches!(open_with(&base, dir.path()), Err(Error::Header { .. })));
    std::fs::remove_file(weights(&dir)).unwrap();
    let message = refused(dir.path());
    assert!(message.contains("found a folder without adapter_model.safetensors"), "{message}");
    assert!(refused(&base).contains("found a folder without adapter_config.json"));

    let message = Checkpoint::open(&adapter("vit-lora"), &Load::default()).unwrap_err().to_string();
    assert!(message.contains("found a peft adapter: give its base"), "{message}");
}
