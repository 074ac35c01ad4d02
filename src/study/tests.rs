//! Tests of logs, shares and tables. They do not need a model.

use super::*;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn entry(cell: &str, kind: Kind, figures: Value) -> Entry {
    Entry { cell: cell.into(), kind, figures: object(figures), seconds: 0.5 }
}

fn planned(cell: &str, kind: Kind, settings: Value) -> Planned {
    Planned { cell: cell.into(), kind, control: None, diagnosis: None, settings: object(settings) }
}

#[test]
fn shares_are_disjoint_and_complete() {
    for (cells, of) in [(0, 3), (1, 3), (16, 5), (7, 7), (1000, 16)] {
        let mut next = 0;
        for index in 1..=of {
            let range = format!("{index}/{of}").parse::<Share>().unwrap().range(cells);
            assert_eq!(range.start, next);
            assert!(range.len() == cells / of || range.len() == cells.div_ceil(of));
            next = range.end;
        }
        assert_eq!(next, cells);
    }
    assert_eq!(Share::default().range(9), 0..9);
    assert_eq!("3/16".parse::<Share>().unwrap().to_string(), "3/16");
    let refused = |text: &str| text.parse::<Share>().unwrap_err().contains("3/16");
    assert!(["0/2", "3/2", "1", "1/0", "-1/2", "a/b", ""].iter().all(|text| refused(text)));
    // The largest possible counts.
    let last = format!("{0}/{0}", usize::MAX).parse::<Share>().unwrap();
    assert_eq!(last.range(usize::MAX), usize::MAX - 1..usize::MAX);
}

#[test]
fn only_results_of_an_earlier_schema_are_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, log) = (folder.path().join(PLAN), folder.path().join(CELLS));
    assert_eq!(set_aside(folder.path()).unwrap(), None);
    fs::write(&log, "{}\n").unwrap();
    for (text, moved) in [
        (json!({ "schema": SCHEMA, "cells": [] }).to_string(), false),
        ("no JSON".to_owned(), false),
        (json!({ "schema": "another/1" }).to_string(), false),
        (json!({ "schema": "planish/study/1", "cells": [] }).to_string(), true),
    ] {
        fs::write(&plan, text).unwrap();
        let old = set_aside(folder.path()).unwrap();
        assert_eq!((old.is_some(), log.exists()), (moved, !moved));
    }
    let old = folder.path().join("cells-of-schema-1.jsonl");
    assert_eq!(fs::read_to_string(old).unwrap(), "{}\n");
}

#[test]
fn log_drops_an_incomplete_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(CELLS);
    let mut log = Log::open(folder.path()).unwrap();
    let third = json!({"nll": 1.0 / 3.0, "gone": null});
    let kept = log.add(&entry("a", Kind::Evaluation, third)).unwrap().clone();
    // A second process gets an error; reading needs no lock.
    let second = Log::open(folder.path()).unwrap_err();
    assert!(matches!(second, Error::Locked { .. }), "{second}");
    assert_eq!(read_log(folder.path()).unwrap()["a"], kept);
    log.add(&entry("b", Kind::Run, json!({"nll": 2}))).unwrap();
    drop(log);
    let whole = fs::read(&path).unwrap();
    for cut in 1..whole.len() {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        assert!(log.get("b").is_none());
        let first_cut = whole.iter().position(|&b| b == b'\n').unwrap() < whole.len() - cut;
        assert_eq!(log.get("a").is_some(), first_cut);
        if first_cut {
            log.add(&entry("b", Kind::Run, json!({"nll": 2}))).unwrap();
            drop(log);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }
}

/// Otherwise a merged log would contradict its parts.
#[test]
fn numbers_round_trip_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let number = 1.807_835_765_687_524_6e-7;
    let mut log = Log::open(folder.path()).unwrap();
    log.add(&entry("a", Kind::Run, json!({"x": number}))).unwrap();
    drop(log);
    let read = read_log(folder.path()).unwrap();
    assert_eq!(read["a"].figures["x"].as_f64().unwrap().to_bits(), f64::to_bits(number));
}

