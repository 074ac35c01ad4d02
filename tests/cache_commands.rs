//! The prefix cache end to end.

#[allow(dead_code, reason = "these tests need only some of it")]
mod common;

use common::{Bench, Output};
use serde_json::Value;
use std::fs;

const SMALL: [&str; 8] =
    ["--epochs", "2", "--batch-size", "8", "--perturb-batch", "16", "--remeasure", "0"];
const LAYERS: [&str; 4] = ["--perturb", "head", "--update", "block.4"];

/// Post-trains into `out.safetensors`. Returns the program's output, its report and the file.
fn train(bench: &Bench, rest: &[&str]) -> (Output, Value, Vec<u8>) {
    let [out, json] = ["out.safetensors", "run.json"].map(|name| bench.path(name));
    let model = bench.model.as_str();
    let words = ["post-train", model, "--data", &bench.data, "--keep", "last", "--write-worse"];
    let to = ["--out", out.as_str(), "--json", json.as_str()];
    let result = bench.run(&[&words[..], &to, &LAYERS, &SMALL, rest].concat());
    assert!(result.success, "{}", result.errors);
    (result, bench.json("run.json"), fs::read(out).unwrap())
}

/// The bytes of a checkpoint's tensors. Its provenance contains the type of the cache and may
/// differ.
fn tensors(bytes: &[u8]) -> Vec<u8> {
    bytes[8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize..].to_vec()
}

