//! Checkpoints written by timm, transformers and torchvision (`tests/reference/make_layouts.py`):
//! they open, match the results of their library, and are saved in their original layout.

use candle_core::{DType, Device, Tensor};
use planish::checkpoint::{Checkpoint, Header, Load, Provenance};
use planish::data::Split;
use planish::engine::Engine;
use planish::line_search::{Path as Line, moved};
use planish::models::vit::{FinalNorm, Pooling};
use planish::models::{Granularity, Layer, layers};
use planish::objective::{Activations, Objective};
use planish::session::objective;
use planish::train::Prefix;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Largest error relative to the reference's norm: f64 differs from PyTorch by the order of sums;
/// f32 rounds at 6e-8, and each derivative costs about a digit.
const TOLERANCES: [(DType, [f64; 3]); 2] =
    [(DType::F64, [1e-9, 1e-9, 1e-9]), (DType::F32, [1e-5, 1e-4, 1e-3])];

/// Tensors of a layer below this share of its norm are compared with that share.
const NEGLIGIBLE: f64 = 1e-3;

fn folders() -> Vec<PathBuf> {
    let all = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/layouts");
    let mut out: Vec<_> = std::fs::read_dir(all).unwrap().map(|e| e.unwrap().path()).collect();
    out.sort();
    assert_eq!(out.len(), 35);
    out
}

fn open(folder: &Path) -> Checkpoint {
    // torchvision's files do not contain the number of heads.
    let bare = !folder.join("config.json").exists();
    let overrides = Load { heads: bare.then_some(2), ..Load::default() };
    Checkpoint::open(folder, &overrides).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Entry k of every tensor is 1 − 2 frac(k φ), as in the script.
fn vector(checkpoint: &Checkpoint, layer: &Layer, dtype: DType) -> Vec<Tensor> {
    let in_file = layer.tensors.iter().flat_map(|&i| {
        let name = &checkpoint.weights.names()[i];
        let part = [(name.clone(), checkpoint.weights.tensor(i).clone())];
        checkpoint.to_file(&part).unwrap()
    });
    let filled = in_file.map(|(name, t)| {
        let entry = |k: usize| 1.0 - 2.0 * (k as f64 * 0.6180339887498949).fract();
        let values: Vec<f64> = (1..=t.elem_count()).map(entry).collect();
        (name, Tensor::from_vec(values, t.dims(), &Device::Cpu).unwrap())
    });
    let canonical = checkpoint.to_canonical(filled.collect()).unwrap();
    canonical.into_iter().map(|(_, t)| t.to_dtype(dtype).unwrap()).collect()
}

struct Reference {
    name: String,
    tensors: HashMap<String, Tensor>,
    checked: Vec<String>,
}

impl Reference {
    fn open(folder: &Path) -> Self {
        let path = folder.join("reference.safetensors");
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into(),
            tensors: candle_core::safetensors::load(path, &Device::Cpu).unwrap(),
            checked: Vec::new(),
        }
    }

    fn take(&mut self, key: String) -> Tensor {
        let found = self.tensors.get(&key).unwrap_or_else(|| panic!("{}: no {key}", self.name));
        self.checked.push(key);
        found.clone()
    }

    fn error(&mut self, key: &str, found: &Tensor) -> f64 {
        error(found, &self.take(key.into()))
    }

    /// The largest error over some canonical tensors, with the reference's parts joined.
    fn worst(&mut self, c: &Checkpoint, of: &str, layer: &Layer, found: &[Tensor]) -> f64 {
        let expected: Vec<Tensor> =
            layer.tensors.iter().map(|&i| self.canonical(c, of, i)).collect();
        // Some derivatives are zero in theory: a Mixer's bias over tokens is a shift of all channels,
        // which the norms remove.
        let floor = NEGLIGIBLE * norm(expected.iter().flat_map(numbers));
        let errors = found.iter().zip(&expected).map(|(a, b)| error_above(a, b, floor));
        errors.fold(0.0, f64::max)
    }

    /// The reference of a canonical tensor, with its parts joined.
    fn canonical(&mut self, c: &Checkpoint, of: &str, i: usize) -> Tensor {
        let name = &c.weights.names()[i];
        let in_file = c.file_tensors(name).unwrap().into_iter();
        let parts = in_file.map(|name| (name.clone(), self.take(format!("{of}/{name}")))).collect();
        let (canonical, expected) = c.to_canonical(parts).unwrap().remove(0);
        assert_eq!(&canonical, name);
        expected
    }
}

