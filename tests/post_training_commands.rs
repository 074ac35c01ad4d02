//! diagnose, post-train and bench end to end, and their errors for bad input.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, Output, tensors};
use serde_json::Value;
use std::fs;

/// Every key of a report of `diagnose`; `[]` stands for the entries of a list. Only `run` depends
/// on the machine's speed: `run.forecast` has seconds and memory, `forecast` has operations.
const KEYS: &str = "schema run.command run.version run.seed run.threads run.device run.seconds \
    run.peak_mib run.host run.date run.forecast[].method run.forecast[].seconds_per_epoch \
    run.forecast[].peak_mib checkpoint.path checkpoint.digest checkpoint.layout \
    checkpoint.architecture checkpoint.parameters data.path data.kind data.split data.images \
    data.digest data.origin loss_nats.validation loss_nats.stderr loss_nats.calibrated \
    loss_nats.temperature loss_nats.training repeats layers[].name layers[].parameters \
    layers[].gradient_norm layers[].weight_norm layers[].delta_l_nats.in_sample \
    layers[].delta_l_nats.cross_fit layers[].delta_l_nats.stderr \
    layers[].delta_l_calibrated_nats.in_sample layers[].delta_l_calibrated_nats.cross_fit \
    layers[].delta_l_calibrated_nats.stderr layers[].kappa.in_sample layers[].kappa.cross_fit \
    layers[].kappa.stderr layers[].kappa_relative.cross_fit layers[].p_holm layers[].displacement layers[].alpha layers[].evaluations \
    layers[].capped layers[].negative_curvature layers[].eligible layers[].quadratic.alpha \
    layers[].quadratic.delta_l_nats layers[].quadratic.kappa plan.perturb plan.update \
    plan.tied_perturb plan.tied_update plan.basis plan_in_sample.perturb plan_in_sample.update \
    basis plan_raw layers[].raw.delta_l_nats.cross_fit layers[].raw.kappa.cross_fit \
    layers[].raw.displacement forecast[].method forecast[].gflop_per_image warnings";

/// Whether a path of keys exists, in every entry of every list on the path.
fn has_path(value: &Value, path: &str) -> bool {
    let (key, rest) = path.split_once('.').map_or((path, None), |(k, r)| (k, Some(r)));
    let Some(found) = value.get(key.trim_end_matches("[]")) else { return false };
    match rest {
        None => true,
        Some(rest) if key.ends_with("[]") => {
            found.as_array().is_some_and(|a| !a.is_empty() && a.iter().all(|v| has_path(v, rest)))
        }
        Some(rest) => has_path(found, rest),
    }
}

/// Runs a command with `--quiet` on the bench's images.
fn run(bench: &Bench, words: &[&str], rest: &[&str]) -> Output {
    let common = ["--data", &bench.data, "--quiet"];
    bench.run(&[words, &common, rest].concat())
}

/// Images without the files of one split, `train` or `t10k`.
fn without(bench: &Bench, name: &str, prefix: &str, classes: usize) -> String {
    let path = bench.idx(name, classes);
    for kind in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
        fs::remove_file(format!("{path}/{prefix}-{kind}")).unwrap();
    }
    path
}

/// Asserts an error with this exit code that contains all these parts. The code is 2 for an invalid
/// command line and 1 otherwise.
fn assert_error(out: &Output, code: i32, parts: &[&str]) {
    assert_eq!(out.code, Some(code), "{} {}", out.output, out.errors);
    assert!(out.errors.starts_with("error: "), "{}", out.errors);
    for part in parts {
        assert!(out.errors.contains(part), "`{part}` is not in: {}", out.errors);
    }
}

const SMALL: [&str; 6] = ["--epochs", "1", "--batch-size", "8", "--perturb-batch", "16"];

fn header(path: &str) -> std::collections::HashMap<String, String> {
    let bytes = fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    metadata.metadata().clone().unwrap_or_default()
}

