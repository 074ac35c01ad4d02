//! Options of `finetune` that keep what was pretrained, and averages, end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, tensors};

/// Fine-tunes the bench's model further, and returns the report.
fn finetuned(bench: &Bench, name: &str, words: &[&str]) -> serde_json::Value {
    let (out, json) = (bench.path(name), bench.path(&format!("{name}.json")));
    let start = ["finetune", "--from", &bench.model, "--data", &bench.data, "--quiet"];
    let outputs = ["--batch-size", "8", "--out", &out, "--json", &json];
    let done = bench.run(&[&start[..], &outputs, words].concat());
    assert!(done.success, "{}", done.errors);
    bench.json(&format!("{name}.json"))
}

/// ‖w − w⁰‖ of the tensors whose names start so.
fn moved(bench: &Bench, name: &str, prefix: &str) -> f64 {
    let of = |folder: &str| tensors(&format!("{folder}/model.safetensors"));
    let (before, after) = (of(&bench.model), of(&bench.path(name)));
    let mut square = 0.0;
    for (tensor, before) in before.iter().filter(|(tensor, _)| tensor.starts_with(prefix)) {
        let pairs = before.f32s().into_iter().zip(after[tensor].f32s());
        square += pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    }
    square.sqrt()
}

#[test]
fn the_head_is_trained_first_on_features() {
    let bench = Bench::with_model();
    let words = ["--reset-head", "--head-first", "3", "--epochs", "1", "--lr", "0.01"];
    let report = finetuned(&bench, "lp-ft", &words);
    let losses: Vec<f64> = report["head_epochs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|epoch| epoch["training_loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), 3);
    assert!(losses[2] < losses[0], "{losses:?}");
    // Training of all layers goes on from the trained head.
    let first = report["epochs"][0]["training_loss"].as_f64().unwrap();
    assert!(first < losses[0], "{first} {losses:?}");
    assert_eq!(report["settings"]["head_first"], 3);

    let alone = ["--freeze-head", "--lora", "2", "--head-first", "1"];
    let all = ["finetune", "--from", &bench.model, "--data", &bench.data, "--out", "x"];
    bench.run(&[&all[..], &alone].concat()).is_refused_with(&["--head-first", "--freeze-head"]);
}

#[test]
fn penalty_and_rates_hold_layers_back() {
    let bench = Bench::with_model();
    let plain = ["--epochs", "2", "--lr", "0.01", "--keep", "last"];
    finetuned(&bench, "plain", &plain);
    finetuned(&bench, "l2-sp", &[&plain[..], &["--l2-sp", "20,0"]].concat());
    finetuned(&bench, "decayed", &[&plain[..], &["--layer-decay", "0.1"]].concat());
    let report = finetuned(&bench, "auto", &[&plain[..], &["--auto-rgn"]].concat());
    assert_eq!(report["settings"]["auto_rgn"], true);
    let of = |name: &str, prefix: &str| moved(&bench, name, prefix);
    // The penalty acts below the head.
    assert!(of("l2-sp", "blocks.") < 0.7 * of("plain", "blocks."));
    assert!(of("l2-sp", "head.") > 0.3 * of("plain", "head."));
    // Twelve layers below the head, the rate is 1e-12 of that of the head.
    assert!(of("decayed", "blocks.0.") < 1e-4 * of("plain", "blocks.0."));
    assert!(of("decayed", "head.") > 0.3 * of("plain", "head."));
    let auto = of("auto", "");
    assert!(auto > 0.0 && auto < of("plain", ""));

    let all = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &bench.data, "--out", "x"];
    bench.run(&[&all[..], &["--l2-sp", "1,1"]].concat()).is_refused_with(&["--l2-sp", "--from"]);
    let tuned = ["finetune", "--from", &bench.model, "--data", &bench.data, "--out", "x"];
    let lora = ["--lora", "2", "--auto-rgn"];
    bench.run(&[&tuned[..], &lora].concat()).is_refused_with(&["--auto-rgn", "--lora"]);
}

#[test]
fn averages_are_what_is_kept() {
    let bench = Bench::with_model();
    // Every epoch starts from the same weights and takes the same steps.
    let plain = ["--lr", "0.01", "--schedule", "constant", "--keep", "last"];
    let with = |name: &str, words: &[&str]| finetuned(&bench, name, &[&plain[..], words].concat());
    with("one", &["--epochs", "1"]);
    with("two", &["--epochs", "2"]);
    with("swa", &["--epochs", "2", "--average", "swa:2"]);
    with("ema", &["--epochs", "2", "--average", "ema:0"]);
    let of = |name: &str| tensors(&format!("{}/model.safetensors", bench.path(name)));
    let (one, two, swa, ema) = (of("one"), of("two"), of("swa"), of("ema"));
    for (name, swa) in &swa {
        let (one, two) = (one[name].f32s(), two[name].f32s());
        for ((swa, a), b) in swa.f32s().iter().zip(&one).zip(&two) {
            // Two roundings to f32.
            assert!((swa - 0.5 * (a + b)).abs() <= 2e-7 * a.abs().max(b.abs()).max(1e-3), "{name}");
        }
        // Without memory, the average is the last step's weights.
        assert!(ema[name].f32s() == two, "{name}");
    }
    // An epoch before the average is never the best.
    let rest = ["--epochs", "3", "--average", "swa:1", "--val-fraction", "0.2", "--lr", "0.5"];
    let best = finetuned(&bench, "best", &[&rest[..], &["--keep", "best"]].concat());
    assert_eq!(best["kept_epoch"], 3);
    let all = ["finetune", "--from", &bench.model, "--data", &bench.data, "--out", "x"];
    bench.run(&[&all[..], &["--average", "swa:11"]].concat()).is_refused_with(&["--average"]);
    assert_eq!(bench.run(&[&all[..], &["--average", "mean"]].concat()).code, Some(2));
}

#[test]
fn averages_and_smoothing_work_in_post_training() {
    let bench = Bench::with_model();
    let run = |name: &str, words: &[&str]| {
        let (out, json) = (bench.path(name), bench.path(&format!("{name}.json")));
        let start = ["post-train", &bench.model, "--data", &bench.data, "--method", "sgd"];
        let fixed =
            ["--update", "norm", "--batch-size", "8", "--epochs", "2", "--write-worse", "--quiet"];
        let outputs = ["--keep", "last", "--out", &out, "--json", &json];
        let done = bench.run(&[&start[..], &fixed, &outputs, words].concat());
        assert!(done.success, "{}", done.errors);
        bench.json(&format!("{name}.json"))
    };
    let plain = run("plain", &[]);
    let smoothed = run("smoothed", &["--label-smoothing", "0.3"]);
    // At the same weights, the smoothed loss is another one; the loss on V is not smoothed.
    let first = |report: &serde_json::Value| report["epochs"][0]["training_loss"].as_f64().unwrap();
    assert!((first(&plain) - first(&smoothed)).abs() > 1e-3);
    let start = |report: &serde_json::Value| report["selection"]["loss_at_start"].clone();
    assert_eq!(start(&plain), start(&smoothed));
    assert_eq!(smoothed["settings"]["label_smoothing"], 0.3);
    let averaged = run("averaged", &["--average", "ema:0.9"]);
    assert_eq!(averaged["settings"]["average"], "ema:0.9");
    assert!(moved(&bench, "averaged", "norm.") < moved(&bench, "plain", "norm."));
    assert_eq!(moved(&bench, "averaged", "head."), 0.0);
}
