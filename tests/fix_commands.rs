//! `fix`, and `diagnose --remedies`, end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, Output, tensors};
use serde_json::Value;
use std::fs;

fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {path} in {value}"))
}

fn fix(bench: &Bench, words: &[&str]) -> Output {
    let rest = ["--data", &bench.data, "--quiet", "--json", &bench.path("run.json")];
    bench.run(&[&["fix"], words, &rest].concat())
}

/// An IDX folder like that of [`Bench::idx`], with 400 images in each split.
fn many_images(bench: &Bench) -> String {
    let path = bench.path("many");
    fs::create_dir(&path).unwrap();
    let size = 400u32.to_be_bytes();
    for (prefix, shade) in [("train", 0usize), ("t10k", 9)] {
        let mut images = [&[0, 0, 8, 3], &size[..], &[0, 0, 0, 14, 0, 0, 0, 14]].concat();
        let mut labels = [&[0, 0, 8, 1], &size[..]].concat();
        for i in 0..400 {
            let label = i % 4;
            labels.push(label as u8);
            let noise = |j: usize| (shade + 7 * i + 13 * j + (i * j) % 31) % 64;
            images.extend((0..196).map(|j| (40 * label + noise(j)) as u8));
        }
        fs::write(format!("{path}/{prefix}-images-idx3-ubyte"), images).unwrap();
        fs::write(format!("{path}/{prefix}-labels-idx1-ubyte"), labels).unwrap();
    }
    path
}

/// A bench with many images, a model of them, and a copy in which the rows of the patch projection, and
/// the numbers of one bias, which matters little, are means of two.
fn damaged() -> (Bench, String) {
    let mut bench = Bench::new();
    bench.data = many_images(&bench);
    let words = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &bench.data];
    let rest = ["--epochs", "6", "--batch", "16", "--val-fraction", "0", "--out", &bench.model];
    let made = bench.run(&[&words[..], &rest].concat());
    assert!(made.success, "{}", made.errors);
    let out = bench.path("damaged");
    fs::create_dir(&out).unwrap();
    let [from, to] = [&bench.model, &out].map(|folder| format!("{folder}/model.safetensors"));
    fs::copy(format!("{}/config.json", bench.model), format!("{out}/config.json")).unwrap();
    let mut bytes = fs::read(from).unwrap();
    let (size, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    for tensor in ["patch_embed.proj.weight", "blocks.5.attn.proj.bias"] {
        let info = header.info(tensor).unwrap();
        let (start, end) = info.data_offsets;
        // The data follow the header and its length, 8 bytes.
        let data = &mut bytes[8 + size + start..8 + size + end];
        let own: Vec<f32> = data.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        let rows = 5 * own.len() / info.shape[0];
        for (i, x) in data.as_chunks_mut().0.iter_mut().enumerate() {
            *x = (0.5 * (own[i] + own[(i + rows) % own.len()])).to_le_bytes();
        }
    }
    fs::write(to, bytes).unwrap();
    (bench, out)
}

