//! `planish study` and `planish study --merge` end to end.

use crate::common::{Bench, Output};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// Two checkpoints on one data set, clean and under four shifts, and one out-of-distribution set.
pub const STUDY: &str = r#"
shifts = ["corruptions:contrast,gaussian_noise:1,5"]
[[model]]
name = "one"
checkpoint = "model"
attributes = { width = 64, recipe = "SGD, plain" }
[[model]]
name = "two"
checkpoint = "second"
attributes = { width = 64.5, pretrained = "no" }
[[data]]
name = "grey"
source = "data"
[[ood]]
name = "far"
source = "far"
"#;

/// A folder with two checkpoints and a study of them.
fn prepared() -> Bench {
    let bench = Bench::with_model();
    bench.idx("far", 40);
    let (first, second) = (bench.model.clone(), bench.path("second"));
    let words =
        ["post-train", &first, "--data", &bench.data, "--method", "sgd", "--update", "head"];
    let rest =
        ["--out", &second, "--epochs", "1", "--batch-size", "8", "--lr", "0.1", "--write-worse"];
    let made = bench.run(&[&words[..], &rest, &["--remeasure", "0", "--quiet"]].concat());
    assert!(made.success, "{}", made.errors);
    fs::write(bench.path("s.toml"), STUDY).unwrap();
    bench
}

fn study(bench: &Bench, rest: &[&str]) -> Output {
    let out = bench.run(&[&["study", "s.toml"], rest].concat());
    assert!(out.success, "{}", out.errors);
    out
}