#[test]
fn a_model_is_diagnosed_post_trained_and_compared() {
    let bench = Bench::with_model();
    let model = bench.model.as_str();
    let weights = format!("{model}/model.safetensors");
    let before = fs::read(&weights).unwrap();
    // V has only one class, which gives every layer a clear gap.
    let v = without(&bench, "half", "train", 1);
    let v = ["--val-data", v.as_str()];
    let [report, again] = ["diagnosis.json", "again.json"].map(|name| bench.path(name));
    let mut texts = Vec::new();
    for path in [&report, &again] {
        let out = run(&bench, &["diagnose", model, "--json", path], &v);
        assert!(
            out.success && out.output.contains("plan: perturb"),
            "{}{}",
            out.output,
            out.errors
        );
        let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for key in KEYS.split(' ').filter(|k| !k.is_empty()) {
            assert!(has_path(&value, key), "{key} is missing");
        }
        assert_eq!(value["schema"], "planish/diagnosis/1");
        assert_eq!(value["layers"].as_array().unwrap().len(), 9);
        value.as_object_mut().unwrap().remove("run");
        texts.push(value.to_string());
    }
    assert_eq!(texts[0], texts[1]);
    let plan = &bench.json("diagnosis.json")["plan"];

    let out = bench.path("better");
    let json = bench.path("run.json");
    // Tuning may not improve a model this small.
    let anyway = "--write-worse";
    let words = ["post-train", model, "--plan", &report, "--out", &out, "--json", &json, anyway];
    let done = run(&bench, &words, &[&v[..], &SMALL[..]].concat());
    assert!(done.success, "{}", done.errors);
    let trained = bench.json("run.json");
    assert_eq!(trained["schema"], "planish/post-train/1");
    for role in ["perturb", "update"] {
        assert_eq!(trained["method"][role], plan[role]);
    }
    let layer = plan["update"].as_str().unwrap();
    let of_layer = |name: &str| match layer.strip_prefix("block.") {
        Some(i) => name.starts_with(&format!("blocks.{i}.")),
        None if layer == "embed" => name.contains("embed") || name.contains("token"),
        None => name.starts_with(layer),
    };
    let saved = format!("{out}/model.safetensors");
    let (old, new) = (tensors(&weights), tensors(&saved));
    assert!(old.keys().eq(new.keys()) && old.keys().any(|name| of_layer(name)));
    for (name, tensor) in &old {
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let same = bits(tensor.f32s()) == bits(new[name].f32s());
        assert_eq!(same, !of_layer(name), "{name}");
    }
    let steps = |path: &str| -> Value {
        serde_json::from_str(&header(path)["planish.provenance"]).unwrap()
    };
    let (first, all) = (steps(&weights), steps(&saved));
    assert_eq!(all.as_array().unwrap().len(), 1 + first.as_array().unwrap().len());
    assert_eq!((&all[0], &all[1]["method"]), (&first[0], &"pol".into()));
    assert_eq!(all[1]["parent_digest"], trained["checkpoint"]["digest"]);
    assert_eq!(fs::read(&weights).unwrap(), before);

    // A plan only applies to its checkpoint.
    let other = ["--plan", &report, "--batch-size", "8", "--out", "x"];
    let parts = ["diagnosis.json", "diagnose this one"];
    assert_error(&run(&bench, &["post-train", &out], &other), 1, &parts);
    assert_error(&run(&bench, &["bench", &out], &other[..4]), 1, &parts);
    // And to images that are prepared as in the diagnosis.
    let other = ["--plan", &report, "--mean", "0.4", "--batch-size", "8", "--out", "x"];
    let parts = ["diagnosis.json", "other preprocessing", "mean [0.4]"];
    assert_error(&run(&bench, &["post-train", model], &other), 1, &parts);
    assert_error(&run(&bench, &["bench", model], &other[..6]), 1, &parts);

    let json = bench.path("bench.json");
    let words = ["bench", model, "--plan", &report, "--seeds", "2", "--json", &json];
    let done = run(&bench, &words, &[&v[..], &SMALL[..]].concat());
    assert!(done.success, "{}", done.errors);
    let compared = bench.json("bench.json");
    assert_eq!(compared["schema"], "planish/bench/1");
    let rows = compared["rows"].as_array().unwrap();
    assert_eq!(rows[0]["name"], "untouched");
    // Each method has a control that updates the same layer and perturbs nothing.
    for row in rows.iter().filter(|row| row["perturb"].is_string()) {
        assert!(row["gain_over_control"]["stderr"].is_number(), "{row}");
        let of = |r: &Value| r["nll"]["mean"].as_f64().unwrap();
        let control = rows.iter().filter(|r| r["method"] == "sgd").any(|control| {
            let gain = row["gain_over_control"]["mean"].as_f64().unwrap();
            (of(control) - of(row) - gain).abs() < 1e-9
        });
        assert!(control, "{row}");
    }
    assert_eq!(fs::read(&weights).unwrap(), before);
}

