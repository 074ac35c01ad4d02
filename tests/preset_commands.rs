//! Published settings as presets: in post-train, bench and study.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use planish::post_train::Preview;
use planish::prelude::*;
use planish::train::{MethodArgs, Preset, PresetOptions};
use serde_json::{Value, json};
use std::fs;

/// Options that make a run with a preset small.
const SMALL: [&str; 6] = ["--epochs", "1", "--batch-size", "8", "--perturb-batch", "16"];

fn run(bench: &Bench, command: &str, rest: &[&str]) -> Value {
    let json = bench.path("run.json");
    let words = [command, &bench.model, "--data", &bench.data, "--json", &json, "--quiet"];
    let done = bench.run(&[&words[..], rest].concat());
    assert!(done.success, "{}", done.errors);
    bench.json("run.json")
}

#[test]
fn pof2022_sets_all_options_that_are_not_given() {
    let bench = Bench::with_model();
    let out = bench.path("tuned");
    // One epoch with these settings may not improve a model this small.
    let rest = ["--preset", "pof2022", "--out", &out, "--write-worse"];
    let report = run(&bench, "post-train", &[&rest[..], &SMALL].concat());
    assert_eq!(report["preset"], "pof2022");
    let method = &report["method"];
    assert_eq!((&method["name"], &method["perturb"]), (&json!("pof"), &json!("head")));
    assert_eq!((&method["step"], &method["no_minimum"]), (&json!("grid"), &json!("reject")));
    assert_eq!((&method["perturb_replacement"], &method["gamma"]), (&json!(true), &json!(2.0)));
    let settings = &report["settings"];
    for (name, value) in [
        ("lr", json!(1.6e-4)),
        ("schedule", json!("constant")),
        ("nesterov", json!(true)),
        ("momentum", json!(0.9)),
        ("weight_decay", json!(5e-4)),
        // Given on the command line.
        ("epochs", json!(1)),
        ("batch_size", json!(8)),
    ] {
        assert_eq!(settings[name], value, "{name}");
    }
    assert_eq!(method["perturb_batch"], 16);
    assert_eq!(report["augmentation"]["augment"], "flip,shift=4");
    let epoch = &report["epochs"][0];
    assert!(epoch["rejected"].is_number() && epoch["capped"].is_null(), "{epoch}");

    // Without these options, B and B′ have 256 images, which this data set does not have.
    let words = ["post-train", &bench.model, "--data", &bench.data, "--preset", "pof2022"];
    bench.run(&[&words[..], &["--dry-run", "--quiet"]].concat()).fails_with(&["found 256"]);
    // Another method takes the training options alone.
    let rest = ["--preset", "pof2022", "--method", "sgd", "--update", "norm", "--out", &out];
    let report = run(&bench, "post-train", &[&rest[..], &SMALL[..4], &["--write-worse"]].concat());
    assert_eq!(
        (&report["method"]["name"], &report["settings"]["lr"]),
        (&json!("sgd"), &json!(1.6e-4))
    );
    assert_eq!(report["method"]["step"], Value::Null);
    let words = [&words[..], &["--search", "1", "--out", &out]].concat();
    let done = bench.run(&words);
    assert_eq!(done.code, Some(2), "{}", done.errors);
    assert!(done.errors.contains("cannot be used with '--search <MINUTES>'"), "{}", done.errors);
}

