//! Checkpoints in every format that planish reads (`tests/reference/make_checkpoints.py`): the logits
//! are those of the library, and a saved checkpoint has the library's names, types and values.

use candle_core::{DType, Device, Tensor};
use planish::checkpoint::{Checkpoint, Error, Load, Provenance, undo};
use planish::engine::Engine;
use planish::models::Weights;
use planish::objective::Activations;
use planish::session::objective;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Relative error of logits in f64, which differ from PyTorch's by the order of sums.
const TOLERANCE: f64 = 1e-9;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/checkpoints").join(name)
}

/// All checkpoints, with the options that they need.
fn all() -> Vec<(&'static str, Load)> {
    let heads = || Load { heads: Some(2), ..Load::default() };
    let ema = Load { weights: Some("ema".into()), ..heads() };
    let ignore = Load { ignore: vec!["criterion.*".into()], ..heads() };
    vec![
        ("script.pth", heads()),
        ("legacy.pt", heads()),
        ("timm.pth.tar", ema),
        ("lightning.ckpt", ignore),
        ("views.pth", heads()),
        ("timm-bin", Load::default()),
        ("transformers-shards", Load::default()),
        ("transformers-bin-shards", Load::default()),
        ("tied", Load::default()),
        ("google.npz", Load::default()),
    ]
}