pub fn text(bench: &Bench, name: &str) -> String {
    fs::read_to_string(bench.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Lines of JSON, without the time.
fn rows(bench: &Bench, name: &str) -> Vec<Value> {
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().shift_remove("seconds").unwrap();
        row
    };
    text(bench, name).lines().map(row).collect()
}

fn cells(bench: &Bench, log: &str) -> Vec<String> {
    let cell = |row: &Value| row["cell"].as_str().unwrap().to_owned();
    rows(bench, log).iter().map(cell).collect()
}

#[test]
fn a_killed_study_resumes_and_an_edited_one_only_computes_new_cells() {
    let bench = prepared();
    let result = study(&bench, &[]);
    assert!(
        result.errors.contains(
            "12 cells: 10 evaluations, 2 out-of-distribution evaluations; 12 are missing"
        )
    );
    assert!(result.output.contains("all 12 cells present"), "{}", result.output);
    let whole = rows(&bench, "s/results.jsonl");
    assert_eq!((whole.len(), rows(&bench, "s/ood.jsonl").len()), (10, 2));
    let shown = bench.plain(&["report", "s/ood.jsonl", "--html", "ood.html"]);
    assert!(shown.success && text(&bench, "ood.html").contains("<td>far</td>"), "{}", shown.errors);

    // The figures are those of `eval`.
    let json = bench.path("eval.json");
    let eval = ["eval", "second", "--data", "data", "--json", &json, "--ood", "far=far"];
    assert!(bench.run(&[&eval[..], &["--shift", "corruptions:contrast:5"]].concat()).success);
    let eval = bench.json("eval.json");
    let second = |shift: &str, severity: u64| {
        let same =
            |r: &&Value| r["model"] == "two" && r["shift"] == shift && r["severity"] == severity;
        whole.iter().find(same).unwrap().clone()
    };
    let (clean, shifted) = (second("none", 0), second("contrast", 5));
    for (row, figures) in
        [(&clean, &eval["figures"]), (&shifted, &eval["shifts"]["cells"][0]["figures"])]
    {
        for figure in ["nll", "nll_stderr", "top1", "ece", "calibrated_nll", "aurc_stderr"] {
            assert_eq!(row[figure], figures[figure], "{figure}");
        }
    }
    let other = &rows(&bench, "s/ood.jsonl")[1];
    assert_eq!(other["auroc_energy"], eval["others"][0]["energy"]["auroc"]["mean"]);

    // A run killed while writing its eighth line leaves seven cells.
    let log = text(&bench, "s/cells.jsonl");
    let seven: usize = log.split_inclusive('\n').take(7).map(str::len).sum();
    fs::write(bench.path("s/cells.jsonl"), &log[..seven + 30]).unwrap();
    let result = study(&bench, &[]);
    assert!(result.errors.contains("5 are missing"), "{}", result.errors);
    assert_eq!(rows(&bench, "s/cells.jsonl"), {
        let line = |l: &str| serde_json::from_str::<Value>(l).unwrap();
        let all: Vec<Value> = log.lines().map(line).collect();
        all.into_iter()
            .map(|mut r| {
                r.as_object_mut().unwrap().shift_remove("seconds");
                r
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(rows(&bench, "s/results.jsonl"), whole);

    // Another severity adds two cells; a new name adds none.
    let edited = STUDY.replace(":1,5", ":1,3,5").replace("\"grey\"", "\"fashion\"");
    let edited = edited.replace("contrast,", "");
    fs::write(bench.path("s.toml"), edited).unwrap();
    assert!(
        study(&bench, &[])
            .errors
            .contains("10 cells: 8 evaluations, 2 out-of-distribution evaluations; 2 are")
    );
    let rows = rows(&bench, "s/results.jsonl");
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|r| r["data"] == "fashion" && r["shift"] != "contrast"));
    let kept = |r: &&Value| r["severity"] == 5 && r["model"] == "one";
    assert_eq!(rows.iter().find(kept).unwrap()["nll"], whole[2]["nll"]);
    assert!(study(&bench, &["--dry-run"]).output.contains("0 are missing"));
}

#[test]
fn cells_of_an_earlier_version_are_named_and_recomputed() {
    let bench = prepared();
    study(&bench, &[]);
    let plan = text(&bench, "s/study.json").replace("planish/study/3", "planish/study/2");
    fs::write(bench.path("s/study.json"), plan).unwrap();
    let earlier = "{\"cell\":\"0\",\"kind\":\"ood\",\"figures\":{\"images\":4},\"seconds\":1.0}\n";
    fs::write(bench.path("s/cells.jsonl"), earlier).unwrap();
    let forecast = study(&bench, &["--dry-run"]);
    assert!(forecast.output.contains("12 are missing"), "{}", forecast.output);
    bench.plain(&["study", "--merge", "s", "s", "s"]).fails_with(&[
        "s/study.json",
        "planish/study/3",
        "planish/study/2",
    ]);
    let again = study(&bench, &[]);
    let old = "s/cells-of-schema-2.jsonl";
    assert!(
        again.errors.contains(old) && again.errors.contains("12 are missing"),
        "{}",
        again.errors
    );
    assert_eq!(text(&bench, old), earlier);
    assert_eq!(rows(&bench, "s/cells.jsonl").len(), 12);
}

#[test]
fn an_edited_checkpoint_only_invalidates_its_cells() {
    let bench = prepared();
    study(&bench, &[]);
    let before = rows(&bench, "s/results.jsonl");
    let path = bench.path("second/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    // The last value of the file, changed by one bit of its mantissa.
    let at = bytes.len() - 2;
    bytes[at] ^= 0x40;
    fs::write(&path, bytes).unwrap();
    let result = study(&bench, &[]);
    assert!(result.errors.contains("6 are missing"), "{}", result.errors);
    let after = rows(&bench, "s/results.jsonl");
    assert_eq!(before[..5], after[..5]);
    assert!(before[5..].iter().zip(&after[5..]).all(|(a, b)| a["cell"] != b["cell"]));
    assert!(before[5..].iter().zip(&after[5..]).all(|(a, b)| a["nll"] != b["nll"]));
    // The same if the images change.
    let images = bench.path("data/t10k-images-idx3-ubyte");
    let mut bytes = fs::read(&images).unwrap();
    bytes[500] ^= 1;
    fs::write(images, bytes).unwrap();
    assert!(study(&bench, &[]).errors.contains("12 are missing"));
}

#[test]
fn merged_shards_equal_the_unsharded_study() {
    let bench = prepared();
    study(&bench, &["--out", "whole"]);
    let mut all = BTreeSet::new();
    for i in 1..=5 {
        let (shard, out) = (format!("{i}/5"), format!("part{i}"));
        study(&bench, &["--shard", &shard, "--out", &out]);
        let shard_cells = cells(&bench, &format!("{out}/cells.jsonl"));
        assert!((2..=3).contains(&shard_cells.len()), "{shard_cells:?}");
        assert!(shard_cells.into_iter().all(|cell| all.insert(cell)), "a cell is in two parts");
    }
    let four =
        [&["study", "--merge", "merged"], &["part1", "part2", "part3", "part4"][..]].concat();
    let fifth: &[&str] = &["3 of 12 cells", "10 to 12 (shard 5/5)", "--partial", "planish study"];
    bench.plain(&four).fails_with(fifth);
    assert!(!fs::exists(bench.path("merged/cells.jsonl")).unwrap());
    let result = bench.plain(&[&four[..], &["--partial"]].concat());
    assert!(
        result.success && result.output.contains("3 missing"),
        "{}{}",
        result.output,
        result.errors
    );
    let result = bench.plain(&["study", "--merge", "merged", "part5", "part2"]);
    assert!(result.success && result.output.contains("all 12 cells present"), "{}", result.errors);
    for table in ["results", "ood"] {
        let name = |folder: &str, end: &str| format!("{folder}/{table}.{end}");
        assert_eq!(rows(&bench, &name("merged", "jsonl")), rows(&bench, &name("whole", "jsonl")));
        let csv = |folder: &str| -> Vec<String> {
            let without = |line: &str| line.rsplit_once(',').unwrap().0.to_owned();
            text(&bench, &name(folder, "csv")).lines().map(without).collect()
        };
        assert_eq!(csv("merged"), csv("whole"));
    }
    assert_eq!(text(&bench, "merged/study.json"), text(&bench, "whole/study.json"));
    assert_eq!(rows(&bench, "merged/cells.jsonl"), rows(&bench, "whole/cells.jsonl"));

    // Two shards that disagree are both named.
    let log = text(&bench, "part2/cells.jsonl");
    let (line, rest) = log.split_once('\n').unwrap();
    let mut cell: Value = serde_json::from_str(line).unwrap();
    cell["figures"]["evaluation"]["nll"] = 9.0.into();
    fs::write(bench.path("part2/cells.jsonl"), format!("{cell}\n{rest}")).unwrap();
    let conflict = bench.plain(&["study", "--merge", "merged", "part1", "part2"]);
    let digest = cell["cell"].as_str().unwrap();
    conflict.fails_with(&[digest, "nll is 9.0 in part2", "merged/cells.jsonl", "delete its line"]);
    fs::write(bench.path("part2/cells.jsonl"), format!("{cell}x\n{rest}")).unwrap();
    bench
        .plain(&["study", "--merge", "new", "part2"])
        .fails_with(&["part2/cells.jsonl, line 1", "expected"]);
    // The same for shards of two studies.
    fs::write(bench.path("s.toml"), STUDY.replace("1,5", "2")).unwrap();
    study(&bench, &["--out", "another", "--shard", "1/9"]);
    bench.plain(&["study", "--merge", "new", "part1", "another"]).fails_with(&[
        "part1/study.json",
        "another/study.json",
        "different studies",
        "cell 2 differs",
    ]);
    for (folder, found) in
        [("nowhere", "nothing"), ("data", "without study.json"), ("s.toml", "a file")]
    {
        let result = bench.plain(&["study", "--merge", "new", folder]);
        result.fails_with(&[&format!("{folder}: expected a study folder"), found]);
    }
}

#[test]
fn a_shard_has_its_own_default_folder() {
    let bench = prepared();
    study(&bench, &["--shard", "2/12"]);
    assert!(!fs::exists(bench.path("s")).unwrap());
    assert_eq!(cells(&bench, "s-2-of-12/cells.jsonl").len(), 1);
    let named = STUDY.replacen("shifts", "out = \"of/it\"\nshifts", 1);
    fs::write(bench.path("s.toml"), named).unwrap();
    study(&bench, &["--shard", "2/12"]);
    assert_eq!(cells(&bench, "of/it-2-of-12/cells.jsonl").len(), 1);
}

#[test]
fn tables_round_trip_with_columns_and_types() {
    let bench = prepared();
    study(&bench, &[]);
    let json = rows(&bench, "s/results.jsonl");
    let mut csv = csv::Reader::from_path(bench.path("s/results.csv")).unwrap();
    let headers = csv.headers().unwrap().clone();
    let names: Vec<&str> = headers.iter().collect();
    assert_eq!(names.last(), Some(&"seconds"));
    let keys: Vec<&String> = json[0].as_object().unwrap().keys().collect();
    assert_eq!(names[..names.len() - 1], keys);
    for (row, json) in csv.records().zip(&json) {
        for (name, field) in headers.iter().zip(&row.unwrap()).take(names.len() - 1) {
            match &json[name] {
                Value::Null => assert_eq!(field, ""),
                Value::String(text) => assert_eq!(field, text),
                Value::Bool(flag) => assert_eq!(field.parse::<bool>().unwrap(), *flag),
                other => assert_eq!(field.parse::<f64>().unwrap(), other.as_f64().unwrap()),
            }
        }
    }
    let (one, two) = (&json[0], &json[5]);
    assert_eq!((&one["model_width"], &two["model_width"]), (&64.0.into(), &64.5.into()));
    assert_eq!((&one["model_recipe"], &two["model_recipe"]), (&"SGD, plain".into(), &Value::Null));
    assert_eq!((&one["model_pretrained"], &two["model_pretrained"]), (&Value::Null, &"no".into()));
    for figure in ["nll", "top1", "top5", "ece", "brier", "calibrated_ece", "entropy", "aurc"] {
        assert!(
            names.contains(&figure) && names.contains(&&*format!("{figure}_stderr")),
            "{figure}"
        );
    }
}
