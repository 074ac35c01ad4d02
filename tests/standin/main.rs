//! Commands with `--device cuda` on the simulated CUDA libraries of `scripts/check-standin`,
//! compared with the CPU: numbers agree to 1e-5 of the largest, no invalid memory access, no leak.
//! On a real GPU (`scripts/gpu-check`) the environment selects a larger model, its data and a
//! tolerance.

mod bf16;
#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;
mod mistakes;
mod room;

use common::{Bench, tensors};
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::process::Command;

/// Maximum difference, relative to the largest number.
fn close() -> f64 {
    std::env::var("STANDIN_CLOSE").map_or(1e-5, |text| text.parse().unwrap())
}

/// A model and data given by the environment.
fn own() -> Option<[String; 2]> {
    let [model, data] = ["STANDIN_MODEL", "STANDIN_DATA"].map(std::env::var);
    Some([model.ok()?, data.ok()?])
}

/// Result of a run.
struct Ended {
    code: Option<i32>,
    errors: String,
}

/// Runs a command on a device with the given settings of the simulated libraries.
fn on(device: &str, bench: &Bench, words: &[&str], settings: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    command.args(words).args(["--device", device, "--threads", "2"]);
    command.env("XDG_CACHE_HOME", bench.path("xdg")).envs(settings.iter().copied());
    let out = command.output().unwrap();
    Ended { code: out.status.code(), errors: String::from_utf8(out.stderr).unwrap() }
}

/// A test directory with timm's tiny model (two blocks, width 12) and five images per role. It is
/// small because every GPU thread is emulated.
fn bench() -> Bench {
    let mut bench = Bench::new();
    if let Some([model, data]) = own() {
        (bench.model, bench.data) = (model, data);
        return bench;
    }
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference");
    bench.model = format!("{reference}/timm-tiny");
    let images = tensors(&format!("{reference}/hvp/timm.safetensors"));
    let (pixels, labels) = (&images["pixel_values"], &images["labels"]);
    let folder = bench.path("tensors");
    std::fs::create_dir(&folder).unwrap();
    for (role, factor) in [("train", 1.0), ("val", -1.0), ("test", 0.7)] {
        let numbers = pixels.f32s().into_iter().map(|x| (factor * x).to_le_bytes());
        let numbers: Vec<u8> = numbers.flatten().collect();
        let classes: Vec<u8> = labels.i64s().into_iter().flat_map(i64::to_le_bytes).collect();
        let views = [
            ("pixel_values", TensorView::new(Dtype::F32, pixels.shape.clone(), &numbers).unwrap()),
            ("labels", TensorView::new(Dtype::I64, labels.shape.clone(), &classes).unwrap()),
        ];
        std::fs::write(format!("{folder}/{role}.safetensors"), serialize(views, None).unwrap())
            .unwrap();
    }
    bench.data = format!("tensors:{folder}");
    bench
}

/// Twice the bytes of the model's weights: what may stay allocated until the end.
fn kept(bench: &Bench) -> String {
    let weights = format!("{}/model.safetensors", bench.model);
    (2 * std::fs::metadata(weights).unwrap().len() + (1 << 16)).to_string()
}

/// Runs a command on both devices. `{}` in its arguments stands for the device.
fn both(bench: &Bench, words: &[&str]) {
    let kept = kept(bench);
    for device in ["cpu", "cuda"] {
        let words: Vec<String> = words.iter().map(|word| word.replace("{}", device)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ended = on(device, bench, &words, &[("STANDIN_KEPT", &kept)]);
        assert_eq!(ended.code, Some(0), "{words:?} on {device}: {}", ended.errors);
    }
}

/// Compares the tensors of two files, each relative to its largest number.
fn close_files(bench: &Bench, pattern: &str) {
    let [cpu, gpu] = ["cpu", "cuda"].map(|d| tensors(&bench.path(&pattern.replace("{}", d))));
    assert!(cpu.keys().eq(gpu.keys()) && !cpu.is_empty());
    let mut worst: f64 = 0.0;
    let largest = |x: &[f32]| x.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
    for (name, cpu_tensor) in cpu.iter().filter(|(_, raw)| raw.is_f32()) {
        let (a, b) = (cpu_tensor.f32s(), gpu[name].f32s());
        assert_eq!(a.len(), b.len());
        let difference = a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs()));
        let difference =
            difference.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) });
        let size = largest(&a);
        assert!(difference <= close() * size, "{pattern} {name}: {difference} of {size}");
        worst = worst.max(difference / size.max(f64::MIN_POSITIVE));
    }
    println!("\nworst of {pattern}: {worst:.1e} of a tensor's largest number");
}

/// Compares the figures at these paths of two reports.
fn close_reports(bench: &Bench, pattern: &str, paths: &[&str]) {
    let [cpu, gpu] = ["cpu", "cuda"].map(|d| bench.json(&pattern.replace("{}", d)));
    assert_eq!((&cpu["run"]["device"], &gpu["run"]["device"]), (&"cpu".into(), &"cuda:0".into()));
    assert!(cpu["run"].get("device_peak_mib").is_none());
    assert!(gpu["run"]["device_peak_mib"].as_u64().is_some_and(|mib| mib > 0));
    for path in paths {
        let of = |report: &Value| -> Vec<f64> {
            let mut found = Vec::new();
            collect(report, path, &mut found);
            found
        };
        let (a, b) = (of(&cpu), of(&gpu));
        assert!(!a.is_empty() && a.len() == b.len(), "{path}");
        let size = a.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let difference = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("\nworst of {path}: {:.1e} of the largest, {size:.3e}", difference / size);
        assert!(difference <= close() * size, "{path}: {a:?} and {b:?}");
    }
}