#[test]
fn a_damaged_layer_is_found_and_moved_back() {
    let (bench, damaged) = damaged();
    let (out, page) = (bench.path("fixed"), bench.path("fix.html"));
    let words = [&damaged, "--pretrained", &bench.model, "--out", &out, "--html", &page];
    let done = fix(&bench, &words.map(|word| word as &str));
    assert!(done.success, "{}", done.errors);
    let report = bench.json("run.json");
    assert_eq!(report["schema"], "planish/fixing/1");
    let first = &report["steps"][0];
    assert_eq!(first["move"]["remedy"], format!("toward:{}", bench.model));
    assert_eq!(first["move"]["eligible"], true);
    assert!(first["move"]["layers"].to_string().contains("embed"), "{first}");
    let gain = |split: &str| number(&report, &format!("/{split}/calibrated_nll_gain/mean"));
    assert!(gain("validation") > 0.05 && gain("test") > 0.05, "{report}");
    assert!(number(&report, "/test/after/top1") > number(&report, "/test/before/top1"));

    // The file is what the report measured, and is calibrated on V.
    let json = bench.path("eval.json");
    let split = ["--split", "test", "--json", &json];
    let measured = bench.run(&[&["eval", &out, "--data", &bench.data], &split[..]].concat());
    assert!(measured.success, "{}", measured.errors);
    let halves =
        0.5 * (number(&report, "/validation/after/nll") + number(&report, "/test/after/nll"));
    assert!((number(&bench.json("eval.json"), "/figures/nll") - halves).abs() < 1e-6);
    assert!((number(&report, "/validation/after/temperature") - 1.0).abs() < 1e-4);

    // The report lists the baselines, on the same test images.
    let names: Vec<&str> = report["baselines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["temperature", "WiSE-FT", "LiNeS"]);
    let alone = &report["baselines"][0];
    assert_eq!(alone["test"]["nll"], report["test"]["before"]["nll"]);
    for text in ["on test", "this fix", "optimistic", "moves were measured", "calibration"] {
        assert!(done.output.contains(text), "{text}: {}", done.output);
    }
    let widest = done.output.lines().filter(|line| line.contains("  ")).map(|l| l.chars().count());
    assert!(widest.max() <= Some(100), "{}", done.output);
    assert!(bench.plain(&["inspect", &out]).output.contains("fix by"));
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains("Moves along remedies") && html.contains("class=\"heat\""));
}