/// The error relative to the reference's norm. The gradient of a key's bias is zero in theory, so
/// it is compared jointly with those of query and value.
fn error(found: &Tensor, expected: &Tensor) -> f64 {
    error_above(found, expected, 1e-6)
}

/// The same, relative to at least `floor`.
fn error_above(found: &Tensor, expected: &Tensor, floor: f64) -> f64 {
    let (found, expected) = (numbers(found), numbers(expected));
    assert_eq!(found.len(), expected.len());
    let error = norm(found.iter().zip(&expected).map(|(a, b)| a - b));
    error / norm(expected.into_iter()).max(floor)
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|v| v * v).sum::<f64>().sqrt()
}

/// The model in a given type, and the reference's images.
fn model(c: &Checkpoint, r: &Reference, dtype: DType) -> (Objective, Activations) {
    let mut objective = objective(c, dtype, &Engine::cpu()).unwrap();
    objective.micro_batch = 2;
    let labels: Vec<i64> = r.tensors["labels"].to_vec1().unwrap();
    let values = r.tensors["pixel_values"].clone();
    let labels = labels.iter().map(|&l| l as u32).collect();
    (objective, Activations { stage: 0, values, labels })
}

/// The largest relative errors of logits (and loss), gradients and Hessian-vector products.
fn errors(folder: &Path, dtype: DType) -> [f64; 3] {
    let (checkpoint, mut r) = (open(folder), Reference::open(folder));
    let (objective, images) = model(&checkpoint, &r, dtype);
    let logits = objective.predict(&images).unwrap();
    let logits = Tensor::from_slice(logits.values(), logits.values().len(), &Device::Cpu).unwrap();
    let mut worst = [r.error("logits", &logits), 0.0, 0.0];

    let all = layers::select(&checkpoint.network, "*").unwrap().remove(0);
    let found = objective.hvp(&images, &all, &vector(&checkpoint, &all, dtype)).unwrap();
    let loss = Tensor::new(found.loss, &Device::Cpu).unwrap();
    worst[0] = worst[0].max(r.error("loss", &loss));
    worst[1] = r.worst(&checkpoint, "gradient", &all, &found.gradient);
    worst[2] = r.worst(&checkpoint, "hvp_all", &all, &found.hvp);
    for layer in layers::layers(&checkpoint.network, Granularity::Block) {
        let start = objective.activations(&images, layer.first_stage).unwrap();
        let found = objective.hvp(&start, &layer, &vector(&checkpoint, &layer, dtype)).unwrap();
        worst[1] = worst[1].max(r.worst(&checkpoint, "gradient", &layer, &found.gradient));
        worst[2] = worst[2].max(r.worst(&checkpoint, "hvp", &layer, &found.hvp));
    }
    // Every parameter of the file was compared.
    let inputs = ["labels", "pixel_values", "image", "processed"];
    let open = |key: &&String| !inputs.contains(&key.as_str()) && !r.checked.contains(key);
    assert_eq!(r.tensors.keys().find(open), None, "{}", r.name);
    worst
}

#[test]
fn results_match_the_library() {
    for folder in folders() {
        for (dtype, tolerances) in TOLERANCES {
            let found = errors(&folder, dtype);
            let name = folder.file_name().unwrap().display();
            let [logits, gradient, hvp] = found;
            println!("{name:24} {dtype:?} {logits:8.1e} {gradient:8.1e} {hvp:8.1e}");
            let within = found.iter().zip(tolerances).all(|(error, most)| *error <= most);
            assert!(within, "{name} {dtype:?}: {found:?}");
        }
    }
}

