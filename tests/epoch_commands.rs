//! `--csv`, `--tensorboard`, `completions` and `man` end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use std::fs;

#[test]
fn each_epoch_gives_a_csv_row_and_an_event() {
    let bench = Bench::new();
    let (csv, events, json) = (bench.path("e.csv"), bench.path("tb"), bench.path("f.json"));
    let (data, out) = (bench.data.clone(), bench.path("out"));
    let words = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &data, "--epochs", "2"];
    let rest = ["--batch", "8", "--out", &out, "--csv", &csv, "--tensorboard", &events];
    let made = bench.run(&[&words[..], &rest, &["--json", &json]].concat());
    assert!(made.success, "{}", made.errors);
    let text = fs::read_to_string(&csv).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 3, "{text}");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    let column = rows[0].iter().position(|name| *name == "training_loss").unwrap();
    let report = bench.json("f.json");
    let mut expected = Vec::new();
    for (row, epoch) in rows[1..].iter().zip(report["epochs"].as_array().unwrap()) {
        let loss = epoch["training_loss"].as_f64().unwrap();
        assert!((row[column].parse::<f64>().unwrap() - loss).abs() < 1e-12);
        expected.push(loss as f32);
    }
    let file = fs::read_dir(&events).unwrap().next().unwrap().unwrap();
    assert!(file.file_name().to_str().unwrap().starts_with("events.out.tfevents."));
    let bytes = fs::read(file.path()).unwrap();
    // The file is a sequence of records; the loss follows its tag as a float.
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let message = &bytes[at + 12..at + 12 + length];
        let tag = b"training_loss\x15";
        if let Some(i) = message.windows(tag.len()).position(|w| w == tag) {
            let value = message[i + tag.len()..][..4].try_into().unwrap();
            found.push(f32::from_le_bytes(value));
        }
        at += length + 16;
    }
    assert_eq!((at, found), (bytes.len(), expected));
}

#[test]
fn unwritable_files_are_reported_before_training() {
    let bench = Bench::new();
    let (data, out) = (bench.data.clone(), bench.path("out"));
    let inside = format!("{data}/t10k-images-idx3-ubyte/x");
    let words = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &data, "--batch-size=8"];
    for flag in ["--csv", "--tensorboard"] {
        let run = bench.run(&[&words[..], &["--quiet", "--out", &out, flag, &inside]].concat());
        assert!(!run.success && run.errors.contains("t10k-images"), "{}", run.errors);
        assert!(!fs::exists(&out).unwrap());
    }
}

#[test]
fn a_write_error_leaves_checkpoint_and_report() {
    let bench = Bench::with_model();
    let (out, json, data) = (bench.path("out"), bench.path("r.json"), bench.data.clone());
    let head = ["post-train", &bench.model, "--method", "sgd", "--update", "head", "--write-worse"];
    let new = ["finetune", "--arch", "vit_nano_patch7_14"];
    for words in [&head[..], &new] {
        let same = ["--data", &data, "--epochs", "1", "--batch-size", "8", "--out", &out];
        let run = bench.run(&[words, &same, &["--csv", "/dev/full", "--json", &json]].concat());
        assert_eq!(run.code, Some(1), "{}", run.errors);
        let error = run.errors.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains("out") && error.ends_with(" was written"), "{}", run.errors);
        assert!(run.errors.contains("because: cannot write /dev/full"), "{}", run.errors);
        assert!(run.output.contains("NLL"), "{}", run.output);
        for file in [&format!("{out}/model.safetensors"), &json] {
            fs::remove_file(file).unwrap();
        }
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_dry_run_writes_no_epoch_files() {
    let bench = Bench::with_model();
    let (csv, events, data) = (bench.path("e.csv"), bench.path("tb"), bench.data.clone());
    let words = ["post-train", &bench.model, "--method", "sgd", "--update", "head", "--dry-run"];
    let rest = ["--data", &data, "--batch-size", "8", "--csv", &csv, "--tensorboard", &events];
    let run = bench.run(&[&words[..], &rest].concat());
    assert!(run.success, "{}", run.errors);
    assert!(!fs::exists(&csv).unwrap() && !fs::exists(&events).unwrap());
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let bench = Bench::new();
    let commands = ["report", "compare", "diagnose", "post-train", "completions"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let out = bench.plain(&["completions", shell]);
        assert!(out.success, "{}", out.errors);
        assert!(commands.iter().all(|command| out.output.contains(command)), "{shell}");
    }
    let folder = bench.path("man");
    let out = bench.plain(&["man", "--out", &folder]);
    assert!(out.success, "{}", out.errors);
    for command in commands {
        let page = fs::read_to_string(format!("{folder}/planish-{command}.1")).unwrap();
        assert!(page.contains(".SH OPTIONS") || page.contains(".SH SYNOPSIS"), "{command}");
    }
    assert!(fs::read_to_string(format!("{folder}/planish.1")).unwrap().contains("diagnose"));
}
