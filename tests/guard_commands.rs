//! SAM, accumulation and the guards end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, Output, tensors};
use serde_json::Value;
use std::path::Path;

const BASE: [&str; 8] =
    ["--epochs", "2", "--batch-size", "8", "--remeasure", "0", "--quiet", "--json=run.json"];

/// Post-trains into `out`.
fn train(bench: &Bench, out: &str, words: &[&str]) -> Output {
    let out = bench.path(out);
    let start = ["post-train", &bench.model, "--data", &bench.data, "--out", &out];
    bench.run(&[&start[..], &BASE, words].concat())
}

fn values(path: &str) -> Vec<f32> {
    tensors(&format!("{path}/model.safetensors")).values().flat_map(|t| t.f32s()).collect()
}

#[test]
fn sam_variants_update_the_requested_layers() {
    let bench = Bench::with_model();
    let before = tensors(&format!("{}/model.safetensors", bench.model));
    let cases: [(&str, &[&str], &str, f64); 5] = [
        ("sam", &[], "*", 0.05),
        ("asam", &["--asam-eta", "0.02"], "*", 0.5),
        ("looksam", &["--look-every", "2"], "*", 0.05),
        ("sam-norm", &[], "norms of *", 0.5),
        ("sam", &["--update", "block.5", "--rho", "0.2"], "block.5", 0.2),
    ];
    for (i, (method, rest, perturb, rho)) in cases.into_iter().enumerate() {
        let out = format!("out{i}");
        let words =
            [&["--method", method, "--clip", "1", "--warmup", "0.5", "--write-worse"], rest];
        let done = train(&bench, &out, &words.concat());
        assert!(done.success, "{method}: {}", done.errors);
        let report = bench.json("run.json");
        assert_eq!(
            (&report["method"]["name"], &report["method"]["perturb"]),
            (&Value::from(method), &Value::from(perturb),)
        );
        assert_eq!(report["method"]["sam"]["rho"], rho);
        assert!(report["epochs"][0]["perturbation"].as_f64().is_some_and(|p| p > 0.0));
        assert!(report["epochs"][0]["capped"].is_null());
        let after = tensors(&format!("{}/model.safetensors", bench.path(&out)));
        for (name, tensor) in &before {
            let updated =
                rest.is_empty() || !rest.contains(&"block.5") || name.contains("blocks.5.");
            let same = tensor.f32s() == after[name].f32s();
            assert_eq!(same, !updated, "{method}: {name}");
        }
    }
}

