//! `calibrate`, end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, Output, tensors};
use serde_json::Value;
use std::fs;

fn calibrate(bench: &Bench, words: &[&str]) -> Output {
    let start = ["calibrate", &bench.model, "--data", &bench.data, "--quiet"];
    bench.run(&[&start[..], words].concat())
}

fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {path} in {value}"))
}

/// Head weights and biases of a checkpoint.
fn head(folder: &str) -> [Vec<f32>; 2] {
    let all = tensors(&format!("{folder}/model.safetensors"));
    ["head.weight", "head.bias"].map(|name| all[name].f32s())
}

#[test]
fn the_head_is_divided_by_the_temperature() {
    let bench = Bench::with_model();
    let out = bench.path("calibrated");
    let words = ["--out", &out, "--json", &bench.path("run.json")];
    let done = calibrate(&bench, &words);
    assert!(done.success, "{}", done.errors);
    let report = bench.json("run.json");
    assert_eq!(report["schema"], "planish/calibration/1");
    let temperature = number(&report, "/temperature");
    let (before, after) = (head(&bench.model), head(&out));
    for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
        // One rounding to f32.
        let expected = f64::from(*before) / temperature;
        assert!((f64::from(*after) - expected).abs() <= 6e-8 * expected.abs());
    }
    let (old, new) = (
        tensors(&format!("{}/model.safetensors", bench.model)),
        tensors(&format!("{out}/model.safetensors")),
    );
    for (name, tensor) in old.iter().filter(|(name, _)| !name.starts_with("head")) {
        assert!(tensor.f32s() == new[name].f32s(), "{name}");
    }

    // The calibrated file's loss on the images of the fit is that at the temperature, and its own
    // temperature is 1.
    let eval = |model: &str| {
        let json = bench.path("eval.json");
        let words = ["eval", model, "--data", &bench.data, "--split", "test", "--json", &json];
        let done = bench.run(&words);
        assert!(done.success, "{}", done.errors);
        bench.json("eval.json")["figures"].clone()
    };
    let (before, after) = (eval(&bench.model), eval(&out));
    assert_eq!(before["top1"], after["top1"]);
    for split in ["validation", "test"] {
        assert_eq!(report[split]["before"]["top1"], report[split]["after"]["top1"]);
    }
    let of_v = number(&report, "/validation/after/temperature");
    assert!((of_v - 1.0).abs() < 1e-5, "{of_v}");
    assert!(number(&report, "/validation/after/nll") <= number(&report, "/validation/before/nll"));
    let mean =
        0.5 * (number(&report, "/validation/after/nll") + number(&report, "/test/after/nll"));
    let found = number(&after, "/nll");
    assert!((found - mean).abs() < 1e-6, "{found} {mean}");
    assert!(done.output.contains("temperature scaling, fitted on"), "{}", done.output);

    // The provenance has the step.
    let made = bench.plain(&["inspect", &out]).output;
    assert!(made.contains("calibrate by"), "{made}");
}

#[test]
fn only_results_of_the_same_command_are_replaced() {
    let bench = Bench::with_model();
    let out = bench.path("calibrated");
    assert!(calibrate(&bench, &["--out", &out]).success);
    assert!(calibrate(&bench, &["--method", "svs", "--out", &out]).success);
    let file = format!("{out}/model.safetensors");
    let before = fs::read(&file).unwrap();
    let rest = ["--data", &bench.data, "--out", &out, "--quiet"];
    for words in [&["fix"][..], &["post-train", "--method", "sgd", "--update", "head"]] {
        let run = bench.run(&[&words[..1], &[bench.model.as_str()], &words[1..], &rest].concat());
        run.fails_with(&["the result of calibrate on this checkpoint", "--out"]);
    }
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn calibration_in_place_is_undone() {
    let bench = Bench::with_model();
    let file = format!("{}/model.safetensors", bench.model);
    let before = fs::read(&file).unwrap();
    let done = calibrate(&bench, &["--method", "sms", "--in-place"]);
    assert!(done.success && done.output.contains("planish undo"), "{}{}", done.output, done.errors);
    assert!(fs::read(&file).unwrap() != before);
    assert!(bench.plain(&["undo", &bench.model]).success);
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn structured_scaling_is_what_the_file_computes() {
    let bench = Bench::with_model();
    for method in ["svs", "sms"] {
        let out = bench.path(method);
        let words = ["--method", method, "--out", &out, "--json", &bench.path("run.json")];
        let done = calibrate(&bench, &words);
        assert!(done.success, "{}", done.errors);
        let report = bench.json("run.json");
        // The penalised fit starts at the temperature's, so it cannot be worse on its images.
        let calibrated = number(&report, "/validation/after/nll");
        assert!(calibrated <= number(&report, "/validation/before/nll"), "{method}");
        assert!(report["cross_fit_gain"]["stderr"].is_number());
    }
}

#[test]
fn conformal_sets_come_from_images_that_chose_nothing_else() {
    let bench = Bench::with_model();
    let words = ["--conformal", "0.2", "--dry-run", "--json", &bench.path("run.json")];
    let done = calibrate(&bench, &words);
    assert!(done.success, "{}", done.errors);
    assert!(done.output.contains("nothing written") && done.output.contains("LAC after"));
    let report = bench.json("run.json");
    let v = number(&report, "/validation/data/images");
    let conformal = &report["conformal"];
    let held_out = number(conformal, "/after/0/held_out");
    assert_eq!(held_out + number(&report, "/fitted_on"), v);
    for when in ["before", "after"] {
        let sets = conformal[when].as_array().unwrap();
        let names: Vec<&str> = sets.iter().map(|s| s["score"].as_str().unwrap()).collect();
        assert_eq!(names, ["lac", "aps", "raps"]);
        for sets in sets {
            let coverage = number(sets, "/coverage/mean");
            let (m, n) = (number(&report, "/test/data/images"), held_out);
            // Five standard errors, of test images and of the threshold.
            let slack = 5.0 * (0.16 * (1.0 / m + 1.0 / n)).sqrt();
            assert!((coverage - 0.8).abs() < slack + 1.0 / n, "{sets}");
        }
    }
    assert_eq!(report["output"], Value::Null);

    let page = bench.path("page.html");
    let shown = bench.plain(&["report", &bench.path("run.json"), "--html", &page]);
    assert!(shown.success, "{}", shown.errors);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("Calibration by temperature") && page.contains("Conformal sets for"));
}

#[test]
fn laplace_predictions_stand_beside_the_calibrated_checkpoint() {
    let bench = Bench::with_model();
    let words = ["--laplace", "--dry-run", "--json", &bench.path("run.json")];
    let done = calibrate(&bench, &words);
    assert!(done.success, "{}", done.errors);
    for part in ["test, Laplace", "Laplace approximation of the head", "prior precision"] {
        assert!(done.output.contains(part), "{part}: {}", done.output);
    }
    let report = bench.json("run.json");
    let laplace = &report["laplace"];
    let prior = number(laplace, "/prior_precision");
    assert!((1e-4..=1e4).contains(&prior));
    assert!(number(laplace, "/training_images") > 0.0);
    // Gains are paired, so their means are differences of the means.
    let nll = number(laplace, "/test/nll/mean");
    for (path, gain) in [
        ("/test/before/nll", "/test/nll_gain/mean"),
        ("/test/after/nll", "/test/gain_over_calibrated/mean"),
    ] {
        let difference = number(&report, path) - nll;
        assert!((number(laplace, gain) - difference).abs() < 1e-9, "{gain}");
    }
    // The posterior does not change the checkpoint's own figures.
    let plain = calibrate(&bench, &["--dry-run", "--json", &bench.path("plain.json")]);
    assert!(plain.success && bench.json("plain.json")["test"] == report["test"]);

    let page = bench.path("page.html");
    assert!(bench.plain(&["report", &bench.path("run.json"), "--html", &page]).success);
    assert!(fs::read_to_string(page).unwrap().contains("Laplace approximation of the head"));

    // The training images are needed.
    let alone = bench.path("alone");
    fs::create_dir(&alone).unwrap();
    for entry in fs::read_dir(&bench.data).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("t10k") {
            fs::copy(&path, format!("{alone}/{name}")).unwrap();
        }
    }
    let words = ["calibrate", &bench.model, "--data", &alone, "--laplace", "--dry-run", "--quiet"];
    bench.run(&words).fails_with(&["--train-data"]);
}

