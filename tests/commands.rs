//! Commands end to end: their outputs, and their errors for bad input.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, tensors};
use std::fs;

#[test]
fn a_model_is_trained_inspected_evaluated_and_differentiated() {
    let bench = Bench::new();
    let out = bench.run(&[
        "finetune",
        "--arch",
        "vit_nano_patch7_14",
        "--data",
        &bench.data,
        "--epochs",
        "2",
        "--batch",
        "8",
        "--augment",
        "flip,shift=1",
        "--out",
        &bench.path("new"),
        "--json",
        &bench.path("run.json"),
        "--val-fraction",
        "0.25",
    ]);
    assert!(out.success, "{}", out.errors);
    let run = bench.json("run.json");
    assert_eq!(run["schema"], "planish/finetuning/1");
    assert_eq!(run["epochs"].as_array().unwrap().len(), 2);
    assert_eq!((&run["data"][0]["images"], &run["data"][1]["images"]), (&30.into(), &10.into()));

    let new = bench.path("new");
    let inspected = bench.run(&["inspect", &new, "--json", &bench.path("inspect.json")]);
    assert!(inspected.success && inspected.output.contains("block.5"), "{}", inspected.output);
    // The name comes from config.json: timm has no name for a model of this width.
    let named = format!("vit_tiny_patch16_224, named by {new}/config.json");
    assert!(inspected.output.contains(&named), "{}", inspected.output);
    assert!(
        inspected.output.contains("from the tensors: width 64, depth 6"),
        "{}",
        inspected.output
    );
    let inspection = bench.json("inspect.json");
    assert_eq!(inspection["provenance"]["split"]["fraction"], 0.25);
    assert_eq!(inspection["config"]["classes"], 4);

    let dump = bench.path("logits.safetensors");
    let eval = bench.run(&[
        "eval",
        &new,
        "--data",
        &bench.data,
        "--dump",
        &dump,
        "--json",
        &bench.path("eval.json"),
    ]);
    assert!(eval.success, "{}", eval.errors);
    let report = bench.json("eval.json");
    // V is the split held out by finetune, reconstructed from seed and share, and checked by
    // digest.
    let origin = report["temperature_origin"].as_str().unwrap().to_owned();
    assert!(origin.contains("held out by finetune") && origin.contains("10 images"), "{origin}");
    let json = bench.path("val.json");
    let val = bench.run(&["eval", &new, "--data", &bench.data, "--split", "val", "--json", &json]);
    assert!(val.success, "{}", val.errors);
    let val = bench.json("val.json");
    let origin = val["data"]["origin"].as_str().unwrap();
    assert!(origin.starts_with("V, held out by finetune"), "{origin}");
    assert_eq!(val["data"]["images"], 10);
    let dumped = tensors(&dump);
    let labels: Vec<i64> = dumped["labels"].i64s();
    assert_eq!(labels, (0..40).map(|i| i % 4).collect::<Vec<_>>());
    assert_eq!(dumped["logits"].shape, [40, 4]);
    let logits = dumped["logits"].f32s();
    let nll: f64 = logits
        .chunks(4)
        .zip(&labels)
        .map(|(row, &label)| {
            let sum: f64 = row.iter().map(|&z| f64::from(z).exp()).sum();
            sum.ln() - f64::from(row[label as usize])
        })
        .sum::<f64>()
        / 40.0;
    let reported = report["figures"]["nll"].as_f64().unwrap();
    assert!((nll - reported).abs() < 1e-6, "{nll} {reported}");

    let hv = bench.path("hv.safetensors");
    let hvp = bench.run(&[
        "hvp",
        &new,
        "--data",
        &bench.data,
        "--layer",
        "head",
        "--vector",
        "random:3",
        "--dtype",
        "f64",
        "--out",
        &hv,
    ]);
    assert!(hvp.success, "{}", hvp.errors);
    let found = tensors(&hv);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let expected =
        ["gradient/head.bias", "gradient/head.weight", "hvp/head.bias", "hvp/head.weight", "loss"];
    assert_eq!(names, expected);
    assert!((found["loss"].f64s()[0] - nll).abs() < 1e-4, "f64 against f32 arithmetic");
    // ∂L/∂bias = mean of softmax − one-hot: it sums to zero over the classes, and so does H v.
    for name in ["gradient/head.bias", "hvp/head.bias"] {
        assert!(found[name].f64s().iter().sum::<f64>().abs() < 1e-12, "{name}");
    }
}

