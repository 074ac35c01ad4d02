//! Automatic choices of `post-train`: its training images, and with `--search` its recipe.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use serde_json::Value;
use std::fs;

#[test]
fn training_uses_the_images_of_fine_tuning_by_default() {
    let bench = Bench::new();
    let finetuned = |name: &str, sample: &[&str]| {
        let out = bench.path(name);
        let mut words = vec!["finetune", "--arch", "vit_nano_patch7_14", "--data", &bench.data];
        words.extend(["--epochs", "1", "--batch", "8", "--out", &out]);
        words.extend(sample);
        let made = bench.run(&words);
        assert!(made.success, "{}", made.errors);
        out
    };
    let dry_run = |model: &str, rest: &[&str]| {
        let words = ["diagnose", model, "--data", &bench.data, "--dry-run"];
        let result = bench.run(&[&words, rest].concat());
        assert!(result.success, "{}", result.errors);
        result.errors + &result.output
    };
    let note = "that the checkpoint was fine-tuned on";
    for share in ["0", "0.2"] {
        let some = finetuned(share, &["--train-samples", "24", "--val-fraction", share]);
        assert!(dry_run(&some, &[]).contains(&format!("the 24 of {}", bench.data)));
        let all = dry_run(&some, &["--train-on", "all"]);
        assert!(all.contains("fine-tuned on 24 images, and") && !all.contains(note), "{all}");
        // A tuned checkpoint also uses them, until it is tuned on other images.
        for (on, reused) in [("fitted", true), ("all", false)] {
            let out = bench.path(&format!("{share}-{on}"));
            let words = ["post-train", &some, "--data", &bench.data, "--method", "sgd", "--out"];
            let tuned = [
                &words[..],
                &[
                    &out,
                    "--train-on",
                    on,
                    "--update",
                    "norm",
                    "--write-worse",
                    "--epochs",
                    "1",
                    "--batch-size",
                    "8",
                ],
            ]
            .concat();
            let tuned = bench.run(&tuned);
            assert!(tuned.success, "{}", tuned.errors);
            assert_eq!(dry_run(&out, &[]).contains(note), reused);
        }
    }
    let cut = dry_run(&bench.path("0"), &["--val-from-train", "0.2"]);
    assert!(cut.contains("fine-tuned on 24 images, and") && cut.contains("has 32"), "{cut}");
    for (name, sample) in [("whole", &[][..]), ("all", &["--train-samples", "40"])] {
        let model = finetuned(name, &[sample, &["--val-fraction", "0"]].concat());
        assert!(!dry_run(&model, &[]).contains("was fine-tuned on"));
    }
}

const SEARCH: [&str; 6] = ["--batch-size", "8", "--perturb-batch", "8", "--remeasure", "0"];