/// Activation sizes, and logits that are linear in the weights of the head, and in those of the last
/// norm unless an attention follows it.
#[test]
fn logits_are_linear_in_the_head() {
    for folder in folders() {
        let (checkpoint, r) = (open(&folder), Reference::open(&folder));
        let (objective, images) = model(&checkpoint, &r, DType::F64);
        for stage in 0..=checkpoint.network.stages() {
            let activation_bytes =
                objective.activations(&images, stage).unwrap().values.elem_count() * 8;
            let prefix = Prefix::new(&objective, vec![&images], stage, false);
            assert_eq!(prefix.layout().bytes(), activation_bytes as u64, "{} {stage}", r.name);
        }
        let vit = checkpoint.config.vit();
        let normed = vit.is_none_or(|vit| {
            vit.final_norm != FinalNorm::None
                && (vit.pooling != Pooling::Attention || vit.final_norm == FinalNorm::AfterPool)
        });
        for name in ["norm", "head"].into_iter().filter(|name| normed || *name == "head") {
            let layer = layers::select(&checkpoint.network, name).unwrap().remove(0);
            let start = objective.activations(&images, layer.first_stage).unwrap();
            let direction = objective.gradient(&start, &layer).unwrap().gradient;
            let line = Line::new(&objective, &start, &layer, &direction).unwrap();
            assert!(line.is_cheap());
            let expected = moved(&objective, &layer, &direction, 0.7).unwrap();
            let expected = expected.predict(&start).unwrap();
            let found = line.predict(0.7).unwrap();
            for (found, expected) in found.values().iter().zip(expected.values()) {
                assert!((found - expected).abs() < 1e-12, "{}: {found} {expected}", r.name);
            }
        }
    }
}

/// Values differ by at most one level of 255, because version 5 rounds like torchvision and version
/// 4 like Pillow.
#[test]
fn preprocessing_matches_the_library() {
    let mut cases = 0;
    for folder in folders() {
        let (checkpoint, r) = (open(&folder), Reference::open(&folder));
        let Some(image) = r.tensors.get("image") else { continue };
        let preprocess = checkpoint.preprocess.unwrap();
        let (h, w, c) = image.dims3().unwrap();
        let levels = image.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let split = Split::from_levels("reference", levels, [c, h, w], vec![0]).unwrap();
        let found = split.pixels(&[0], Some(&preprocess), None).unwrap();
        let expected = numbers(&r.tensors["processed"]);
        assert_eq!(found.len(), expected.len());
        let plane = found.len() / c;
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let level = 1.0 / (255.0 * f64::from(preprocess.std[at / plane]));
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference < 1.01 * level, "{}: {found} {expected}", r.name);
        }
        cases += 1;
    }
    assert_eq!(cases, 15);
}

fn provenance() -> Provenance {
    Provenance {
        method: "sgd".into(),
        perturb: Vec::new(),
        update: vec!["block.1".into()],
        seed: 0,
        version: "0".into(),
        parent_digest: None,
        data_digest: None,
        split: None,
        sample: None,
        settings: planish::checkpoint::StepSettings::default(),
    }
}

#[test]
fn an_untrained_model_is_saved_byte_for_byte() {
    for folder in folders() {
        let checkpoint = open(&folder);
        let out = tempfile::TempDir::new().unwrap();
        let to = out.path().join("saved");
        let path = checkpoint.save(&to, &checkpoint.weights, &provenance()).unwrap().path;
        let read = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            let header = Header::read(path, &bytes).unwrap();
            (bytes[header.data_start..].to_vec(), header)
        };
        let ((old, before), (new, after)) = (read(&checkpoint.path), read(&path));
        assert_eq!(old, new);
        assert_eq!(before.entries, after.entries);
        assert!(before.metadata.iter().all(|pair| after.metadata.contains(pair)));
        for name in ["config.json", "preprocessor_config.json"] {
            let read_file = |folder: &Path| std::fs::read(folder.join(name)).ok();
            assert_eq!(read_file(&folder), read_file(&to), "{name}");
        }
        // A single file contains its configuration.
        let one = out.path().join("one.safetensors");
        checkpoint.save(&one, &checkpoint.weights, &provenance()).unwrap();
        let bare = checkpoint.recognised.starts_with("torchvision");
        let overrides = Load { heads: bare.then_some(2), ..Load::default() };
        let reopened = Checkpoint::open(&one, &overrides).unwrap();
        assert_eq!(
            (&reopened.config, &reopened.preprocess),
            (&checkpoint.config, &checkpoint.preprocess)
        );
        assert_eq!(reopened.class_names, checkpoint.class_names);
        assert_eq!(reopened.recognised, checkpoint.recognised);
    }
}

