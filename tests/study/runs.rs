//! Training cells of `planish study` end to end.

use crate::common::{Bench, Output};
use serde_json::Value;
use std::fs;

const STUDY: &str = r#"
evaluate = false
[[model]]
name = "one"
checkpoint = "model"
[[data]]
name = "grey"
source = "data"
[[bench]]
name = "pairs"
methods = ["pol", "pof"]
pairs = [["head", "norm"], ["norm", "norm"]]
seeds = [0, 3]
diagnose = true
grid = { lr = [0.1, 0.02], gamma = 1.5, epochs = 2, batch-size = 8, perturb-batch = 16 }
"#;

fn study(bench: &Bench, rest: &[&str]) -> Output {
    let out = bench.run(&[&["study", "s.toml"], rest].concat());
    assert!(out.success, "{}", out.errors);
    out
}

fn rows(bench: &Bench, name: &str) -> Vec<Value> {
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().shift_remove("seconds").unwrap();
        row
    };
    fs::read_to_string(bench.path(name)).unwrap().lines().map(row).collect()
}

#[test]
fn runs_of_one_group_have_their_own_label_smoothing() {
    let bench = Bench::with_model();
    let grid = "grid = { label-smoothing = [0, 0.3], epochs = 1, batch-size = 8 }";
    let text: Vec<&str> =
        STUDY.lines().map(|line| if line.starts_with("grid") { grid } else { line }).collect();
    let text = text.join("\n").replace("[\"pol\", \"pof\"]", "[\"pol\"]");
    fs::write(bench.path("s.toml"), text).unwrap();
    study(&bench, &[]);
    let runs = rows(&bench, "s/runs.jsonl");
    let mut pairs = 0;
    for plain in runs.iter().filter(|row| row["label_smoothing"] == 0.0) {
        let same = |row: &&Value| {
            row["label_smoothing"] == 0.3
                && ["method", "perturb", "update", "train_seed"].iter().all(|k| row[k] == plain[k])
        };
        let smoothed = runs.iter().find(same).unwrap();
        let loss = |row: &Value| row["training_loss"].as_f64().unwrap();
        assert!((loss(plain) - loss(smoothed)).abs() > 1e-3, "{plain} {smoothed}");
        pairs += 1;
    }
    // Two pairs and their control, at two seeds.
    assert_eq!(pairs, 6);
}

#[test]
fn a_default_batch_is_cut_to_the_training_images() {
    let bench = Bench::with_model();
    let text: Vec<&str> = STUDY.lines().filter(|line| !line.starts_with("grid")).collect();
    let text = text.join("\n").replace("[\"pol\", \"pof\"]", "[\"pol\"]").replace("[0, 3]", "[0]");
    let grid = |options: &str| format!("{text}\ngrid = {{ epochs = 1{options} }}\n");
    fs::write(bench.path("s.toml"), grid("")).unwrap();
    let out = study(&bench, &[]);
    let note = "fewer than the default `batch_size` of 128".replace("`batch_size`", "--batch-size");
    assert!(out.errors.contains(&note), "{}", out.errors);
    for row in rows(&bench, "s/runs.jsonl") {
        assert_eq!(row["batch_size"], row["train_images"]);
    }
    // A size that the file states is kept.
    fs::write(bench.path("s.toml"), grid(", batch-size = 128")).unwrap();
    let kept = bench.run(&["study", "s.toml"]);
    assert!(!kept.success && kept.errors.contains("found 128"), "{}", kept.errors);
}