#[test]
fn micro_batch_and_accumulate_are_equivalent() {
    let bench = Bench::with_model();
    let common = ["--method", "sam", "--write-worse"];
    for (out, words) in [("a", ["--micro-batch", "2"]), ("b", ["--accumulate", "4"])] {
        let done = train(&bench, out, &[&common[..], &words].concat());
        assert!(done.success, "{}", done.errors);
        assert_eq!(bench.json("run.json")["micro_batch"], 2);
    }
    let (a, b) = (values(&bench.path("a")), values(&bench.path("b")));
    assert!(a == b && a != values(&bench.model));
    // A different size only changes the order of f32 sums.
    assert!(train(&bench, "c", &[&common[..], &["--micro-batch", "8"]].concat()).success);
    let c = values(&bench.path("c"));
    let worst = a.iter().zip(&c).map(|(a, c)| (a - c).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn a_worse_result_is_only_written_if_asked_for() {
    let bench = Bench::with_model();
    // The labels are unrelated to the images, so training makes V worse. The rate is high
    // enough to have an effect, and too low to diverge.
    let wrong = bench.idx("wrong", 3);
    let words = ["--method", "sgd", "--update", "*", "--lr", "0.02", "--train-data", &wrong];
    let refused = train(&bench, "out", &words);
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    for part in ["worse than the input", "images of V", "nothing was written", "--write-worse"] {
        assert!(refused.errors.contains(part), "{part}: {}", refused.errors);
    }
    assert!(!Path::new(&bench.path("out")).exists());
    assert!(refused.output.contains("nothing written"), "{}", refused.output);
    let report = bench.json("run.json");
    let selection = &report["selection"];
    assert_eq!(selection["worse_than_input"], true);
    assert_eq!(
        (selection["keep"].as_str(), selection["forced"].as_bool()),
        (Some("best"), Some(false))
    );
    assert!(report["output"].is_null() && report["test"].is_null());
    assert_eq!(selection["guarded_by_images"], report["validation"]["data"]["images"]);
    let nll = |when: &str| report["validation"][when]["nll"].as_f64().unwrap();
    assert!(nll("after") > nll("before"));

    let forced = train(&bench, "out", &[&words[..], &["--write-worse"]].concat());
    assert!(forced.success, "{}", forced.errors);
    assert!(forced.output.contains("worse than the input"), "{}", forced.output);
    assert!(values(&bench.path("out")) != values(&bench.model));
    let report = bench.json("run.json");
    assert_eq!(report["selection"]["forced"], true);
    assert!(report["output"]["path"].is_string() && report["test"].is_object());
}

#[test]
fn a_diverging_run_writes_nothing() {
    let bench = Bench::with_model();
    let words = ["--method", "sam", "--lr", "1e6"];
    let stopped = train(&bench, "out", &words);
    assert_eq!(stopped.code, Some(1));
    for part in ["stopped in epoch 1", "no epoch finished", "--clip", "--lr"] {
        assert!(stopped.errors.contains(part), "{part}: {}", stopped.errors);
    }
    assert!(!Path::new(&bench.path("out")).exists());
    let selection = &bench.json("run.json")["selection"];
    assert_eq!(
        (&selection["selected_epoch"], &selection["stopped"]["epoch"]),
        (&0.into(), &1.into())
    );
}

#[test]
fn bench_compares_sam_with_sgd_and_survives_a_diverging_run() {
    let bench = Bench::with_model();
    let run = |words: &[&str]| {
        let start = ["bench", &bench.model, "--data", &bench.data, "--seeds", "2"];
        bench.run(&[&start[..], &BASE, words].concat())
    };
    let done = run(&["--methods", "sam,sam-norm", "--rho", "0.1", "--accumulate", "2"]);
    assert!(done.success, "{}", done.errors);
    let report = bench.json("run.json");
    let names: Vec<&str> =
        report["rows"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["untouched", "SGD → all", "SAM → all", "norm-only SAM → all"]);
    assert!(report["plan"].is_null());
    for row in &report["rows"].as_array().unwrap()[2..] {
        assert_eq!((&row["control"], &row["stopped"]), (&"SGD → all".into(), &0.into()));
        assert!(row["gain_over_control"]["stderr"].is_number());
        assert_eq!(row["sam"]["rho"], 0.1);
        let of = |row: &Value| row["nll"]["mean"].as_f64().unwrap();
        let gain = row["gain_over_control"]["mean"].as_f64().unwrap();
        assert!((of(&report["rows"][1]) - of(row) - gain).abs() < 1e-9);
    }
    let diverged = run(&["--methods", "asam", "--lr", "1e6", "--update", "head"]);
    assert!(diverged.success, "{}", diverged.errors);
    let report = bench.json("run.json");
    assert_eq!(report["rows"][2]["stopped"], 2);
    assert!(diverged.output.contains("no verdict, because 2 of 2 runs"), "{}", diverged.output);
}

#[test]
fn invalid_flags_are_rejected() {
    let bench = Bench::with_model();
    let huge = usize::MAX.to_string();
    // Exit code 2 for an invalid command line, 1 for options that do not fit model or data.
    let cases: [(i32, &[&str], &[&str]); 9] = [
        (
            2,
            &["--method", "sgd", "--update", "*", "--rho", "1"],
            &["--rho only applies to the methods sam, friendly-sam, sl-sam, asam"],
        ),
        (
            2,
            &["--method", "sam", "--asam-eta", "1"],
            &["--asam-eta only applies to the method asam"],
        ),
        (
            2,
            &["--method", "sam", "--look-every", "2"],
            &["--look-every only applies to the method looksam"],
        ),
        (
            2,
            &["--method", "sam", "--perturb", "head"],
            &["--perturb only applies to the method pol"],
        ),
        (
            1,
            &["--method", "sam-norm", "--update", "head"],
            &["head", "normalisation", "--method sam"],
        ),
        (2, &["--method", "sam", "--accumulate", "9"], &["--accumulate", "1 to 8", "9"]),
        (2, &["--method", "sam", "--warmup", "3"], &["--warmup", "at most --epochs, 2"]),
        (1, &["--method", "sam", "--update", "blok.1"], &["blok.1", "block.1"]),
        (1, &["--method", "sam", "--epochs", &huge], &[&huge, "lower --epochs"]),
    ];
    for (code, words, parts) in cases {
        let words: Vec<&str> = words.to_vec();
        let out = bench.path("out");
        let mut all = vec!["post-train", &bench.model, "--data", &bench.data, "--out", &out];
        all.extend(["--batch-size", "8", "--quiet"]);
        if !words.contains(&"--epochs") {
            all.extend(["--epochs", "2"]);
        }
        all.extend(&words);
        let refused = bench.run(&all);
        let context = format!("{words:?}: {}{}", refused.output, refused.errors);
        assert_eq!(refused.code, Some(code), "{context}");
        for part in parts {
            assert!(refused.errors.contains(part), "{part}: {}", refused.errors);
        }
        assert!(!Path::new(&out).exists());
    }
    let bench_words = ["bench", &bench.model, "--data", &bench.data, "--methods", "pof,sam"];
    let refused = bench.run(&[&bench_words[..], &["--look-alpha", "1"]].concat());
    refused.is_refused_with(&["--look-alpha only applies to the method looksam"]);
    // Conflicting options, and invalid numbers.
    for (words, part) in [
        (["--micro-batch=2", "--accumulate=4"], "cannot be used with"),
        (["--clip=0", "--warmup=1"], "expected a number above 0"),
        (["--method=looksam", "--look-every=0"], "expected a whole number from 1"),
        (["--method=sam", "--micro-batch=0"], "expected a whole number from 1"),
    ] {
        let refused = train(&bench, "out", &words);
        assert_eq!(refused.code, Some(2), "{words:?}");
        assert!(refused.errors.contains(part), "{}", refused.errors);
    }
}
