//! A process that is killed while it replaces a checkpoint leaves either the old or the new file,
//! complete, and a working undo.
#![cfg(unix)]

#[allow(dead_code, reason = "this test needs only some of it")]
mod common;

use common::Bench;
use planish::checkpoint::undo;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that changes a file, and the states before and after.
struct Case {
    words: Vec<String>,
    before: Vec<u8>,
    after: Vec<u8>,
    /// The undo file that exists before the command runs.
    undo_before: Option<Vec<u8>>,
    kills: usize,
}

fn undo_file(checkpoint: &Path) -> PathBuf {
    PathBuf::from(format!("{}.planish-undo.safetensors", checkpoint.display()))
}

/// Restores the files to their state before the command.
fn restore(checkpoint: &Path, case: &Case) {
    fs::write(checkpoint, &case.before).unwrap();
    match &case.undo_before {
        Some(bytes) => fs::write(undo_file(checkpoint), bytes).unwrap(),
        None => drop(fs::remove_file(undo_file(checkpoint))),
    }
}

fn start(case: &Case) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    command.args(&case.words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs the command once without interruption, checks the result, and measures the time.
fn run_to_end(checkpoint: &Path, case: &Case) -> Duration {
    restore(checkpoint, case);
    let clock = Instant::now();
    assert!(start(case).wait().unwrap().success(), "{:?}", case.words);
    let time = clock.elapsed();
    assert!(fs::read(checkpoint).unwrap() == case.after, "{:?} gave another result", case.words);
    time
}

#[test]
fn killed_runs_leave_the_old_or_the_new_file() {
    let bench = Bench::with_model();
    let folder = PathBuf::from(&bench.model);
    let checkpoint = folder.join("model.safetensors").canonicalize().unwrap();
    let words = |line: &[&str]| line.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    let tune = words(&[
        "post-train",
        &bench.model,
        "--data",
        &bench.data,
        "--method",
        "sgd",
        "--update",
        "head",
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--remeasure",
        "0",
        "--write-worse",
        "--in-place",
        "--threads",
        "1",
        "--quiet",
    ]);

    let old = fs::read(&checkpoint).unwrap();
    let first = Command::new(env!("CARGO_BIN_EXE_planish")).args(&tune).output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let new = fs::read(&checkpoint).unwrap();
    assert!(new != old);
    let undo_bytes = fs::read(undo_file(&checkpoint)).unwrap();

    let copy = bench.path("old.safetensors");
    fs::write(&copy, &old).unwrap();
    let patch = bench.path("patch.safetensors");
    planish::checkpoint::Patch::between(Path::new(&copy), &checkpoint)
        .unwrap()
        .write(Path::new(&patch))
        .unwrap();

    let model = checkpoint.display().to_string();
    let cases = [
        Case { words: tune, before: old.clone(), after: new.clone(), undo_before: None, kills: 80 },
        Case {
            words: words(&["patch", "apply", &model, &patch, "--in-place"]),
            before: old.clone(),
            after: new.clone(),
            undo_before: None,
            kills: 60,
        },
        Case {
            words: words(&["undo", &model]),
            before: new.clone(),
            after: old.clone(),
            undo_before: Some(undo_bytes),
            kills: 60,
        },
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut total_midway = 0;
    for case in &cases {
        let mut times: Vec<Duration> = (0..3).map(|_| run_to_end(&checkpoint, case)).collect();
        times.sort();
        // The file is replaced at the very end of a tuning, so half of the kills are timed there.
        let (mut killed, mut left_old, mut left_new, mut midway) = (0, 0, 0, 0);
        for i in 0.. {
            if killed == case.kills {
                break;
            }
            assert!(i < 10 * case.kills, "{:?}: only {killed} were still running", case.words);
            restore(&checkpoint, case);
            let share =
                if i % 2 == 0 { rng.random_range(0.0..1.0) } else { rng.random_range(0.75..1.05) };
            let mut child = start(case);
            std::thread::sleep(times[1].mul_f64(share));
            // The process may have ended already.
            let _ = child.kill();
            let by_signal = child.wait().unwrap().signal().is_some();

            let found = fs::read(&checkpoint).unwrap();
            let (is_old, is_new) = (found == case.before, found == case.after);
            assert!(is_old || is_new, "{:?} left neither the old nor the new file", case.words);
            if by_signal {
                killed += 1;
                left_old += usize::from(is_old);
                left_new += usize::from(is_new);
                // Killed between the first write and the last action.
                let has_undo = undo_file(&checkpoint).exists();
                let started = if case.undo_before.is_some() { is_new } else { is_old };
                midway += usize::from(temp_file(&folder) || (has_undo && started));
            }
            // In every case, undo restores the initial state.
            if found == new {
                assert!(undo_file(&checkpoint).exists(), "{:?}: no undo file", case.words);
            }
            if undo_file(&checkpoint).exists() {
                undo(&checkpoint).unwrap();
            }
            assert!(fs::read(&checkpoint).unwrap() == old);
        }
        println!(
            "{}: {killed} processes killed, of {:?} each: {left_old} old files, {left_new} new, \
             {midway} midway",
            case.words[0], times[1]
        );
        total_midway += midway;
        // Leftover files do not block the next run, which removes them.
        run_to_end(&checkpoint, case);
        assert!(!temp_file(&folder), "{:?} left temporary files", case.words);
    }
    assert!(total_midway > 0, "no process was killed while it replaced the file");
}

/// Whether an unfinished file exists.
fn temp_file(folder: &Path) -> bool {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.into_iter().any(|name| {
        let name = name.to_string_lossy();
        name.ends_with(".planish-new") || name.ends_with(".planish-undo-new")
    })
}

/// Process ids of the children of a process.
#[cfg(target_os = "linux")]
fn children(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // After the name, which may have spaces: state and parent.
    let parent = |id: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    ids.filter(|&id| parent(id) == Some(of)).collect()
}

/// Polls until `done`, for at most a minute.
#[cfg(target_os = "linux")]
fn wait_for<T>(mut done: impl FnMut() -> Option<T>) -> T {
    let clock = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(clock.elapsed() < Duration::from_secs(60), "nothing happened within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn runs_of_a_killed_bench_end_with_it() {
    let bench = Bench::with_model();
    let words =
        ["bench", &bench.model, "--data", &bench.data, "--methods", "pol", "--perturb", "head"];
    let rest = ["--update", "norm", "--batch-size", "8", "--epochs", "1000000", "--quiet"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    let mut parent =
        command.args(words).args(rest).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let child = wait_for(|| children(parent.id()).first().copied());
    parent.kill().unwrap();
    parent.wait().unwrap();
    // A process that has ended may stay listed as a zombie until it is waited for.
    let ended = || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok();
        let state =
            stat.as_ref().and_then(|stat| stat.rsplit_once(')'))?.1.trim_start().chars().next();
        Some(matches!(state, Some('Z' | 'X')))
    };
    wait_for(|| ended().unwrap_or(true).then_some(()));
}