#[test]
fn invalid_options_are_refused() {
    let bench = Bench::with_model();
    calibrate(&bench, &["--conformal", "0", "--dry-run"])
        .is_refused_with(&["--conformal", "above 0"]);
    calibrate(&bench, &["--conformal", "1", "--dry-run"])
        .is_refused_with(&["--conformal", "less than 1"]);
    let nowhere = calibrate(&bench, &[]);
    assert_eq!(nowhere.code, Some(2));
    let all = ["--out", "--in-place", "--dry-run"];
    assert!(all.iter().all(|flag| nowhere.errors.contains(flag)), "{}", nowhere.errors);
    let own = calibrate(&bench, &["--out", &bench.model]);
    own.fails_with(&["never overwritten"]);
}

/// A note on post-training would not belong here.
#[test]
fn other_training_images_do_not_matter() {
    let bench = Bench::new();
    let words = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &bench.data];
    let rest =
        ["--epochs", "1", "--batch-size", "8", "--train-samples", "24", "--out", &bench.model];
    let made = bench.run(&[&words[..], &rest].concat());
    assert!(made.success, "{}", made.errors);
    let other = ["--train-data", &bench.data, "--train-on", "all"];
    let run = |command: &str| {
        let words = [command, &bench.model, "--data", &bench.data, "--quiet", "--dry-run"];
        let done = bench.run(&[&words[..], &other, &["--json", &bench.path("r.json")]].concat());
        assert!(done.success, "{}", done.errors);
        bench.json("r.json")["notes"].to_string()
    };
    assert!(run("diagnose").contains("compare with plain SGD"));
    assert!(!run("calibrate").contains("compare with plain SGD"));
}

/// The training images, or those of test, are not V.
#[test]
fn images_that_are_known_are_noted() {
    let bench = Bench::with_model();
    let whole = |split: &str| {
        let folder = bench.path(split);
        fs::create_dir(&folder).unwrap();
        let prefix = if split == "train" { "train" } else { "t10k" };
        for part in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
            let from = format!("{}/{prefix}-{part}", bench.data);
            fs::copy(from, format!("{folder}/{prefix}-{part}")).unwrap();
        }
        folder
    };
    let json = bench.path("run.json");
    for (split, said) in [("train", "was trained on"), ("test", "the same images")] {
        let words = ["calibrate", &bench.model, "--data", &bench.data, "--val-data", &whole(split)];
        let done = bench.run(&[&words[..], &["--dry-run", "--json", &json]].concat());
        assert!(done.success, "{}", done.errors);
        let notes = bench.json("run.json")["notes"].to_string();
        assert!(notes.contains(said), "{split}: {notes}");
    }
    let plain = ["calibrate", &bench.model, "--data", &bench.data, "--dry-run", "--json", &json];
    assert!(bench.run(&plain).success);
    let notes = bench.json("run.json")["notes"].to_string();
    assert!(!notes.contains("was trained on") && !notes.contains("the same images"), "{notes}");
}