fn open(name: &str, load: &Load) -> Checkpoint {
    Checkpoint::open(&reference(name), load).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn provenance() -> Provenance {
    serde_json::from_value(serde_json::json!({ "method": "sgd", "seed": 0, "version": "0" }))
        .unwrap()
}

/// The relative error of a checkpoint's logits.
fn error(name: &str, checkpoint: &Checkpoint) -> f64 {
    let path = reference(&format!("{name}.expected"));
    let expected = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let images = Activations {
        stage: 0,
        values: expected["expected.pixels"].clone(),
        labels: vec![0; expected["expected.pixels"].dims()[0]].into(),
    };
    let objective = objective(checkpoint, DType::F64, &Engine::cpu()).unwrap();
    let found = objective.predict(&images).unwrap();
    let expected: Vec<f64> = expected["expected.logits"].flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(found.values().len(), expected.len());
    let pairs = found.values().iter().zip(&expected);
    let difference: f64 = pairs.map(|(a, b)| (a - b).powi(2)).sum();
    (difference / expected.iter().map(|x| x * x).sum::<f64>()).sqrt()
}

#[test]
fn logits_are_those_of_the_library() {
    for (name, load) in all() {
        let error = error(name, &open(name, &load));
        assert!(error < TOLERANCE, "{name}: {error:e}");
    }
}

/// With the folder `PLANISH_SAVED`, the results are left there for the check in
/// `make_checkpoints.py`.
#[test]
fn saved_checkpoints_have_the_librarys_tensors() {
    let temporary = TempDir::new().unwrap();
    let kept = std::env::var_os("PLANISH_SAVED").map(PathBuf::from);
    let root = kept.unwrap_or_else(|| temporary.path().to_path_buf());
    for (name, load) in all() {
        let checkpoint = open(name, &load);
        // Only `.safetensors` may end the name of a file.
        let out = root.join(name.replace('.', "-"));
        let saved = checkpoint.save(&out, &checkpoint.weights, &provenance()).unwrap();
        let [found, expected] = [saved.path.clone(), reference(&format!("{name}.expected"))]
            .map(|path| std::fs::read(path).unwrap());
        let found = SafeTensors::deserialize(&found).unwrap();
        let expected = SafeTensors::deserialize(&expected).unwrap();
        for (tensor, view) in found.tensors() {
            assert_eq!(view, expected.tensor(&tensor).unwrap(), "{name}: {tensor}");
        }
        // The images, the logits and, if two are tied, the second head.
        let others = if name == "tied" { 4 } else { 2 };
        assert_eq!(found.len() + others, expected.len(), "{name}");
        let again = Checkpoint::open(&out, checkpoint.options_of_saved()).unwrap();
        assert!(error(name, &again) < TOLERANCE, "{name}");
        let noted = checkpoint.format_note(&saved.path).is_some();
        assert_eq!(noted, name != "tied", "{name}");
        assert_eq!(again.format_note(&saved.path), None);
    }
}

#[test]
fn two_models_in_one_file_need_a_choice() {
    let heads = Load { heads: Some(2), ..Load::default() };
    let found = Checkpoint::open(&reference("timm.pth.tar"), &heads).unwrap_err();
    let message = found.to_string();
    assert!(matches!(found, Error::SeveralModels { .. }), "{message}");
    for part in ["found two", "\"state_dict\"", "\"state_dict_ema\"", "`weights`"] {
        assert!(message.contains(part), "{message}");
    }
    let of = |weights: &str| {
        open("timm.pth.tar", &Load { weights: Some(weights.into()), ..heads.clone() })
    };
    assert!(error("timm.pth.tar", &of("model")) > 1e-2);
    assert!(error("timm.pth.tar", &of("state_dict_ema")) < TOLERANCE);
    assert_ne!(of("model").digest, of("ema").digest);
    assert!(of("ema").recognised.contains("under \"state_dict_ema\""));
}

#[test]
fn only_safetensors_is_replaced_in_place() {
    for (name, load) in all() {
        if name == "tied" {
            continue;
        }
        let checkpoint = open(name, &load);
        let message = checkpoint.hold().unwrap_err().to_string();
        assert!(message.contains("`out`"), "{name}: {message}");
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("new.pth");
        let message = checkpoint.check_output(&out, "sgd").unwrap_err().to_string();
        assert!(message.contains("planish writes safetensors"), "{name}: {message}");
    }
}

/// The weights with 1 added to one tensor.
fn moved(weights: &Weights, name: &str) -> Weights {
    let index = weights.index(name).unwrap();
    weights.with(&[(index, (weights.tensor(index) + 1.0).unwrap())])
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn tied_tensors_are_stored_apart_once_they_differ() {
    let dir = TempDir::new().unwrap();
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(reference("tied").join(file), dir.path().join(file)).unwrap();
    }
    let path = dir.path().join("model.safetensors");
    let before = std::fs::read(&path).unwrap();
    let checkpoint = Checkpoint::open(dir.path(), &Load::default()).unwrap();
    let [head, second] = ["head.weight", "head_dist.weight"];
    assert!(checkpoint.recognised.contains(" stored as \""), "{}", checkpoint.recognised);
    for name in [head, second] {
        let trained = moved(&checkpoint.weights, name);
        let held = checkpoint.hold().unwrap();
        checkpoint.save_over(&held, &trained, &provenance()).unwrap();
        drop(held);
        let again = Checkpoint::open(dir.path(), &Load::default()).unwrap();
        for name in [head, second, "head.bias", "head_dist.bias"] {
            let [found, expected] =
                [&again.weights, &trained].map(|w| values(w.get(name).unwrap()));
            assert_eq!(found, expected, "{name}");
        }
        // The biases are still tied.
        assert_eq!(again.recognised.matches(" stored as \"").count(), 1, "{}", again.recognised);
        undo(dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[test]
fn rules_for_names() {
    // A network under another name, as some libraries have it, and a loss with weights.
    let dir = TempDir::new().unwrap();
    let bytes = std::fs::read(reference("legacy.pt.expected")).unwrap();
    let state = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = state.tensors().into_iter().filter(|(name, _)| !name.contains("expected."));
    let renamed = renamed.map(|(name, view)| match name.strip_prefix("head.") {
        Some(rest) => (format!("classifier.{rest}"), view),
        None => (format!("backbone.{name}"), view),
    });
    let renamed: Vec<_> = renamed.collect();
    let path = dir.path().join("x.safetensors");
    std::fs::write(&path, safetensors::serialize(renamed, None).unwrap()).unwrap();
    let heads = Load { heads: Some(2), ..Load::default() };
    let message = Checkpoint::open(&path, &heads).unwrap_err().to_string();
    assert!(message.contains("`ignore`") && message.contains("`rename`"), "{message}");
    let rename = vec!["backbone.(.*)=$1".into(), "classifier.(.*)=head.$1".into()];
    let checkpoint = Checkpoint::open(&path, &Load { rename, ..heads.clone() }).unwrap();
    assert!(error("legacy.pt", &checkpoint) < TOLERANCE);
    // The names in the file stay.
    let out = dir.path().join("new.safetensors");
    checkpoint.save(&out, &checkpoint.weights, &provenance()).unwrap();
    let saved = std::fs::read(&out).unwrap();
    let names = SafeTensors::deserialize(&saved).unwrap();
    assert!(names.tensor("classifier.bias").is_ok() && names.tensor("backbone.norm.bias").is_ok());
    let unused = Load { ignore: vec!["nothing".into()], ..heads };
    let message = Checkpoint::open(&path, &unused).unwrap_err().to_string();
    assert!(message.contains("`ignore`") && message.contains("matches none"), "{message}");
}

/// A cache as `huggingface_hub` fills it: files named by their contents, and links to them.
#[cfg(unix)]
#[test]
fn a_model_of_the_hugging_face_cache() {
    let cache = TempDir::new().unwrap();
    let own = cache.path().join("models--owner--tiny-vit");
    let snapshot = own.join("snapshots/0a1b");
    for folder in [&snapshot, &own.join("blobs"), &own.join("refs")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(own.join("refs/main"), "0a1b").unwrap();
    for (i, entry) in std::fs::read_dir(reference("timm-bin")).unwrap().enumerate() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, own.join(format!("blobs/{i}"))).unwrap();
        let link = snapshot.join(path.file_name().unwrap());
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), link).unwrap();
    }
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_planish"));
        command.args(words).env("HF_HUB_CACHE", cache.path()).current_dir(cache.path());
        command.output().unwrap()
    };
    let found = run(&["inspect", "owner/tiny-vit"]);
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(text.contains("pytorch_model.bin") && text.contains("preprocessing"), "{text}");
    let message = |words: &[&str]| String::from_utf8(run(words).stderr).unwrap();
    let absent = message(&["inspect", "owner/other"]);
    assert!(absent.contains("hf download owner/other"), "{absent}");

    // A safetensors file of the cache is not replaced.
    std::fs::remove_file(snapshot.join("pytorch_model.bin")).unwrap();
    let bytes = std::fs::read(reference("timm-bin.expected")).unwrap();
    let state = SafeTensors::deserialize(&bytes).unwrap();
    let state = state.tensors().into_iter().filter(|(name, _)| !name.starts_with("expected."));
    std::fs::write(own.join("blobs/9"), safetensors::serialize(state, None).unwrap()).unwrap();
    std::os::unix::fs::symlink("../../blobs/9", snapshot.join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(&snapshot, &Load::default()).unwrap();
    let refused = checkpoint.hold().unwrap_err().to_string();
    assert!(refused.contains("Hugging Face cache") && refused.contains("`out`"), "{refused}");
    std::fs::remove_file(own.join("blobs/9")).unwrap();
    let dangling = message(&["inspect", "owner/tiny-vit"]);
    assert!(dangling.contains("a link to a file that does not exist"), "{dangling}");
}