#[test]
fn errors_name_invalid_and_conflicting_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(CELLS);
    let good = r#"{"cell":"a","kind":"run","figures":{"x":1},"seconds":1}"#;
    let open_error = |text: String| {
        fs::write(&path, text).unwrap();
        Log::open(folder.path()).unwrap_err().to_string()
    };
    for bad in ["{}", "x", r#"{"cell":"a","kind":"walk","figures":{},"seconds":1}"#, ""] {
        let message = open_error(format!("{good}\n{bad}\n"));
        assert!(message.contains("line 2") && message.contains("delete that line"), "{message}");
    }
    let message = open_error(format!("{good}\n{}\n", good.replace(":1}", ":2}")));
    assert!(message.contains("cell a: x is 1 in") && message.contains("and 2 in"), "{message}");
    // Different run times are not a conflict.
    fs::write(&path, format!("{good}\n{}\n", good.replace("s\":1}", "s\":7}"))).unwrap();
    assert_eq!(Log::open(folder.path()).unwrap().get("a").unwrap().seconds, 1.0);
}

#[test]
fn runs_are_joined_with_control_and_diagnosis() {
    let settings = json!({"perturb": "head", "update": "norm", "lr": 0.1});
    let run = Planned {
        control: Some("c".into()),
        diagnosis: Some("d".into()),
        ..planned("r", Kind::Run, settings)
    };
    let control = planned("c", Kind::Run, json!({"perturb": null, "update": "norm", "lr": 0.1}));
    let cells = vec![planned("d", Kind::Diagnosis, json!({"model": "m"})), control, run];
    let plan = Plan { schema: SCHEMA.into(), shard: None, cells };
    let layers = json!({
        "layers": {"head": {"kappa_cross_fit": 3.5}, "norm": {"kappa_cross_fit": 2.5}},
        "plan": null,
        "plan_in_sample": {"perturb": "head", "update": "norm", "basis": "in_sample"},
    });
    let entries = [
        entry("r", Kind::Run, json!({"val_after_nll": 0.5, "val_after_top1": 0.75})),
        entry("c", Kind::Run, json!({"val_after_nll": 0.625, "val_after_top1": 0.5})),
        entry("d", Kind::Diagnosis, layers),
    ];
    let mut entries: HashMap<String, Entry> =
        entries.into_iter().map(|e| (e.cell.clone(), e)).collect();
    let [diagnosed, runs] = tables(&plan, &entries).try_into().unwrap();
    assert_eq!((diagnosed.name, diagnosed.rows.len(), runs.name), ("layers", 2, "runs"));
    assert_eq!(diagnosed.rows[1]["layer"], "norm");
    let named = |row: usize, column: &str| diagnosed.rows[row][column].as_bool();
    assert_eq!(named(0, "plan_in_sample_perturb"), Some(true));
    assert_eq!(named(1, "plan_in_sample_perturb"), Some(false));
    assert_eq!(named(1, "plan_in_sample_update"), Some(true));
    assert_eq!((named(0, "plan_perturb"), named(1, "plan_update")), (Some(false), Some(false)));
    let row = &runs.rows[1];
    assert_eq!(row["val_nll_gain_over_control"], 0.125);
    assert_eq!(row["val_top1_gain_over_control"], 0.25);
    assert_eq!(row["control_val_after_nll"], 0.625);
    assert_eq!((&row["kappa_cross_fit_p"], &row["kappa_cross_fit_u"]), (&3.5.into(), &2.5.into()));
    assert_eq!(runs.rows[0]["val_nll_gain_over_control"], Value::Null);
    assert_eq!(runs.rows[0].keys().next_back().unwrap(), "seconds");
    // Both rows have the same columns, and CSV has the same fields.
    assert!(runs.rows[0].keys().eq(runs.rows[1].keys()));
    let csv = String::from_utf8(runs.csv().unwrap()).unwrap();
    assert!(csv.lines().nth(1).unwrap().starts_with("c,,norm,0.1,0.625,0.5,"), "{csv}");
    // Without its control, a run still has its own metrics.
    entries.remove("c");
    let alone = &tables(&plan, &entries)[1].rows[0];
    assert_eq!(alone["val_after_nll"], 0.5);
    assert_eq!(alone["control_val_after_nll"], Value::Null);
}