/// The numbers at a path of keys; `[]` stands for the entries of a list.
fn collect(value: &Value, path: &str, found: &mut Vec<f64>) {
    let (key, rest) = path.split_once('.').map_or((path, None), |(k, r)| (k, Some(r)));
    let Some(next) = value.get(key.trim_end_matches("[]")) else { return };
    match (rest, next) {
        (None, number) => found.extend(number.as_f64()),
        (Some(rest), Value::Array(all)) => all.iter().for_each(|one| collect(one, rest, found)),
        (Some(rest), one) => collect(one, rest, found),
    }
}

#[test]
fn logits_match_the_cpu() {
    let bench = bench();
    let (dump, json) = (bench.path("{}.safetensors"), bench.path("{}.json"));
    let words = ["eval", &bench.model, "--data", &bench.data, "--dump", &dump, "--json", &json];
    both(&bench, &words);
    close_files(&bench, "{}.safetensors");
    close_reports(&bench, "{}.json", &["figures.nll", "figures.top1"]);
}

#[test]
fn gradients_and_products_match_the_cpu() {
    let bench = bench();
    for (layer, operator, vectors) in
        [("block.1", "hessian", 1), ("embed,norm,head", "ggn", 1), ("block.*", "hessian", 3)]
    {
        let out = bench.path("{}.safetensors");
        let mut words = vec!["hvp", &bench.model, "--data", &bench.data, "--layer", layer];
        words.extend(["--operator", operator, "--out", &out]);
        for seed in ["random:0", "random:1", "random:2"].iter().take(vectors) {
            words.extend(["--vector", seed]);
        }
        both(&bench, &words);
        close_files(&bench, "{}.safetensors");
    }
}

#[test]
fn diagnoses_match_the_cpu() {
    let bench = bench();
    let json = bench.path("{}.json");
    both(&bench, &["diagnose", &bench.model, "--data", &bench.data, "--json", &json]);
    let gaps = ["layers[].delta_l_nats.in_sample", "layers[].delta_l_nats.cross_fit"];
    let sharpness = ["layers[].kappa.in_sample", "layers[].kappa.cross_fit"];
    let rest = ["loss_nats.validation", "layers[].gradient_norm", "layers[].weight_norm"];
    close_reports(&bench, "{}.json", &[&gaps[..], &sharpness, &rest].concat());
}

#[test]
fn training_matches_the_cpu_for_every_method() {
    let bench = bench();
    let [batch, perturb_batch] = if own().is_some() { ["128", "256"] } else { ["3", "4"] };
    for (method, step, perturb) in [
        ("pol", "search", "head"),
        ("pol", "search", "block.0"),
        ("pol", "newton", "block.1"),
        ("pof", "search", ""),
        ("pof", "newton", ""),
        ("sam", "", ""),
        ("asam", "", ""),
        ("looksam", "", ""),
        ("sam-norm", "", ""),
        ("sgd", "", ""),
    ] {
        let name = format!("{method}{step}{perturb}-{{}}");
        let out = bench.path(&name);
        let mut words = vec!["post-train", &bench.model, "--data", &bench.data, "--write-worse"];
        words.extend(["--method", method, "--epochs", "2", "--clip", "0.001", "--out", &out]);
        // The best epoch may depend on rounding.
        words.extend(["--keep", "last"]);
        words.extend(["--batch-size", batch, "--remeasure", "0"]);
        if !step.is_empty() {
            words.extend(["--perturb-batch", perturb_batch, "--step", step]);
        }
        if !perturb.is_empty() {
            words.extend(["--perturb", perturb]);
        }
        if method != "pof" {
            words.extend(["--update", "block.1"]);
        }
        both(&bench, &words);
        close_files(&bench, &format!("{name}/model.safetensors"));
    }
}

#[test]
fn fine_tuning_matches_the_cpu() {
    let bench = bench();
    let batch = if own().is_some() { "128" } else { "3" };
    for optimizer in ["sgd", "adamw"] {
        let (out, json) = (bench.path(&format!("{optimizer}-{{}}")), bench.path("{}.json"));
        let mut words = vec!["finetune", "--from", &bench.model, "--data", &bench.data];
        words.extend(["--optimizer", optimizer, "--weight-decay", "0.1", "--batch", batch]);
        words.extend(["--epochs", "3", "--keep", "last", "--out", &out, "--json", &json]);
        both(&bench, &words);
        close_reports(&bench, "{}.json", &["epochs[].training_loss", "epochs[].validation.mean"]);
        // The bias of a key has no gradient but rounding, and AdamW steps by its sign.
        if optimizer == "sgd" {
            close_files(&bench, "sgd-{}/model.safetensors");
        }
    }
}
