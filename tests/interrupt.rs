//! An interrupted process removes its unfinished files.
#![cfg(unix)]

#[allow(dead_code, reason = "this test needs only some of it")]
mod common;

use common::{Bench, Output};
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
fn an_interrupted_tuning_leaves_the_folder_unchanged() {
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
            assert!(clock.elapsed() < Duration::from_secs(60), "the checkpoint was not locked");
            std::thread::sleep(Duration::from_millis(20));
        }
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(130));
        let message = String::from_utf8(out.stderr).unwrap();
        assert!(message.contains("interrupted"), "{message}");
        assert_eq!(names(&bench.model), folder);
        assert!(fs::read(&file).unwrap() == before);
    }
    let next = bench.run(&[&words[..], &layer[..5], &["--epochs", "1", "--write-worse"]].concat());
    assert!(next.success, "{}", next.errors);
}

/// An IDX folder with 60,000 training images, so that the frozen layers take some time.
fn large_data(bench: &Bench) -> String {
    let path = bench.idx("many", 4);
    let n = 60_000u32;
    let mut images = [&[0, 0, 8, 3], &n.to_be_bytes()[..], &[0, 0, 0, 14, 0, 0, 0, 14]].concat();
    images.extend((0..n * 196).map(|i| (i * 7 % 251) as u8));
    let mut labels = [&[0, 0, 8, 1], &n.to_be_bytes()[..]].concat();
    labels.extend((0..n).map(|i| (i % 4) as u8));
    fs::write(format!("{path}/train-images-idx3-ubyte"), images).unwrap();
    fs::write(format!("{path}/train-labels-idx1-ubyte"), labels).unwrap();
    path
}

#[test]
fn an_interrupted_cache_file_is_not_used() {
    let bench = Bench::with_model();
    let (data, cache) = (large_data(&bench), bench.path("kept"));
    fs::create_dir(&cache).unwrap();
    let words =
        ["post-train", &bench.model, "--data", &data, "--method", "sgd", "--update", "head"];
    let rest =
        ["--cache", "disk", "--cache-dir", &cache, "--epochs", "1", "--quiet", "--write-worse"];
    for (signal, leftover) in [("-INT", 0), ("-TERM", 0), ("-KILL", 1)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
        command.args(words).args(rest).args(["--out", &bench.path("out"), "--threads", "1"]);
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let clock = Instant::now();
        while names(&cache).is_empty() {
            assert!(clock.elapsed() < Duration::from_secs(60), "no cache file was started");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(names(&cache)[0].ends_with(".planish-part"), "{:?}", names(&cache));
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        child.wait().unwrap();
        assert_eq!(names(&cache).len(), leftover, "{signal}");
    }
    let listed = bench.plain(&["cache", "list", "--cache-dir", &cache]);
    assert!(listed.output.contains("left by a run that was killed"), "{}", listed.output);
    let next = |name: &str| -> Output {
        let out = bench.path(name);
        bench.run(&[&words[..], &rest, &["--out", &out]].concat())
    };
    let done = next("first");
    assert!(done.success, "{}", done.errors);
    let file = |name: &str| fs::read(bench.path(name) + "/model.safetensors").unwrap();
    assert!(next("second").output.contains("read from"));
    assert!(file("first") == file("second"));
    assert!(bench.plain(&["cache", "clear", "--cache-dir", &cache]).output.contains("2 files"));
}