#[test]
fn runs_match_post_train_and_can_be_recomputed() {
    let bench = Bench::with_model();
    fs::write(bench.path("s.toml"), STUDY).unwrap();
    let result = study(&bench, &[]);
    // Two controls (norm; all but the head), two pairs and PoF, at two rates and two seeds.
    assert!(result.errors.contains("21 cells: 1 diagnoses, 20 training runs"), "{}", result.errors);
    // The page shows the study's tables.
    let html = bench.path("r.html");
    let shown = bench.plain(&["report", "s/layers.jsonl", "s/runs.jsonl", "--html", &html]);
    assert!(shown.success, "{}", shown.errors);
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("<h3>one on grey</h3>") && page.contains("ΔL by layer, one on grey"));
    let runs = rows(&bench, "s/runs.jsonl");
    assert_eq!(runs.len(), 20);
    let find = |method: &str, perturb: Value, lr: f64, seed: u64| {
        let same = |r: &&Value| {
            r["method"] == method
                && r["perturb"] == perturb
                && r["lr"] == lr
                && r["train_seed"] == seed
                && (method != "sgd" || r["update"] == "norm")
        };
        runs.iter().find(same).unwrap().clone()
    };
    let pol = find("pol", "head".into(), 0.1, 3);
    let control = find("sgd", Value::Null, 0.1, 3);

    // The same run by `post-train`, whose figures are those of the written file.
    let (out, json) = (bench.path("tuned"), bench.path("t.json"));
    let train = |rest: &[&str]| {
        let words = ["post-train", "model", "--data", "data", "--out", &out, "--json", &json];
        let same = ["--lr", "0.1", "--epochs", "2", "--batch-size", "8", "--train-seed", "3"];
        let more = ["--update", "norm", "--remeasure", "0", "--write-worse", "--quiet"];
        let done = bench.run(&[&words[..], &same, &more, rest].concat());
        assert!(done.success, "{}", done.errors);
        bench.json("t.json")
    };
    let line = ["--method", "pol", "--perturb", "head", "--gamma", "1.5", "--perturb-batch", "16"];
    let reports = [(&pol, train(&line)), (&control, train(&["--method", "sgd"]))];
    for (row, report) in &reports {
        for (split, part) in [("val", &report["validation"]), ("test", &report["test"])] {
            for when in ["before", "after"] {
                for figure in ["nll", "calibrated_nll", "top1", "ece", "temperature", "nll_stderr"]
                {
                    let name = format!("{split}_{when}_{figure}");
                    assert_eq!(row[&name], part[when][figure], "{name}");
                }
            }
            assert_eq!(row[format!("{split}_nll_gain")], part["nll_gain"]["mean"]);
            let stderr = format!("{split}_calibrated_nll_gain_stderr");
            assert_eq!(row[stderr], part["calibrated_nll_gain"]["stderr"]);
        }
        assert_eq!(row["selected_epoch"], report["selection"]["selected_epoch"]);
        assert_eq!(row["test_digest"], report["test"]["data"]["digest"]);
    }
    assert_eq!(pol["control"], control["cell"]);
    let gain = |row: &Value, name: &str| row[name].as_f64().unwrap();
    let expected_gain = gain(&control, "test_after_nll") - gain(&pol, "test_after_nll");
    assert_eq!(gain(&pol, "test_nll_gain_over_control"), expected_gain);
    assert_eq!(gain(&pol, "control_test_after_nll"), gain(&control, "test_after_nll"));

    // The diagnosis equals that of `diagnose`.
    let done = bench.run(&["diagnose", "model", "--data", "data", "--json", &json]);
    assert!(done.success, "{}", done.errors);
    let layers = bench.json("t.json")["layers"].as_array().unwrap().clone();
    let layer = |name: &str| layers.iter().find(|l| l["name"] == name).unwrap().clone();
    assert_eq!(pol["kappa_cross_fit_p"], layer("head")["kappa"]["cross_fit"]);
    assert_eq!(pol["kappa_in_sample_u"], layer("norm")["kappa"]["in_sample"]);
    assert_eq!(pol["delta_l_cross_fit_u"], layer("norm")["delta_l_nats"]["cross_fit"]);
    assert_eq!(pol["delta_l_stderr_p"], layer("head")["delta_l_nats"]["stderr"]);
    assert_eq!(rows(&bench, "s/layers.jsonl").len(), layers.len());

    // Recompute a run by its digest, if known and if unknown.
    let digest = pol["cell"].as_str().unwrap();
    let only = |file: &str, rest: &[&str]| -> (Value, String) {
        let out = bench.plain(&[&["study", file, "--only", digest], rest].concat());
        assert!(out.success, "{}", out.errors);
        (serde_json::from_str(&out.output).unwrap(), out.errors)
    };
    let (known, log) = only("s.toml", &[]);
    assert!(log.contains("same results as before"), "{log}");
    let (fresh, _) = only("s.toml", &["--out", "fresh", "--threads", "1"]);
    for (name, value) in pol.as_object().unwrap() {
        let joined = name.contains("control") || name.ends_with("_p") || name.ends_with("_u");
        if !joined || name == "control" {
            assert_eq!((&known[name], &fresh[name]), (value, value), "{name}");
        }
    }
    let none = bench.run(&["study", "s.toml", "--only", "xyz"]);
    none.fails_with(&["--only \"xyz\"", "found 0", "column `cell`"]);
}