#[test]
fn without_an_eligible_move_only_a_temperature_is_applied() {
    let bench = Bench::with_model();
    let file = format!("{}/model.safetensors", bench.model);
    let before = fs::read(&file).unwrap();
    let old = tensors(&file);
    let done = fix(&bench, &[&bench.model, "--in-place"]);
    assert!(done.success, "{}", done.errors);
    let report = bench.json("run.json");
    assert_eq!(
        (&report["stop"], report["steps"].as_array().unwrap().len()),
        (&"nothing_eligible".into(), 0)
    );
    let new = tensors(&file);
    let temperature = number(&report, "/temperature");
    for (name, tensor) in &new {
        for (was, is) in old[name].f32s().into_iter().zip(tensor.f32s()) {
            let by = if name.starts_with("head.") { temperature } else { 1.0 };
            // One rounding to f32.
            assert!((f64::from(is) - f64::from(was) / by).abs() <= 6e-8 * f64::from(is.abs()));
        }
    }
    for text in ["the fix is calibration alone", "planish undo", "--pretrained", "use more"] {
        assert!(done.output.contains(text), "{text}: {}", done.output);
    }
    assert!(bench.plain(&["undo", &bench.model]).success);
    assert!(fs::read(&file).unwrap() == before);

    let done = fix(&bench, &[&bench.model, "--dry-run"]);
    assert!(done.success && done.output.contains("nothing written"), "{}", done.output);
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn equal_runs_give_equal_results() {
    let bench = Bench::with_model();
    let run = || {
        let done = fix(&bench, &[&bench.model, "--pretrained", &bench.model, "--dry-run"]);
        assert!(done.success, "{}", done.errors);
        let mut report = bench.json("run.json");
        report.as_object_mut().unwrap().remove("run");
        report
    };
    let first = run();
    assert_eq!(first, run());
    // Nothing can move towards the weights themselves.
    let moves = first["looks"][0]["moves"].as_array().unwrap();
    assert!(!moves.is_empty() && moves.iter().all(|one| one["remedy"] == "decay"));
    assert!(first["looks"][0]["notes"].to_string().contains("changes nothing"));
}

#[test]
fn a_budget_limits_the_search() {
    let bench = Bench::with_model();
    fix(&bench, &[&bench.model, "--dry-run", "--budget", "0.000001s"])
        .fails_with(&["--budget", "takes about"]);
    for wrong in ["10", "0m", "-1m", "fast"] {
        let done = fix(&bench, &[&bench.model, "--dry-run", &format!("--budget={wrong}")]);
        assert_eq!(done.code, Some(2));
        assert!(done.errors.contains("as in 90s, 10m or 2h"), "{}", done.errors);
    }
}

#[test]
fn time_and_memory_are_forecast() {
    let bench = Bench::with_model();
    let done = fix(&bench, &[&bench.model, "--dry-run", "--memory", "2GiB"]);
    assert!(done.success, "{}", done.errors);
    let forecast = &bench.json("run.json")["run"]["forecast"];
    let names: Vec<&Value> =
        forecast["parts"].as_array().unwrap().iter().map(|part| &part["name"]).collect();
    assert_eq!(names, ["so far", "calibration", "one round of moves", "figures"]);
    assert!(number(forecast, "/peak_mib") < 2048.0 && number(forecast, "/seconds") > 0.0);
    fix(&bench, &[&bench.model, "--dry-run", "--memory", "2MiB"]).fails_with(&[
        "--memory",
        "the limit is 2 MiB",
        "lower --threads",
    ]);
    // Without --quiet, the forecast is printed before the work.
    let words = ["fix", &bench.model, "--data", &bench.data, "--dry-run"];
    let told = bench.run(&words).errors;
    let first = told.lines().find(|line| !line.starts_with("note: ")).unwrap();
    assert!(first.starts_with("fix: about") && first.contains("MiB"), "{told}");
}

#[test]
fn a_second_choice_on_the_same_images_is_noted() {
    let bench = Bench::with_model();
    let out = bench.path("once");
    let first = fix(&bench, &[&bench.model, "--out", &out]);
    let note = "already used V to choose or check a result";
    assert!(first.success && !first.output.contains(note), "{}", first.output);
    let second = fix(&bench, &[&out, "--dry-run"]);
    assert!(second.output.contains(&format!("note: fix {note}")), "{}", second.output);
    let words = ["calibrate", &out, "--data", &bench.data, "--dry-run"];
    let third = bench.run(&[&words[..], &["--quiet"]].concat());
    assert!(third.output.contains(note), "{}", third.output);
}

#[test]
fn a_search_may_choose_moves() {
    let (bench, damaged) = damaged();
    let file = format!("{damaged}/model.safetensors");
    let before = fs::read(&file).unwrap();
    let json = bench.path("search.json");
    let words = ["post-train", &damaged, "--data", &bench.data, "--pretrained", &bench.model];
    // Gradients too short to move any weight.
    let recipe = ["--search", "0.2", "--batch-size", "16", "--clip", "1e-30", "--remeasure", "0"];
    let done = bench.run(&[&words[..], &recipe, &["--in-place", "--json", &json]].concat());
    assert!(done.success, "{}", done.errors);
    let report = bench.json("search.json");
    let search = &report["search"];
    let moves = &search["tried"][0];
    assert_eq!((&moves["method"], &moves["epochs"]), (&"fix".into(), &0.into()));
    assert!(moves["update"].as_str().unwrap().contains("toward"), "{moves}");
    assert!(done.errors.contains("fix: "), "{}", done.errors);
    assert_eq!(search["chosen"], 0, "{search}");
    // It is written as `fix` writes it.
    assert_eq!(report["schema"], "planish/fixing/1");
    let gain = number(&report, "/validation/calibrated_nll_gain/mean");
    assert!((gain - number(moves, "/calibrated_nll_gain/mean")).abs() < 1e-9);
    assert!(done.output.contains("a search on V chose fix: "), "{}", done.output);
    let after = fs::read(&file).unwrap();
    let fixed = bench.path("fixed");
    let words = [&damaged, "--pretrained", &bench.model, "--out", &fixed];
    assert!(bench.plain(&["undo", &damaged]).success);
    assert!(fs::read(&file).unwrap() == before);
    assert!(fix(&bench, &words.map(|word| word as &str)).success);
    let [own, other] = [after, fs::read(format!("{fixed}/model.safetensors")).unwrap()];
    let weights = |bytes: &[u8]| {
        let (length, header) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
        let steps = header.metadata().clone().unwrap()["planish.provenance"].clone();
        (bytes[length + 8..].to_vec(), steps)
    };
    assert!(weights(&own) == weights(&other), "another result than that of fix");
    let refused = bench.run(&["post-train", &damaged, "--data", &bench.data, "--pretrained", "x"]);
    assert!(refused.code == Some(2) && refused.errors.contains("--search"), "{}", refused.errors);
}

#[test]
fn bad_input_is_refused() {
    let bench = Bench::with_model();
    let nowhere = fix(&bench, &[&bench.model]);
    assert_eq!(nowhere.code, Some(2));
    let all = ["--out", "--in-place", "--dry-run"];
    assert!(all.iter().all(|flag| nowhere.errors.contains(flag)), "{}", nowhere.errors);
    fix(&bench, &[&bench.model, "--out", &bench.model]).fails_with(&["never overwritten"]);

    // Weights of another width, of another depth, and the output in their place.
    let other = bench.path("other");
    let words = ["finetune", "--arch", "vit_micro_patch7_14", "--data", &bench.data];
    let rest = ["--out", &other, "--epochs", "1", "--batch-size", "8", "--lr", "0.0001"];
    let made = bench.run(&[&words[..], &rest].concat());
    assert!(made.success, "{}", made.errors);
    fix(&bench, &[&bench.model, "--pretrained", &other, "--dry-run"])
        .fails_with(&["tensor", "expected", "found"]);
    fix(&bench, &[&bench.model, "--pretrained", &other, "--out", &other])
        .fails_with(&["checkpoints that are read"]);
    fix(&bench, &[&bench.model, "--pretrained", &bench.path("none"), "--dry-run"])
        .fails_with(&["none"]);
}

fn diagnose(bench: &Bench, words: &[&str]) -> Output {
    let rest = ["--data", &bench.data, "--quiet", "--json", &bench.path("diagnosis.json")];
    bench.run(&[&["diagnose"], words, &rest].concat())
}

#[test]
fn diagnose_searches_along_remedies() {
    let (bench, damaged) = damaged();
    let remedies = format!("toward:{},decay", bench.model);
    let done = diagnose(&bench, &[&damaged, "--remedies", &remedies]);
    assert!(done.success, "{}", done.errors);
    let report = bench.json("diagnosis.json");
    let moves = report["remedies"]["moves"].as_array().unwrap();
    let named = |name: &str| moves.iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(named("embed")["eligible"], true);
    assert_eq!(named("all layers")["form"], "all");
    assert_eq!(named("LiNeS")["form"], "lines");
    // Only two layers differ from the pretrained weights, so others cannot move.
    let differ = |one: &Value| one["layers"][0] == "embed" || one["layers"][0] == "block.5";
    assert!(moves.iter().all(|one| one["remedy"] == "decay" || differ(one)));
    for text in ["layer", "decay", "eligible", "The best move is", "* eligible"] {
        assert!(done.output.contains(text), "{text}: {}", done.output);
    }
    let widest = done.output.lines().filter(|line| line.contains("  ")).map(|l| l.chars().count());
    assert!(widest.max() <= Some(100), "{}", done.output);

    let page = bench.path("page.html");
    let shown = bench.plain(&["report", &bench.path("diagnosis.json"), "--html", &page]);
    assert!(shown.success, "{}", shown.errors);
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains("Moves along remedies") && html.contains("class=\"heat\""));
    roxmltree::Document::parse(html.trim_start_matches("<!DOCTYPE html>")).unwrap();
}

