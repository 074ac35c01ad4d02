//! A process that is interrupted clears away what it has begun.
#![cfg(unix)]

#[allow(dead_code, reason = "this test needs only some of it")]
mod common;

use common::Bench;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_interrupted_tuning_leaves_the_folder_as_it_was_and_says_so() {
    let bench = Bench::with_model();
    let file = format!("{}/model.safetensors", bench.model);
    let (before, folder) = (fs::read(&file).unwrap(), names(&bench.model));
    let words = ["post-train", &bench.model, "--data", &bench.data, "--method", "sgd"];
    let layer = ["--update", "head", "--batch-size", "8", "--in-place", "--threads", "1"];
    for signal in ["-INT", "-TERM"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
        command.args(words).args(layer).args(["--epochs", "1000000", "--quiet"]);
        let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let clock = Instant::now();
        while names(&bench.model) == folder {
            assert!(clock.elapsed() < Duration::from_secs(60), "the checkpoint is never locked");
            std::thread::sleep(Duration::from_millis(20));
        }
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(130));
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(told.contains("interrupted"), "{told}");
        assert_eq!(names(&bench.model), folder);
        assert!(fs::read(&file).unwrap() == before);
    }
    let next = bench.run(&[&words[..], &layer[..5], &["--epochs", "1", "--force"]].concat());
    assert!(next.success, "{}", next.errors);
}