#[test]
fn bad_input_is_reported_with_a_remedy() {
    let bench = Bench::with_model();
    let (model, data) = (bench.model.as_str(), bench.data.as_str());
    let before = fs::read(format!("{model}/model.safetensors")).unwrap();
    let out = bench.path("out");
    let hv = bench.path("hv.safetensors");
    let below_a_file = format!("{data}/t10k-labels-idx1-ubyte/x.safetensors");
    let cases: Vec<(Vec<&str>, Vec<&str>)> = vec![
        (vec!["inspect", "absent.safetensors"], vec!["absent.safetensors"]),
        (vec!["inspect", data], vec![data, "model.safetensors"]),
        (vec!["eval", model, "--data", "absent"], vec!["absent", "nothing"]),
        (vec!["eval", model, "--data", data, "--split", "x"], vec!["\"x\"", "train and test"]),
        (
            vec!["eval", model, "--data", data, "--dump", &below_a_file],
            vec!["t10k-labels-idx1-ubyte is not a folder", "another path"],
        ),
        (
            vec!["eval", model, "--data", data, "--json", &below_a_file],
            vec!["t10k-labels-idx1-ubyte is not a folder", "another path"],
        ),
        (
            vec!["hvp", model, "--data", data, "--layer", "block.9", "--out", &hv],
            vec!["block.9", "embed"],
        ),
        (
            vec!["hvp", model, "--data", data, "--layer", "head,*", "--out", &hv],
            vec!["\"head\"", "\"*\"", "share weights"],
        ),
        (
            vec!["hvp", model, "--data", data, "--layer", "head", "--out", &below_a_file],
            vec!["t10k-labels-idx1-ubyte is not a folder", "another path"],
        ),
        (
            vec!["finetune", "--arch", "vit_huge_patch7_14", "--data", data, "--out", &out],
            vec!["vit_huge_patch7_14", "nano"],
        ),
        (
            vec!["finetune", "--from", model, "--data", data, "--out", model],
            vec![model, "never overwritten"],
        ),
        (
            vec!["finetune", "--arch", "vit_nano_patch7_14", "--data", data, "--out", model],
            vec!["model.safetensors exists", "--force"],
        ),
        (
            vec!["finetune", "--from", model, "--data", data, "--out", &out, "--batch", "50"],
            vec!["batch size", "50"],
        ),
        (
            vec![
                "finetune",
                "--from",
                model,
                "--data",
                data,
                "--out",
                &out,
                "--train-range",
                "0..99",
            ],
            vec!["--train-range", "40", "0..99"],
        ),
        (
            vec![
                "finetune", "--from", model, "--data", data, "--out", &out, "--lr", "1e30",
                "--batch", "8",
            ],
            vec!["epoch 1", "lower --lr"],
        ),
    ];
    for (words, parts) in cases {
        bench.run(&words).fails_with(&parts);
    }
    let of = ["finetune", "--data", data, "--out", &out];
    let best = ["--from", model, "--val-fraction", "0", "--keep", "best"];
    let parts = ["--keep best: expected validation images", "--keep to last"];
    bench.run(&[&of[..], &best].concat()).is_refused_with(&parts);
    let mean = ["--arch", "vit_nano_patch7_14", "--mean", "0.5"];
    bench.run(&[&of[..], &mean].concat()).is_refused_with(&["both --mean and --std"]);
    let words = ["finetune", "--from", model, "--data", data, "--out", &out, "--val-fraction", "1"];
    let refused = bench.run(&words);
    assert_eq!(refused.code, Some(2));
    assert!(refused.errors.contains("--val-fraction: expected"), "{}", refused.errors);
    assert_eq!(fs::read(format!("{model}/model.safetensors")).unwrap(), before);
    assert!(!std::path::Path::new(&out).exists() && !std::path::Path::new(&hv).exists());
}

