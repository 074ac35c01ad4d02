//! Tuning in place, undoing it, patches, dry runs and the self-test, end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, Output};
use std::fs;
use std::path::Path;

const SHORT: [&str; 7] = [
    "--method=sgd",
    "--update=head",
    "--epochs=1",
    "--batch-size=8",
    "--remeasure=0",
    "--write-worse",
    "--quiet",
];

fn tune(bench: &Bench, words: &[&str]) -> Output {
    let start = ["post-train", &bench.model, "--data", &bench.data];
    bench.run(&[&start[..], &SHORT, words].concat())
}

fn weights(bench: &Bench) -> String {
    format!("{}/model.safetensors", bench.model)
}

#[test]
fn in_place_tuning_patch_and_undo_round_trip() {
    let bench = Bench::with_model();
    let file = weights(&bench);
    let before = fs::read(&file).unwrap();
    let done = tune(&bench, &["--in-place", "--json", &bench.path("run.json")]);
    assert!(done.success, "{}", done.errors);
    let tuned = fs::read(&file).unwrap();
    assert!(tuned != before);
    let report = bench.json("run.json");
    let undo = report["output"]["undo"].as_str().unwrap();
    assert!(
        undo.ends_with("model.safetensors.planish-undo.safetensors") && Path::new(undo).exists()
    );
    // In f32 no update is lost to rounding; the head of 4 classes has 4 × 64 + 4 weights.
    assert_eq!(report["output"]["moves_lost_to_rounding"], 0);
    assert_eq!(report["output"]["weights_moved"], 260);

    // The reported figures are those of the written file.
    let eval = bench.run(&["eval", &bench.model, "--data", &bench.data, "--json", "eval.json"]);
    assert!(eval.success, "{}", eval.errors);
    let found = bench.json("eval.json")["figures"]["nll"].as_f64().unwrap();
    let half = report["test"]["after"]["nll"].as_f64().unwrap();
    let other = report["validation"]["after"]["nll"].as_f64().unwrap();
    // With other micro-batches, the mean loss near 1 is the same up to f32 rounding.
    assert!((found - (half + other) / 2.0).abs() < 1e-7, "{found} {half} {other}");

    let old = bench.path("old.safetensors");
    fs::write(&old, &before).unwrap();
    let patch = bench.path("patch.safetensors");
    let made = bench.plain(&["patch", "diff", &old, &bench.model, "--out", &patch]);
    assert!(made.success && made.output.contains("head.weight"), "{} {}", made.output, made.errors);
    let patched = bench.path("again.safetensors");
    let applied = bench.plain(&["patch", "apply", &old, &patch, "--out", &patched]);
    assert!(applied.success, "{}", applied.errors);
    assert!(fs::read(&patched).unwrap() == tuned);
    // A folder also gets the configuration, so it is a complete checkpoint.
    let earlier = bench.path("earlier");
    fs::create_dir(&earlier).unwrap();
    fs::write(format!("{earlier}/model.safetensors"), &before).unwrap();
    let config = fs::read(format!("{}/config.json", bench.model)).unwrap();
    fs::write(format!("{earlier}/config.json"), &config).unwrap();
    let shipped = bench.path("some/shipped");
    let applied = bench.plain(&["patch", "apply", &earlier, &patch, "--out", &shipped]);
    assert!(applied.success, "{}", applied.errors);
    assert!(fs::read(format!("{shipped}/model.safetensors")).unwrap() == tuned);
    assert!(fs::read(format!("{shipped}/config.json")).unwrap() == config);
    let made = bench.plain(&["inspect", &shipped]).output;
    let steps = ["made           finetune by", "then           sgd by", "updated head"];
    assert!(steps.iter().all(|step| made.contains(step)), "{made}");
    let taken = bench.path("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(format!("{taken}/model.safetensors"), &before).unwrap();
    let refused = bench.plain(&["patch", "apply", &earlier, &patch, "--out", &taken]);
    refused.fails_with(&["already holds another checkpoint"]);
    let wrong = bench.plain(&["patch", "apply", &bench.model, &patch, "--in-place"]);
    wrong.fails_with(&["the patch is for a file", "use the checkpoint"]);

    assert!(bench.plain(&["undo", &bench.model]).success);
    assert!(fs::read(&file).unwrap() == before);
    bench.plain(&["undo", &bench.model]).fails_with(&["expected the undo file", "found none"]);
}

#[test]
fn a_preceding_diagnosis_is_announced() {
    let bench = Bench::with_model();
    let words = ["post-train", &bench.model, "--data", &bench.data, "--batch-size", "8"];
    let method = ["--method", "sgd", "--dry-run"];
    let announcement = "so a diagnosis chooses them first";
    for (layer, expected) in [(&[][..], true), (&["--update", "head"], false)] {
        let out = bench.run(&[&words[..], &method, layer].concat());
        assert!(out.success, "{}", out.errors);
        assert_eq!(out.errors.contains(announcement), expected, "{}", out.errors);
    }
}

#[test]
fn a_dry_run_prints_a_forecast_and_writes_nothing() {
    let bench = Bench::with_model();
    let out = bench.path("out");
    let json = bench.path("dry.json");
    for target in [&["--in-place"][..], &["--out", &out], &[]] {
        let done = tune(&bench, &[target, &["--dry-run", "--json", &json]].concat());
        assert!(done.success, "{}", done.errors);
        assert!(done.output.contains("update head") && done.output.contains("MiB"));
        let report = bench.json("dry.json");
        assert_eq!(report["schema"], "planish/dry-run/1");
        assert!(report["expected"]["seconds"].as_f64().is_some_and(|s| s > 0.0));
        fs::remove_file(&json).unwrap();
    }
    // A dry run rejects an output that the run would reject.
    tune(&bench, &["--out", &bench.model, "--dry-run"]).fails_with(&["cannot write"]);
    let start = ["--data", &bench.data, "--dry-run", "--quiet", "--json", &json];
    for words in [
        &["diagnose", &bench.model][..],
        &["bench", &bench.model, "--methods=pol", "--batch-size=8"],
    ] {
        let done = bench.run(&[words, &start].concat());
        assert!(done.success && done.output.contains("about"), "{} {}", done.output, done.errors);
        assert_eq!(bench.json("dry.json")["schema"], "planish/dry-run/1");
    }
    assert!(!Path::new(&out).exists());
    assert_eq!(fs::read_dir(&bench.model).unwrap().count(), 2);
}

#[test]
fn memory_limits_are_checked_in_advance() {
    let bench = Bench::with_model();
    let enough = tune(&bench, &["--dry-run", "--memory", "2GiB"]);
    assert!(enough.success, "{}", enough.errors);
    let start = ["post-train", &bench.model, "--data", &bench.data, "--dry-run", "--memory=2MiB"];
    let scarce = bench.run(&[&start[..], &SHORT].concat());
    scarce.fails_with(&["--memory", "the limit is 2 MiB", "or raise the limit"]);
    let start = ["diagnose", &bench.model, "--data", &bench.data, "--quiet", "--memory=2MiB"];
    bench.run(&start).fails_with(&["--memory", "the limit is 2 MiB", "--samples"]);
}

#[test]
fn an_error_after_writing_names_the_written_file() {
    let bench = Bench::with_model();
    let folder = bench.path("images");
    for (split, side) in [("val", 14), ("test", 14)] {
        for (i, class) in ["a", "b", "c", "d"].iter().enumerate() {
            let target = Path::new(&folder).join(split).join(class);
            fs::create_dir_all(&target).unwrap();
            let pixels = vec![60 * i as u8; side * side];
            let (path, side) = (target.join("0.png"), side as u32);
            image::save_buffer(path, &pixels, side, side, image::ColorType::L8).unwrap();
        }
    }
    let bad = Path::new(&folder).join("test/c/0.png");
    fs::write(&bad, &fs::read(&bad).unwrap()[..40]).unwrap();
    let json = bench.path("run.json");
    let words = ["--train-data", &bench.data, "--data", &folder, "--in-place", "--json", &json];
    let start = ["post-train", &bench.model];
    let done = bench.run(&[&start[..], &SHORT, &words].concat());
    assert_eq!(done.code, Some(1), "{}", done.output);
    for part in ["was written", "planish undo", "0.png"] {
        assert!(done.errors.contains(part), "`{part}` is not in: {}", done.errors);
    }
    let report = bench.json("run.json");
    assert!(report["output"]["undo"].is_string() && report["test"].is_null());
    assert!(bench.plain(&["undo", &bench.model]).success);
}

#[test]
fn selftest_passes_on_the_embedded_and_on_a_given_model() {
    let bench = Bench::with_model();
    let given = [&bench.model[..], "--data", &bench.data, "--samples", "3"];
    for words in [&[][..], &given] {
        let json = bench.path("selftest.json");
        let done = bench.run(&[&["selftest", "--json", &json], words].concat());
        assert!(done.success, "{} {}", done.output, done.errors);
        let report = bench.json("selftest.json");
        assert_eq!(
            (&report["passed"], report["checks"].as_array().unwrap().len()),
            (&true.into(), 8)
        );
    }
    let refused = bench.run(&["selftest", "--samples", "99999999999"]);
    refused.is_refused_with(&["--samples", "1 to 1024"]);
}