#[test]
fn bad_input_is_reported_with_a_remedy() {
    let bench = Bench::with_model();
    let model = bench.model.as_str();
    let before = fs::read(format!("{model}/model.safetensors")).unwrap();
    let [out, missing, junk] = ["out", "none/x.safetensors", "junk.json"].map(|n| bench.path(n));
    fs::write(&junk, "{}").unwrap();
    let below_a_file = format!("{junk}/x.safetensors");
    let layers = ["--perturb", "head", "--update", "norm"];
    let train = ["post-train", model, "--out", &out];
    let small = [&train[..], &["--batch-size", "8"]].concat();
    type Case<'a> = (i32, Vec<&'a str>, Vec<&'a str>, Vec<&'a str>);
    let cases: Vec<Case> = vec![
        (1, vec!["diagnose", model], vec!["--layer", "block.15"], vec!["block.15", "block.1"]),
        (1, vec!["diagnose", model], vec!["--layer", "stage*"], vec!["stage*", "embed"]),
        (2, vec!["diagnose", model], vec!["--samples", "0"], vec!["--samples", "from 1"]),
        (1, small.clone(), vec!["--perturb", "haed"], vec!["haed", "\"head\""]),
        (
            2,
            small.clone(),
            vec!["--method", "sgd", "--perturb", "head"],
            vec!["--perturb only applies to the method pol"],
        ),
        (
            2,
            small.clone(),
            vec!["--method", "pof", "--update", "norm"],
            vec!["--update only applies to", "remove --update"],
        ),
        (
            1,
            small.clone(),
            vec!["--plan", &junk],
            vec!["junk.json", "JSON report of `planish diagnose`"],
        ),
        (1, small.clone(), vec!["--plan", &missing], vec!["x.safetensors", "planish diagnose"]),
        (
            1,
            train.to_vec(),
            [&layers[..], &["--batch-size", "41"]].concat(),
            vec!["batch size", "1 to 40", "41", "smaller"],
        ),
        (1, vec!["post-train", model, "--out", model], vec![], vec![model, "choose another --out"]),
        (
            1,
            vec!["post-train", model, "--out", &below_a_file],
            vec![],
            vec!["junk.json", "choose another --out"],
        ),
        (
            2,
            small.clone(),
            vec!["--method", "sgd", "--update", "head", "--gamma", "1"],
            vec!["--gamma only applies to the methods pol, pof"],
        ),
        (
            2,
            vec!["bench", model],
            vec!["--methods", "sam", "--step", "newton"],
            vec!["--step only applies to the methods pol, pof"],
        ),
        (2, vec!["bench", model], vec!["--seeds", "0"], vec!["--seeds", "1 to", "found 0"]),
        (
            2,
            vec!["bench", model],
            vec!["--seeds", "18446744073709551615"],
            vec!["--seeds", "1 to", "found 18446744073709551615"],
        ),
        (
            1,
            vec!["bench", model],
            vec!["--plan", &junk],
            vec!["junk.json", "JSON report of `planish diagnose`"],
        ),
    ];
    for (code, words, rest, parts) in cases {
        assert_error(&run(&bench, &words, &rest), code, &parts);
    }
    // Numbers out of range are usage errors.
    for (flag, value, expected) in [
        ("--lr", "-1", "expected a number above 0"),
        ("--lr", "0", "expected a number above 0"),
        ("--lr", "nan", "expected a number above 0"),
        ("--gamma", "0", "expected a number above 0"),
        ("--momentum", "1", "expected a number from 0 to less than 1"),
        ("--epochs", "0", "expected a whole number from 1"),
        ("--batch-size", "0", "expected a whole number from 1"),
        ("--batch-size", "-8", "expected a whole number from 1"),
        ("--perturb-batch", "1.5", "expected a whole number from 1"),
        ("--memory", "4", "as in 4GiB"),
    ] {
        let out = run(&bench, &train, &[flag, value]);
        assert_eq!(out.code, Some(2), "{flag} {value}");
        let explained = out.errors.contains(flag) && out.errors.contains(expected);
        assert!(explained, "{flag} {value}: {}", out.errors);
    }
    assert_eq!(run(&bench, &train, &["--method", "pop"]).code, Some(2));
    assert_eq!(fs::read(format!("{model}/model.safetensors")).unwrap(), before);
    assert!(!std::path::Path::new(&out).exists());
}

#[test]
fn missing_splits_are_reported_with_their_flag() {
    let bench = Bench::with_model();
    let out = bench.path("out");
    let [no_test, no_train] = ["t10k", "train"].map(|prefix| without(&bench, prefix, prefix, 4));
    let model = bench.model.as_str();
    let diagnosed = bench.run(&["diagnose", model, "--data", &no_test, "--quiet"]);
    assert_error(&diagnosed, 1, &["validation", "--val-data"]);
    let train = |data: &str, rest: &[&str]| {
        let words = ["post-train", model, "--out", &out, "--quiet", "--data", data];
        bench.run(&[&words[..], &SMALL[..], rest].concat())
    };
    assert_error(&train(&no_test, &[]), 1, &["--val-data", "--perturb", "--update"]);
    assert_error(&train(&no_train, &[]), 1, &["training", "--train-data"]);
    // With explicit layers, no validation images are needed.
    let done = train(&no_test, &["--perturb", "head", "--update", "norm"]);
    assert!(done.success && done.output.contains("no final metrics"), "{}", done.errors);
}