#[test]
fn a_label_without_a_class_is_reported() {
    let bench = Bench::with_model();
    let other = bench.idx("other", 5);
    bench
        .run(&["eval", &bench.model, "--data", &other])
        .fails_with(&["image 4", "found 4", "0..4"]);
    // finetune uses the classes of the data, and notes that the head is replaced.
    let out = bench.run(&[
        "finetune",
        "--from",
        &bench.model,
        "--data",
        &other,
        "--epochs",
        "1",
        "--batch",
        "8",
        "--out",
        &bench.path("five"),
    ]);
    assert!(out.success && out.output.contains("replaced by a new one with 5"), "{}", out.errors);
    assert!(bench.run(&["eval", &bench.path("five"), "--data", &other]).success);
}

#[test]
fn missing_items_are_reported_with_the_available_ones() {
    let bench = Bench::with_model();
    let (model, data) = (bench.model.as_str(), bench.data.as_str());
    let splits = ["found train and test", "set --split to train or test", "half of the test split"];
    bench.run(&["eval", model, "--data", data, "--split", "val"]).fails_with(&splits);
    let other = bench.path("eval.json");
    assert!(bench.run(&["eval", model, "--data", data, "--json", &other]).success);
    let out = bench.path("out");
    let plan = ["post-train", model, "--data", data, "--out", &out, "--plan", &other, "--quiet"];
    let plan = [&plan[..], &["--batch-size", "8"]].concat();
    let parts =
        ["eval.json", "schema planish/diagnosis/1", "found planish/evaluation/1", "diagnose"];
    bench.run(&plan).fails_with(&parts);
    // One image can be evaluated. Commands that need more say how many.
    let one = bench.path("one");
    fs::create_dir(&one).unwrap();
    for (name, head) in [
        ("images-idx3", &[3u8, 0, 0, 0, 1, 0, 0, 0, 14, 0, 0, 0, 14][..]),
        ("labels-idx1", &[1, 0, 0, 0, 1]),
    ] {
        let body = if head[0] == 3 { vec![9; 196] } else { vec![2] };
        let bytes = [&[0, 0, 8], head, &body].concat();
        for split in ["train", "t10k"] {
            fs::write(format!("{one}/{split}-{name}-ubyte"), &bytes).unwrap();
        }
    }
    assert!(bench.run(&["eval", model, "--data", &one]).success);
    let diagnosed = bench.run(&["diagnose", model, "--data", &one]);
    assert_eq!(diagnosed.code, Some(1));
    assert!(diagnosed.errors.contains("at least two test images"), "{}", diagnosed.errors);
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let bench = Bench::with_model();
    let file = format!("{}/model.safetensors", bench.model);
    let mut bytes = fs::read(&file).unwrap();
    let start = {
        let found = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values = found.tensor("blocks.2.norm1.weight").unwrap().data().as_ptr();
        values as usize - bytes.as_ptr() as usize
    };
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let parts = ["model.safetensors", "NaN", "\"blocks.2.norm1.weight\"", "earlier checkpoint"];
    bench.run(&["eval", &bench.model, "--data", &bench.data]).fails_with(&parts);
    let quiet = ["--data", &bench.data, "--quiet"];
    bench.run(&[&["diagnose", &bench.model], &quiet[..]].concat()).fails_with(&parts);
    assert!(bench.run(&["inspect", &bench.model]).success);
}

#[test]
fn a_dash_sends_the_report_to_standard_output_and_the_text_to_standard_error() {
    let bench = Bench::with_model();
    for words in [&["inspect", &bench.model][..], &["eval", &bench.model, "--data", &bench.data]] {
        let file = bench.run(&[words, &["--json", &bench.path("report.json"), "--quiet"]].concat());
        let done = bench.run(&[words, &["--json", "-", "--quiet"]].concat());
        assert!(done.success, "{}", done.errors);
        let report: serde_json::Value = serde_json::from_str(&done.output).unwrap();
        assert_eq!(report["checkpoint"], bench.json("report.json")["checkpoint"]);
        assert_eq!(report["schema"], bench.json("report.json")["schema"]);
        assert_eq!(done.errors.trim(), file.output.trim());
    }
    assert!(!std::path::Path::new(&bench.path("-")).exists());
}

#[test]
fn more_samples_than_images_are_noted() {
    let bench = Bench::with_model();
    let words =
        ["diagnose", &bench.model, "--data", &bench.data, "--layer", "head", "--samples", "999"];
    let done = bench.run(&words);
    assert!(done.success, "{}", done.errors);
    let note = "--samples is 999, but V has only 20 images; all are used";
    let told = done.output + &done.errors;
    assert!(told.contains(note), "{told}");
}