/// A file without a head, opened with a new one, is saved with it, and all else is kept.
#[test]
fn a_backbone_is_saved_with_its_head() {
    let mut heads = 0;
    for folder in folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let whole = open(&folder);
        let in_file = |name: &str| whole.file_tensors(name).unwrap().remove(0);
        let Some(head) = whole.network.linear_head().filter(|head| head.len() == 1) else {
            continue;
        };
        let head: Vec<String> =
            head[0].iter().map(|&i| in_file(&whole.weights.names()[i])).collect();
        let bare = tempfile::TempDir::new().unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, bare.path().join(path.file_name().unwrap())).unwrap();
        }
        let file = bare.path().join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
        head.iter().for_each(|name| assert!(tensors.remove(name).is_some(), "{name}"));
        candle_core::safetensors::save(&tensors, &file).unwrap();
        let load = whole.loaded_with.clone();
        assert!(Checkpoint::open(bare.path(), &load).is_err());
        let opened = Checkpoint::open_backbone(bare.path(), &load, 4).unwrap();
        assert!(opened.headless, "{name}");
        let ones = |i: usize, t: &Tensor| match opened.weights.names()[i].starts_with("head") {
            true if !opened.weights.names()[i].contains("norm") => t.ones_like(),
            _ => Ok(t.clone()),
        };
        let weights = opened.weights.map(ones).unwrap();
        let classes: Vec<String> = ["a", "b", "c", "d"].map(String::from).into();
        let out = bare.path().join("out");
        opened.save_with_classes(&out, &weights, Some(&classes), &provenance()).unwrap();
        let saved = Checkpoint::open(&out, &load).unwrap();
        assert_eq!(saved.layout, whole.layout);
        assert_eq!(saved.network.classes(), 4);
        if folder.join("config.json").exists() {
            assert_eq!(saved.class_names, Some(classes), "{name}");
        }
        for (i, (tensor, values)) in saved.weights.iter().enumerate() {
            assert_eq!(numbers(values), numbers(weights.tensor(i)), "{name}: {tensor}");
        }
        heads += 1;
    }
    assert!(heads > 25, "{heads}");
}

#[test]
fn trained_parts_are_saved_to_their_tensors() {
    for folder in folders() {
        let checkpoint = open(&folder);
        let Some(config) = checkpoint.config.vit() else { continue };
        let (canonical, d) = ("blocks.1.attn.qkv.weight", config.dim);
        let i = checkpoint.weights.index(canonical).unwrap();
        // Powers of two, exact in every stored type: 1 for queries, 2 for keys, 4 for values.
        let value = |row: usize| [1.0f32, 2.0, 4.0][row / d];
        let rows: Vec<f32> = (0..3 * d).flat_map(|row| vec![value(row); d]).collect();
        let rows = Tensor::from_vec(rows, (3 * d, d), &Device::Cpu).unwrap();
        let weights = checkpoint.weights.with(&[(i, rows.clone())]);
        let out = tempfile::TempDir::new().unwrap();
        let path = checkpoint.save(&out.path().join("x"), &weights, &provenance()).unwrap().path;
        let in_file = checkpoint.file_tensors(canonical).unwrap();
        let load = |path: &Path| candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let (before, after) = (load(&checkpoint.path), load(&path));
        assert_eq!(before.len(), after.len());
        for (name, old) in &before {
            let new = &after[name];
            assert_eq!((old.dtype(), old.dims()), (new.dtype(), new.dims()));
            match in_file.iter().position(|trained| trained == name) {
                None => assert_eq!(numbers(old), numbers(new), "{name}"),
                Some(part) if in_file.len() == 3 => {
                    let expected = f64::from(value(part * d));
                    assert!(numbers(new).iter().all(|&x| x == expected), "{name}");
                    let which = [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")];
                    let (long, short) = which[part];
                    assert!(name.contains(long) || name.contains(short), "{name}");
                }
                Some(_) => assert_eq!(numbers(new), numbers(&rows), "{name}"),
            }
        }
    }
}