#[test]
fn a_search_runs_its_best_recipe() {
    let bench = Bench::with_model();
    let [found, again] = ["found", "again"].map(|name| bench.path(name));
    let given = ["post-train", &bench.model, "--data", &bench.data, "--json", "search.json"];
    let words = [&given[..], &SEARCH, &["--search", "0.05", "--out", &found]].concat();
    let out = bench.run(&words);
    assert!(out.success, "{}", out.errors);
    let log = out.errors;
    assert!(log.contains("recipes tried") && log.contains("compared on V only"), "{log}");
    let report = bench.json("search.json");
    let search = &report["search"];
    let tried = search["tried"].as_array().unwrap();
    let chosen = &tried[search["chosen"].as_u64().unwrap() as usize];
    let gain = |t: &Value| t["calibrated_nll_gain"]["mean"].as_f64().unwrap_or(f64::NEG_INFINITY);
    let nll = |t: &Value| t["nll_gain"]["mean"].as_f64().unwrap_or(f64::NEG_INFINITY);
    let eligible: Vec<&Value> = tried.iter().filter(|t| nll(t) >= 0.0 && gain(t) > 0.0).collect();
    let top = eligible.iter().max_by(|a, b| gain(a).total_cmp(&gain(b))).unwrap();
    let least = gain(top) - top["calibrated_nll_gain"]["stderr"].as_f64().unwrap();
    // The lowest loss among those within a standard error of the best.
    assert!(gain(chosen) >= least);
    assert!(eligible.iter().all(|other| gain(other) < least || nll(other) <= nll(chosen)));
    assert!(out.output.contains("a search on V chose"), "{}", out.output);
    assert!(search["recipes"].as_u64().unwrap() >= tried.len() as u64);
    let page = bench.plain(&["report", "search.json", "--html", "search.html"]);
    assert!(page.success, "{}", page.errors);
    let page = fs::read_to_string(bench.path("search.html")).unwrap();
    assert!(page.contains("Recipes tried") && page.contains("calibrated gain"));
    // The run matches the row: method, settings and, bit for bit, loss on V.
    assert_eq!(report["method"]["name"], chosen["method"]);
    assert_eq!(report["method"]["update"], chosen["update"]);
    assert_eq!(report["method"]["chosen_by"], "by a search on V");
    assert_eq!(report["settings"]["lr"], chosen["lr"]);
    assert_eq!(report["validation"]["after"]["nll"], chosen["nll"]);
    assert_eq!(report["validation"]["after"]["calibrated_nll"], chosen["calibrated_nll"]);
    // A run with these options given explicitly gives the same result.
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let named: Vec<String> = [
        ("--method", &chosen["method"]),
        ("--perturb", &chosen["perturb"]),
        ("--update", &chosen["update"]),
        ("--lr", &chosen["lr"]),
        ("--weight-decay", &chosen["weight_decay"]),
        ("--epochs", &chosen["epochs"]),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_null())
    .map(|(flag, value)| format!("{flag}={}", text(value)))
    .collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let line = if chosen["perturb"].is_null() { &SEARCH[..2] } else { &SEARCH[..4] };
    let given = ["post-train", &bench.model, "--data", &bench.data, "--out", &again];
    let out = bench.run(&[&given[..], line, &named, &["--remeasure", "0"]].concat());
    assert!(out.success, "{}", out.errors);
    let weights = |folder: &str| {
        let bytes = fs::read(format!("{folder}/model.safetensors")).unwrap();
        let (length, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let data = bytes[length + 8..].to_vec();
        (header.tensors().into_keys().collect::<std::collections::BTreeSet<_>>(), data)
    };
    assert!(weights(&found) == weights(&again), "the weights differ");
}

#[test]
fn a_search_that_finds_nothing_reports_what_it_tried() {
    let bench = Bench::with_model();
    let words = ["post-train", &bench.model, "--data", &bench.data, "--out", "out", "--json"];
    // Too little time for a second recipe, and gradients too short to move any weight.
    let search = ["nothing.json", "--search", "0.000001", "--clip", "1e-30"];
    let out = bench.run(&[&words[..], &search, &SEARCH].concat());
    assert_eq!(out.code, Some(1), "{}", out.errors);
    assert!(out.errors.contains("none of 1 recipes lowers the loss"), "{}", out.errors);
    let report = bench.json("nothing.json");
    assert_eq!(report["schema"], "planish/search/1");
    assert_eq!(report["search"]["chosen"], Value::Null);
    assert_eq!(report["search"]["tried"][0]["nll_gain"]["mean"], 0.0);
    assert!(!std::path::Path::new(&bench.path("out")).exists());
}

#[test]
fn a_search_rejects_recipe_options_and_needs_validation_images() {
    let bench = Bench::with_model();
    let words = ["post-train", &bench.model, "--data", &bench.data, "--out", "out", "--search"];
    for option in [["--lr", "0.1"], ["--method", "sgd"], ["--update", "norm"], ["--epochs", "2"]] {
        let out = bench.run(&[&words[..], &["1"], &option].concat());
        assert!(
            out.code == Some(2) && out.errors.contains("cannot be used with"),
            "{}",
            out.errors
        );
    }
    assert_eq!(bench.run(&[&words[..], &["0"]].concat()).code, Some(2));
    for kind in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
        fs::remove_file(format!("{}/t10k-{kind}", bench.data)).unwrap();
    }
    let out = bench.run(&[&words[..], &["1"]].concat());
    assert_eq!(out.code, Some(1));
    assert!(out.errors.contains("--val-data"), "{}", out.errors);
    assert!(!std::path::Path::new(&bench.path("out")).exists());
}
