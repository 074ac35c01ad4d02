//! Methods from the command line: Friendly-SAM and SL-SAM in post-train, bench, study and search; late
//! phases of SAM in finetune; steps without a minimum.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use serde_json::{Value, json};
use std::fs;

const SMALL: [&str; 4] = ["--epochs", "1", "--batch-size", "8"];

fn run(bench: &Bench, words: &[&str]) -> Value {
    let json = bench.path("run.json");
    let done = bench.run(&[words, &["--data", &bench.data, "--json", &json, "--quiet"]].concat());
    assert!(done.success, "{}", done.errors);
    bench.json("run.json")
}

#[test]
fn variants_of_sam_train_and_report_their_options() {
    let bench = Bench::with_model();
    let out = bench.path("tuned");
    let post_train = |rest: &[&str]| {
        let words = ["post-train", &bench.model, "--out", &out, "--write-worse"];
        run(&bench, &[&words[..], &SMALL, rest].concat())
    };
    let report = post_train(&["--method", "friendly-sam", "--update", "norm", "--rho", "0.1"]);
    let sam = &report["method"]["sam"];
    assert_eq!((&sam["rho"], &sam["friendly_sigma"]), (&json!(0.1), &json!(1.0)));
    assert_eq!(sam["friendly_lambda"], 0.9);
    let length = report["epochs"][0]["perturbation_length"].as_f64().unwrap();
    assert!((length - 0.1).abs() < 1e-6, "{length}");

    let report = post_train(&["--method", "sl-sam", "--active-share", "0.3"]);
    let method = &report["method"];
    assert_eq!(
        (&method["sam"]["active_share"], &method["sam"]["rho"]),
        (&json!(0.3), &json!(0.01))
    );
    assert_eq!((&method["perturb"], &method["update"]), (&json!("*"), &json!("*")));
    let active = report["epochs"][0]["active"].as_f64().unwrap();
    assert!(active > 0.05 && active < 0.8, "{active}");

    let words = ["post-train", &bench.model, "--data", &bench.data, "--dry-run", "--method"];
    bench
        .run(&[&words[..], &["sam", "--active-share", "0.5"]].concat())
        .is_refused_with(&["--active-share only applies to the method sl-sam"]);
    bench
        .run(&[&words[..], &["sl-sam", "--active-share", "1.5"]].concat())
        .is_refused_with(&["--active-share", "at most 1"]);
}

#[test]
fn bench_and_study_take_all_methods() {
    let bench = Bench::with_model();
    let words =
        ["bench", &bench.model, "--methods", "friendly-sam,sl-sam", "--update", "norm,head"];
    let report = run(&bench, &[&words[..], &["--seeds", "1"], &SMALL].concat());
    let rows: Vec<&Value> = report["rows"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(
        rows,
        ["untouched", "SGD → norm,head", "Friendly-SAM → norm,head", "SL-SAM → norm,head"]
    );
    assert_eq!(report["rows"][3]["sam"]["active_share"], 0.5);

    let study = r#"
[[model]]
name = "small"
checkpoint = "model"
[[data]]
name = "digits"
source = "data"
[[bench]]
name = "variants"
methods = ["friendly-sam", "sl-sam", "pol"]
update = ["norm"]
pairs = [["head", "norm"]]
grid = { epochs = 1, batch-size = 8, perturb-batch = 8, friendly-sigma = [0.5, 1], no-minimum = "cap" }
"#;
    fs::write(bench.path("s.toml"), study).unwrap();
    let done = bench.run(&["study", "s.toml"]);
    assert!(done.success, "{}", done.errors);
    let text = fs::read_to_string(bench.path("s/runs.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |method: &str| rows.iter().filter(|row| row["method"] == method).collect::<Vec<_>>();
    let friendly = of("friendly-sam");
    let sigmas: Vec<&Value> = friendly.iter().map(|row| &row["friendly_sigma"]).collect();
    assert_eq!(sigmas, [&json!(0.5), &json!(1.0)]);
    // σ is not an option of SL-SAM and PoL, so they run once; all share one control.
    assert_eq!((of("sl-sam").len(), of("pol").len(), of("sgd").len()), (1, 1, 1));
    assert_eq!(of("sl-sam")[0]["active_share"], 0.5);
    let pol = of("pol")[0];
    assert!(pol["capped"].is_number() && pol["rejected"].is_null(), "{pol}");
    assert_eq!(pol["no_minimum"], "cap");
}

#[test]
fn a_search_takes_options_of_the_methods_that_it_tries() {
    let bench = Bench::with_model();
    let out = bench.path("tuned");
    let words = ["post-train", &bench.model, "--data", &bench.data, "--out", &out, "--search"];
    bench
        .run(&[&words[..], &["1", "--asam-eta", "0.1"]].concat())
        .is_refused_with(&["--asam-eta only applies to the method asam"]);
    // The first recipe is always tried, the others only in time.
    let json = bench.path("search.json");
    let rest = ["0.0001", "--friendly-sigma", "0.5", "--batch-size", "8", "--json", &json];
    let done = bench.run(&[&words[..], &rest].concat());
    assert!(done.success || done.errors.contains("recipes"), "{}", done.errors);
    let search = &bench.json("search.json")["search"];
    // The grid ends with two learning rates each of SAM, Friendly-SAM and SL-SAM.
    let recipes = search["recipes"].as_u64().unwrap();
    assert_eq!(recipes, 108 + 20 + 4 + 6, "{search}");
}

#[test]
fn the_last_epochs_of_fine_tuning_are_those_of_sam() {
    let bench = Bench::new();
    let (out, csv) = (bench.path("tuned"), bench.path("epochs.csv"));
    let finetune = |rest: &[&str]| {
        let words = ["finetune", "--arch", "vit_nano_patch7_14", "--out", &out, "--force"];
        let size = ["--epochs", "3", "--batch-size", "8", "--keep", "last", "--csv", &csv];
        run(&bench, &[&words[..], &size, rest].concat())
    };
    let plain = finetune(&[]);
    let late = finetune(&["--sam-last", "2", "--rho", "0.2"]);
    let loss =
        |report: &Value, epoch: usize| report["epochs"][epoch]["training_loss"].as_f64().unwrap();
    assert_eq!(loss(&plain, 0), loss(&late, 0));
    assert!(loss(&late, 1) > loss(&plain, 1), "{} {}", loss(&late, 1), loss(&plain, 1));
    let settings = &late["settings"];
    assert_eq!((&settings["sam_last"], &settings["rho"]), (&json!(2), &json!(0.2)));
    assert_eq!((&settings["sam_variant"], &settings["nesterov"]), (&json!("sam"), &json!(true)));
    assert_eq!(
        (&plain["settings"]["sam_last"], &plain["settings"]["rho"]),
        (&json!(0), &Value::Null)
    );
    let friendly = finetune(&["--sam-last", "3", "--sam-variant", "friendly-sam"]);
    assert_eq!(friendly["settings"]["friendly_lambda"], 0.9);
    assert_ne!(loss(&friendly, 0), loss(&plain, 0));

    let words = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &bench.data, "--out", "new"];
    let refused = |rest: &[&str], parts: &[&str]| {
        bench.run(&[&words[..], rest].concat()).is_refused_with(parts);
    };
    refused(&["--sam-last", "11"], &["--sam-last", "at most --epochs, 10"]);
    refused(&["--rho", "0.1"], &["--rho only applies to epochs with SAM (--sam-last)"]);
    refused(&["--sam-last", "1", "--friendly-sigma", "1"], &["--friendly-sigma", "friendly-sam"]);
}