fn names(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_cache_mode_gives_the_same_checkpoint_and_files_are_reused() {
    let bench = Bench::with_model();
    let folder = bench.path("xdg/planish");
    for half in [&[][..], &["--cache-dtype", "bf16"]] {
        let with = |place: &str| train(&bench, &[&["--cache", place], half].concat());
        let before = names(&folder).len();
        let (result, report, off) = with("off");
        assert!(
            result.output.contains("frozen layers are recomputed for every batch"),
            "{}",
            result.output
        );
        assert_eq!(
            (&report["cached"], &report["run"]["cache"]["mode"]),
            (&false.into(), &"off".into())
        );
        let (_, report, ram) = with("ram");
        assert_eq!(
            (&report["cached"], &report["run"]["cache"]["mode"]),
            (&true.into(), &"ram".into())
        );
        assert_eq!(names(&folder).len(), before);
        let (result, report, disk) = with("disk");
        assert!(result.output.contains("kept in"), "{}", result.output);
        let cache = &report["run"]["cache"];
        assert_eq!((&cache["found"], &cache["views"]), (&0.into(), &1.into()));
        assert_eq!(names(&folder).len(), before + 1);
        let file = format!("{}.safetensors", cache["keys"][0].as_str().unwrap());
        assert!(names(&folder).contains(&file));
        // 40 images of 5 tokens of 64 numbers.
        assert_eq!(cache["bytes"], 40 * 5 * 64 * if half.is_empty() { 4 } else { 2 });
        // If a cache file exists, `auto` prefers it to memory.
        for place in ["disk", "auto"] {
            let (result, report, again) = with(place);
            assert!(result.errors.contains("frozen layers read from"), "{}", result.errors);
            assert!(result.output.contains("frozen layers read from"), "{}", result.output);
            assert_eq!(report["run"]["cache"]["found"], 1);
            assert!(again == disk);
        }
        assert!(disk == ram && ram == off);
    }
    let (_, _, whole) = train(&bench, &["--cache", "off"]);
    let (_, _, half) = train(&bench, &["--cache", "off", "--cache-dtype", "bf16"]);
    assert_ne!(tensors(&whole), tensors(&half));
}

#[test]
fn augmented_views_are_cached_shared_and_reported() {
    let bench = Bench::with_model();
    let folder = bench.path("views");
    let augment = ["--augment", "flip,shift=2", "--cache-dir", &folder];
    let with = |rest: &[&str]| train(&bench, &[&augment[..], rest].concat());
    // Two epochs, so two views.
    let (_, report, two) = with(&[]);
    assert_eq!(names(&folder).len(), 2);
    let text = &report["augmentation"];
    assert_eq!((&text["augment"], &text["views"]), (&"flip,shift=2".into(), &2.into()));
    let off = ["--augment", "flip,shift=2", "--cache", "off"];
    assert!(train(&bench, &off).2 == two);
    let (_, report, three) = with(&["--views", "3"]);
    let cache = &report["run"]["cache"];
    assert_eq!((&cache["found"], &cache["views"], names(&folder).len()), (&2.into(), &3.into(), 3));
    assert!(train(&bench, &[&off[..], &["--views", "3"]].concat()).2 == three);
    let plain = train(&bench, &["--cache", "off"]).2;
    assert!(tensors(&two) != tensors(&three) && tensors(&two) != tensors(&plain));
    // A different seed of the views needs new files; a different training order does not.
    let (_, report, _) = with(&["--train-seed", "5"]);
    assert_eq!(report["run"]["cache"]["found"], 2);
    let (_, report, _) = with(&["--seed", "5"]);
    assert_eq!(report["run"]["cache"]["found"], 0);
}

#[test]
fn a_damaged_file_is_reported_and_rewritten() {
    let bench = Bench::with_model();
    let folder = bench.path("kept");
    let disk = ["--cache", "disk", "--cache-dir", &folder];
    let (_, _, expected) = train(&bench, &disk);
    let [name] = names(&folder).try_into().unwrap();
    let path = format!("{folder}/{name}");
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 8;
    for bad in [&good[..good.len() / 2], &flipped] {
        fs::write(&path, bad).unwrap();
        let (result, report, found) = train(&bench, &disk);
        assert!(found == expected && fs::read(&path).unwrap() == good);
        assert_eq!(report["run"]["cache"]["found"], 0);
        let note = report["notes"].to_string();
        for text in [&result.errors, &note] {
            assert!(text.contains(&name) && text.contains("are recomputed"), "{text}");
        }
    }
    // A checkpoint that differs only in the head uses the same file.
    let tuned = bench.path("head.safetensors");
    let words = ["post-train", &bench.model, "--data", &bench.data, "--method", "sgd", "--update"];
    let rest = ["head", "--out", &tuned, "--epochs", "1", "--batch-size", "8", "--write-worse"];
    assert!(bench.run(&[&words[..], &rest].concat()).success);
    fs::copy(format!("{}/config.json", bench.model), bench.path("config.json")).unwrap();
    let [out, json] = ["other.safetensors", "run.json"].map(|name| bench.path(name));
    let words = ["post-train", &tuned, "--data", &bench.data, "--out", &out, "--json", &json];
    let result = bench.run(&[&words[..], &["--write-worse"], &LAYERS, &SMALL, &disk].concat());
    assert!(result.success, "{}", result.errors);
    assert_eq!(bench.json("run.json")["run"]["cache"]["found"], 1);
}

#[test]
fn a_dry_run_reports_the_cache_folder_and_writes_nothing() {
    let bench = Bench::with_model();
    let folder = bench.path("kept");
    let json = bench.path("dry.json");
    let words = ["post-train", &bench.model, "--data", &bench.data, "--dry-run", "--json", &json];
    let rest = ["--cache", "disk", "--cache-dir", &folder, "--method", "sgd", "--update", "norm"];
    let batch = ["--batch-size", "8", "--out", "unwritten"];
    let result = bench.run(&[&words[..], &rest, &batch].concat());
    assert!(result.success, "{}", result.errors);
    assert!(
        result.output.contains("10.0 KiB of frozen layers' activations in"),
        "{}",
        result.output
    );
    let cache = &bench.json("dry.json")["cache"];
    assert_eq!((&cache["mode"], &cache["bytes"]), (&"disk".into(), &10_240.into()));
    assert!(!std::path::Path::new(&folder).exists());
}

#[test]
fn rows_and_seeds_of_a_bench_share_cached_activations() {
    let bench = Bench::with_model();
    let json = bench.path("bench.json");
    let words = ["bench", &bench.model, "--data", &bench.data, "--methods", "pol-head,sam"];
    let rest = ["--update", "block.4", "--seeds", "2", "--json", &json];
    // A plan needs a diagnosis. SAM and its control get their layers from the option.
    let result = bench.run(&[&words[..], &rest, &SMALL].concat());
    assert!(result.success, "{}", result.errors);
    let costs = &bench.json("bench.json")["run"]["costs"];
    let runs: Vec<&Value> =
        costs.as_array().unwrap().iter().flat_map(|c| c["cache"].as_array().unwrap()).collect();
    let found: Vec<u64> = runs.iter().map(|run| run["found"].as_u64().unwrap()).collect();
    // In all runs, block.4 is the lowest layer that is perturbed or updated.
    assert_eq!(found.iter().sum::<u64>(), found.len() as u64 - 1, "{found:?}");
    assert!(runs.iter().all(|run| run["keys"] == runs[0]["keys"] && run["mode"] == "disk"));
    assert_eq!(names(&bench.path("xdg/planish")).len(), 1);
    assert!(result.output.contains("runs read the activations of frozen layers from files"));
}

#[test]
fn files_are_listed_and_cleared() {
    let bench = Bench::with_model();
    let listed = |words: &[&str]| bench.plain(&[&["cache"], words].concat());
    let empty = listed(&["list"]);
    assert!(empty.success && empty.output.contains("0 files"), "{}", empty.output);
    train(&bench, &["--cache", "disk", "--augment", "flip", "--views", "2"]);
    let folder = bench.path("xdg/planish");
    fs::write(format!("{folder}/.{}.1.2.3.planish-part", "b".repeat(64)), "half").unwrap();
    fs::write(format!("{folder}/{}.safetensors", "c".repeat(64)), "junk").unwrap();
    fs::write(format!("{folder}/other.safetensors"), "mine").unwrap();
    let result = listed(&["list"]).output;
    for part in [
        "4 files",
        "flip, seed 0, view 1",
        "block.4, attention",
        "model.safetensors",
        "f32",
        "split train",
        "was killed",
        "cannot be read",
        "40",
    ] {
        assert!(result.contains(part), "`{part}` is not in {result}");
    }
    assert!(listed(&["clear", "--unused-for", "1"]).output.contains("1 files removed"));
    assert!(listed(&["clear"]).output.contains("3 files removed"));
    assert_eq!(names(&folder), ["other.safetensors"]);
    listed(&["list", "--cache-dir", &format!("{folder}/other.safetensors")])
        .fails_with(&["other.safetensors", "expected a folder"]);
    assert_eq!(listed(&["clear", "--unused-for", "-1"]).code, Some(2));
}

#[test]
fn unusable_cache_folders_are_reported_with_a_remedy() {
    let bench = Bench::with_model();
    let file = bench.path("file");
    fs::write(&file, "").unwrap();
    let words = ["post-train", &bench.model, "--data", &bench.data, "--out", "x", "--quiet"];
    let words = [&words[..], &LAYERS, &SMALL].concat();
    let attempt = |rest: &[&str]| bench.run(&[&words[..], rest].concat());
    for (rest, parts) in [
        (&["--cache", "disk", "--cache-dir", &file][..], &["file", "expected a folder"][..]),
        (&["--cache", "ram", "--cache-ram", "0"], &["--cache-ram", "51200", "bf16", "disk"]),
    ] {
        attempt(rest).fails_with(parts);
    }
    attempt(&["--views", "2"]).is_refused_with(&["--views", "--augment"]);
    let unused = ["--cache", "off", "--cache-dir", &file];
    attempt(&unused).is_refused_with(&["--cache-dir", "--cache"]);
    for (flag, value) in [("--cache", "512"), ("--views", "0"), ("--augment", "flop")] {
        assert_eq!(attempt(&[flag, value]).code, Some(2), "{flag}");
    }
    assert!(!std::path::Path::new(&bench.path("x")).exists());
    // No file was requested explicitly, so the run continues without one.
    let done = attempt(&["--cache-dir", &file, "--write-worse"]);
    assert!(done.success, "{}", done.errors);
}