#[test]
fn the_preset_of_pol_names_its_layers() {
    let bench = Bench::with_model();
    let out = bench.path("tuned");
    let rest = ["--preset", "pol", "--out", &out, "--write-worse"];
    let report = run(&bench, "post-train", &[&rest[..], &SMALL].concat());
    let method = &report["method"];
    assert_eq!((&method["perturb"], &method["update"]), (&json!("head"), &json!("block.5")));
    assert_eq!(
        (&method["name"], &method["chosen_by"]),
        (&json!("pol"), &json!("by the preset pol"))
    );
    let rest = [&rest[..], &["--update", "norm", "--gamma", "1"]].concat();
    let method = &run(&bench, "post-train", &[&rest[..], &SMALL].concat())["method"];
    assert_eq!((&method["update"], &method["gamma"]), (&json!("norm"), &json!(1.0)));

    let report = run(&bench, "bench", &[&["--preset", "pol", "--seeds", "1"][..], &SMALL].concat());
    assert_eq!(report["settings"]["preset"], "pol");
    assert_eq!(report["settings"]["train"]["lr"], 1.6e-4);
    assert_eq!(report["settings"]["methods"]["pol"]["perturb_batch"], 16);
    assert_eq!(report["plan"], "from the preset pol");
    let rows: Vec<&Value> = report["rows"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(rows, ["untouched", "SGD → block.5", "PoL head → block.5"]);
    assert!(report["rows"][2]["rejected"].is_object() && report["rows"][2]["capped"].is_null());
}

#[test]
fn a_preset_is_the_same_from_rust() {
    let bench = Bench::with_model();
    let out = bench.path("tuned");
    let report = run(
        &bench,
        "post-train",
        &[&["--preset", "pol", "--nesterov", "off", "--out", &out, "--write-worse"][..], &SMALL]
            .concat(),
    );
    let options = PostTrainOptions {
        preset: PresetOptions { preset: Some(Preset::Pol) },
        of_method: MethodArgs { perturb_batch: Some(16), ..MethodArgs::default() },
        train: TrainArgs {
            epochs: Some(1),
            batch_size: Some(8),
            // The default, which the preset must not replace.
            nesterov: Some(false),
            ..TrainArgs::default()
        },
        ..PostTrainOptions::default()
    };
    let checkpoint = Checkpoint::open(bench.model.as_ref(), &Load::default()).unwrap();
    let data = DataOptions { data: vec![bench.data.clone()], ..DataOptions::default() };
    let (place, context) = (Place::Nowhere, Context::silent(0));
    let session =
        PostTrainSession::prepare(&options, checkpoint, &data, &place, Preview::None, &context)
            .unwrap();
    assert_eq!(serde_json::to_value(&session.settings).unwrap(), report["settings"]);
    assert_eq!(serde_json::to_value(session.method().unwrap()).unwrap(), report["method"]);
    // Reports leave it out if it is off.
    assert_eq!(report["settings"]["nesterov"], Value::Null);
    assert_eq!(serde_json::to_value(session.augmentation()).unwrap(), report["augmentation"]);
}

#[test]
fn a_bench_says_which_methods_a_preset_is_not_about() {
    let bench = Bench::with_model();
    let words = ["bench", &bench.model, "--data", &bench.data, "--preset", "pol", "--dry-run"];
    let note = "note: the preset pol has the published settings of PoL; its training options also \
                apply to SAM";
    let small = ["--batch-size", "8", "--perturb-batch", "16"];
    let with_sam = bench.run(&[&words[..], &small, &["--methods", "pol,sam"]].concat());
    assert!(with_sam.success && with_sam.errors.contains(note), "{}", with_sam.errors);
    let alone = bench.run(&[&words[..], &small].concat());
    assert!(alone.success && !alone.errors.contains("the preset pol"), "{}", alone.errors);
}

#[test]
fn a_study_takes_presets() {
    let bench = Bench::with_model();
    let study = r#"
[[model]]
name = "small"
checkpoint = "model"
[[data]]
name = "digits"
source = "data"
[[bench]]
name = "published"
methods = ["pof", "sgd"]
update = ["norm"]
grid = { preset = "pof2022", epochs = 1, batch-size = 8, perturb-batch = 16, lr = [0.01, 0.02] }
"#;
    fs::write(bench.path("s.toml"), study).unwrap();
    let done = bench.run(&["study", "s.toml"]);
    assert!(done.success, "{}", done.errors);
    let text = fs::read_to_string(bench.path("s/runs.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |method: &str| rows.iter().filter(|row| row["method"] == method).collect::<Vec<_>>();
    assert_eq!(of("pof").len(), 2);
    for row in &rows {
        assert_eq!((&row["schedule"], &row["nesterov"]), (&json!("constant"), &json!(true)));
        assert!(row["lr"] == 0.01 || row["lr"] == 0.02, "{row}");
    }
    for row in of("pof") {
        assert_eq!((&row["step"], &row["perturb_batch"]), (&json!("grid"), &json!(16)));
        assert_eq!(row["perturb_replacement"], true);
    }
    // A name that is no preset.
    fs::write(bench.path("s.toml"), study.replace("pof2022", "pof2023")).unwrap();
    bench.run(&["study", "s.toml"]).fails_with(&["s.toml, line", "preset", "pof2023"]);
}