#[test]
fn all_rows_have_the_same_columns() {
    let plan = Plan {
        schema: SCHEMA.into(),
        shard: None,
        cells: vec![
            planned("a", Kind::Ood, json!({"m": 1})),
            planned("b", Kind::Ood, json!({"m": 2, "n": "x,\"y\"\n"})),
        ],
    };
    let entries = ["a", "b"].map(|c| (c.to_owned(), entry(c, Kind::Ood, json!({"f": 0.5}))));
    let [table] = tables(&plan, &entries.into_iter().collect()).try_into().unwrap();
    assert!(table.rows[0].keys().eq(["cell", "m", "n", "f", "seconds"]));
    let csv = String::from_utf8(table.csv().unwrap()).unwrap();
    assert_eq!(csv, "cell,m,n,f,seconds\na,1,,0.5,0.5\nb,2,\"x,\"\"y\"\"\n\",0.5,0.5\n");
    assert_eq!(table.jsonl().lines().count(), 2);
}

#[test]
fn missing_cells_are_listed_by_position_and_shard() {
    let cell = |i: usize| planned(&format!("c{i}"), Kind::Ood, json!({}));
    let cells = (0..12).map(cell).collect();
    let plan = Plan { schema: SCHEMA.into(), shard: None, cells };
    let entries_of = |which: &[usize]| -> HashMap<String, Entry> {
        let of = |i: &usize| (format!("c{i}"), entry(&format!("c{i}"), Kind::Ood, json!({})));
        which.iter().map(of).collect()
    };
    let merged = |share: Option<&str>, which: &[usize]| Merged {
        plan: plan.clone(),
        entries: entries_of(which),
        share: share.map(|text| text.parse().unwrap()),
    };
    let all: Vec<usize> = (0..12).collect();
    assert!(merged(None, &all).whole().is_ok());
    // Of three shares, the second has cells 5 to 8.
    let message = merged(Some("1/3"), &[0, 1, 2, 3, 5, 8, 9, 10]).whole().unwrap_err().to_string();
    let places = "4 of 12 cells are in none of these folders: 5 (shard 2/3), 7 to 8 (shard 2/3), 12 \
                  (shard 3/3); ";
    assert!(message.starts_with(places) && message.contains("\"partial\""), "{message}");
    let message = merged(None, &[0, 1, 2, 3, 8, 9, 10]).whole().unwrap_err().to_string();
    assert!(message.contains("5 of 12 cells") && message.contains(": 5 to 8, 12;"), "{message}");
    // Two names of one cell count once.
    let mut twice = merged(None, &all[..11]);
    twice.plan.cells.push(cell(11));
    let message = twice.whole().unwrap_err().to_string();
    assert!(message.starts_with("1 of 12 cells") && message.contains(": 12;"), "{message}");
}

#[test]
fn each_share_has_its_own_folder_and_cells() {
    let folder = |text: &str| text.parse::<Share>().unwrap().folder(Path::new("runs/study"));
    assert_eq!(folder("3/16"), Path::new("runs/study-3-of-16"));
    assert_eq!(folder("1/1"), Path::new("runs/study"));
    let share: Share = "2/5".parse().unwrap();
    for i in 0..12 {
        let holder: Share = share.holding(i, 12).unwrap();
        assert!(holder.range(12).contains(&i));
    }
    assert_eq!(share.holding(12, 12), None);
}