#[test]
fn a_killed_training_resumes_and_shards_equal_the_unsharded_study() {
    let bench = Bench::with_model();
    let small = STUDY.replace("[0, 3]", "[1]").replace("epochs = 2", "epochs = 1");
    fs::write(bench.path("s.toml"), small).unwrap();
    study(&bench, &[]);
    let whole = rows(&bench, "s/runs.jsonl");
    assert_eq!(whole.len(), 10);
    let log = fs::read_to_string(bench.path("s/cells.jsonl")).unwrap();
    fs::write(bench.path("s/cells.jsonl"), &log[..log.len() / 2]).unwrap();
    let complete = log[..log.len() / 2].matches('\n').count();
    let result = study(&bench, &[]);
    assert!(result.errors.contains(&format!("{} are missing", 11 - complete)), "{}", result.errors);
    assert_eq!(rows(&bench, "s/runs.jsonl"), whole);
    for i in 1..=3 {
        let (shard, out) = (format!("{i}/3"), format!("p{i}"));
        let words = ["study", "s.toml", "--shard", &shard, "--out", &out, "--threads", "1"];
        assert!(bench.plain(&words).success);
    }
    let result = bench.plain(&["study", "--merge", "all", "p1", "p2", "p3"]);
    assert!(result.success, "{}", result.errors);
    assert_eq!(rows(&bench, "all/runs.jsonl"), whole);
    assert_eq!(rows(&bench, "all/layers.jsonl"), rows(&bench, "s/layers.jsonl"));

    let html = bench.path("r.html");
    let result = bench.plain(&["report", "all/runs.jsonl", "--html", &html]);
    assert!(result.success, "{}", result.errors);
    let page = fs::read_to_string(html).unwrap();
    let tree = roxmltree::Document::parse(page.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
    let charts = tree.descendants().filter(|n| n.has_tag_name("svg")).count();
    assert_eq!(charts, 4);
    assert!(
        page.contains("head → norm at ") && page.contains("10 runs, of which 6 have a control")
    );
}

#[test]
fn all_pairs_are_expanded_and_bad_benches_name_the_line() {
    let bench = Bench::with_model();
    let with = |from: &str, to: &str| {
        assert!(STUDY.contains(from), "{from}");
        fs::write(bench.path("s.toml"), STUDY.replacen(from, to, 1)).unwrap();
        bench.run(&["study", "s.toml", "--dry-run"])
    };
    // Nine layers: 81 pairs and nine controls; PoF and its control; two rates, two seeds; one
    // diagnosis.
    let pairs = "[[\"head\", \"norm\"], [\"norm\", \"norm\"]]";
    let all = with(pairs, "\"all\"");
    assert!(all.output.contains("369 cells: 1 diagnoses, 368 training runs"), "{}", all.output);
    // SAM does not use Γ, so both values of Γ are the same run of SAM.
    let mixed = with("gamma = 1.5", "gamma = [1.5, 2]");
    assert!(mixed.output.contains("32 training runs"), "{}", mixed.output);
    let line = "grid = {";
    for (from, to, parts) in [
        ("\"pof\"", "\"fop\"", &["line 11", "methods", "pol, pof, sam", "\"fop\""][..]),
        (pairs, "\"some\"", &["line 12", "pairs of pol", "\"all\"", "some"]),
        (pairs, "[[\"head\"]]", &["line 12", "pairs of pol", "head"]),
        ("seeds = [0, 3]", "models = [\"two\"]", &["line 13", "models", "one", "\"two\""]),
        (line, "grid = { train-seed = 3,", &["line 15", "grid", "seeds = [0, 1]"]),
        (line, "grid = { rho = 0.1,", &["line 15", "grid", "`rho`", "sam"]),
        (line, "grid = { rate = 0.1,", &["line 15", "grid", "unknown \"rate\""]),
        ("gamma = 1.5", "gamma = -1", &["line 15", "grid", "`gamma`", "above 0"]),
        ("seeds = [0, 3]", "seeds = 3", &["line 13", "sequence"]),
        (pairs, "[[\"head\", \"nose\"]]", &["s.toml, [[bench]] \"pairs\""]),
    ] {
        let result = with(from, to);
        assert_eq!(result.code, Some(1), "{}{}", result.output, result.errors);
        for part in parts {
            assert!(result.errors.contains(part), "{part} is not in {}", result.errors);
        }
    }
}