#[test]
fn remedies_are_forecast_and_restricted_to_layers() {
    let bench = Bench::with_model();
    let words = [&bench.model, "--remedies", "decay", "--layer", "block.0,norm,head"];
    let words = words.map(|word| word as &str);
    let done = diagnose(&bench, &words);
    assert!(done.success, "{}", done.errors);
    let report = bench.json("diagnosis.json");
    let names: Vec<&Value> =
        report["remedies"]["moves"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["block.0", "head"]);
    assert!(report["remedies"]["notes"].to_string().contains("norm"));

    let done = diagnose(&bench, &[&words[..], &["--dry-run"]].concat());
    assert!(done.success, "{}", done.errors);
    let parts = bench.json("diagnosis.json")["expected"]["parts"].to_string();
    assert!(parts.contains("remedies"), "{parts}");

    let wrong = diagnose(&bench, &[&bench.model, "--remedies", "shrink"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.errors.contains("toward:CKPT0, decay, train"), "{}", wrong.errors);
}

/// The number at a path in the point of a move's curve at α = 1.
fn at_one(moves: &Value, name: &str, remedy: &str, path: &str) -> f64 {
    let is = |one: &&Value| one["name"] == name && one["remedy"] == remedy;
    let one = moves.as_array().unwrap().iter().find(is).unwrap();
    let point = one["curve"].as_array().unwrap().iter().find(|point| point["alpha"] == 1.0);
    number(point.unwrap(), path)
}

#[test]
fn an_epoch_of_training_is_a_direction() {
    let (bench, damaged) = damaged();
    let [sgd, pol] = ["train:lr=0.1", "perturbed:perturb=norm:lr=0.1:weight-decay=0.01"];
    let remedies = format!("{sgd},{pol}");
    let words = [&damaged, "--layer", "embed,block.5", "--remedies", &remedies];
    let done = diagnose(&bench, &words.map(|word| word as &str));
    assert!(done.success, "{}", done.errors);
    let moves = &bench.json("diagnosis.json")["remedies"]["moves"];
    assert_eq!(moves.as_array().unwrap().len(), 4);

    // α = 1 is what post-training of this layer for one epoch gives.
    let method = ["--method", "pol", "--perturb", "norm", "--weight-decay", "0.01"];
    for (remedy, method) in [(sgd, &["--method", "sgd"][..]), (pol, &method[..])] {
        for layer in ["embed", "block.5"] {
            let (out, json) = (bench.path(&format!("{remedy}{layer}")), bench.path("run.json"));
            let words = ["post-train", &damaged, "--data", &bench.data, "--update", layer];
            let rest = ["--epochs", "1", "--lr", "0.1", "--keep", "last", "--write-worse"];
            let to = ["--remeasure", "0", "--out", &out, "--json", &json];
            let done = bench.run(&[&words[..], method, &rest, &to].concat());
            assert!(done.success, "{}", done.errors);
            let expected = number(&bench.json("run.json"), "/validation/after/nll");
            let found = at_one(moves, layer, remedy, "/nll");
            assert!((found - expected).abs() < 1e-5, "{remedy} {layer}: {found} {expected}");
        }
    }

    // A rate that diverges leaves the layer out.
    let done = diagnose(&bench, &[&damaged, "--layer", "embed", "--remedies", "train:lr=1e9"]);
    assert!(done.success, "{}", done.errors);
    let found = &bench.json("diagnosis.json")["remedies"];
    assert_eq!(found["moves"].as_array().unwrap().len(), 0);
    assert!(found["notes"].to_string().contains("embed is left out: training was stopped"));

    for (wrong, said) in [
        ("perturbed:perturb=block.77", "block.77"),
        ("train:lr=-1", "lr"),
        ("train:perturb=head", "takes"),
    ] {
        let refused = diagnose(&bench, &[&damaged, "--remedies", wrong]);
        assert!(!refused.success && refused.errors.contains(said), "{}", refused.errors);
    }
}

#[test]
fn a_fix_may_train_layers() {
    let (bench, damaged) = damaged();
    let done = fix(&bench, &[&damaged, "--also", "train:lr=0.1", "--dry-run"]);
    assert!(done.success, "{}", done.errors);
    let report = bench.json("run.json");
    let step = &report["steps"][0];
    assert_eq!(step["move"]["remedy"], "train:lr=0.1", "{}", done.output);
    assert!(number(step, "/after/calibrated_nll") < number(&report, "/start/calibrated_nll"));
    assert!(done.output.contains("one epoch of training"), "{}", done.output);
    let refused = fix(&bench, &[&damaged, "--also", "decay", "--dry-run"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.errors.contains("--also: expected train or perturbed"), "{}", refused.errors);
}
