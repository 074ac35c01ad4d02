//! `--precision bf16` end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;

#[test]
fn training_evaluation_and_comparison_in_bf16() {
    let bench = Bench::new();
    let (new, better) = (bench.path("new"), bench.path("better"));
    let common = ["--data", &bench.data, "--quiet"];
    let run = |words: &[&str], json: &str| {
        let json = bench.path(json);
        let out = bench.run(&[words, &common, &["--json", &json]].concat());
        assert!(out.success, "{}", out.errors);
    };
    let bf16 = ["--precision", "bf16"];
    let arch = ["finetune", "--arch", "vit_nano_patch7_14", "--epochs", "2", "--batch", "8"];
    run(&[&arch[..], &["--val-fraction", "0.25", "--out", &new], &bf16].concat(), "new.json");
    assert_eq!(bench.json("new.json")["settings"]["precision"], "bf16");

    // 38 products, each with two operands rounded by at most 2⁻⁸; squared errors add up. Logits
    // are of size one.
    let bound = 76f64.sqrt() * 2f64.powi(-8);
    run(&["eval", &new], "f32.json");
    run(&[&["eval", new.as_str()][..], &bf16].concat(), "bf16.json");
    let nll = ["f32.json", "bf16.json"].map(|json| {
        let report = bench.json(json);
        assert_eq!(report["precision"], json.trim_end_matches(".json"));
        report["figures"]["nll"].as_f64().unwrap()
    });
    assert!((nll[0] - nll[1]).abs() < bound && nll[0] != nll[1], "{nll:?}");

    let small = ["--epochs", "1", "--batch-size", "8", "--perturb-batch", "16", "--write-worse"];
    let layers = ["--perturb", "head", "--update", "block.5", "--remeasure", "0"];
    let words = [&["post-train", new.as_str(), "--out", &better][..], &layers, &small, &bf16];
    run(&words.concat(), "pol.json");
    let report = bench.json("pol.json");
    assert_eq!(report["precision"], "bf16");
    // The figures of the input match those of eval in f32.
    let before = report["test"]["before"]["nll"].as_f64().unwrap();
    assert!((before - nll[0]).abs() < 1e-6, "{before} {nll:?}");
    let inspected = bench.run(&["inspect", &better, "--json", &bench.path("inspect.json")]);
    assert!(inspected.success, "{}", inspected.errors);
    assert_eq!(bench.json("inspect.json")["provenance"]["settings"]["precision"], "bf16");

    let methods = ["bench", new.as_str(), "--methods", "pof", "--seeds", "1", "--epochs", "1"];
    run(&[&methods[..], &small[2..6], &["--remeasure", "0"], &bf16].concat(), "bench.json");
    let settings = bench.json("bench.json")["settings"].clone();
    assert_eq!(settings["train"]["precision"], "bf16", "{settings}");
}
