//! Tests of logs, shares and tables. They do not need a model.

use super::*;
use crate::cache::CacheDtype;
use crate::diagnose::findings::{Fitted, InSamplePlan, Loss};
use crate::evaluate::{Bound, Detection, Estimate};
use crate::train::{Keep, MethodArgs, MethodName, TrainOptions};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

fn entry(cell: &str, figures: CellFigures) -> LogEntry {
    LogEntry { cell: cell.into(), figures, seconds: 0.5 }
}

fn planned(cell: &str, settings: CellSettings) -> Planned {
    let model = ModelSettings { model: "m".into(), ..ModelSettings::default() };
    Planned { cell: cell.into(), model, settings, control: None, diagnosis: None }
}

fn exactly(mean: f64) -> Estimate {
    Estimate { mean, stderr: None }
}

/// Figures of other images.
fn ood(auroc: f64) -> CellFigures {
    let of = Detection { auroc: exactly(auroc), fpr95: exactly(0.25) };
    CellFigures::Ood(OodFigures { images: 4, ood_images: 2, probability: of, energy: of })
}

/// Settings of other images.
fn images(ood: &str) -> CellSettings {
    CellSettings::Ood(OodSettings { ood: ood.into(), ..OodSettings::default() })
}

/// Settings of PoL or SGD with learning rate 0.1.
fn on_layers(perturb: Option<&str>, update: &str) -> CellSettings {
    CellSettings::Run(Box::new(RunSettings {
        bench: "b".into(),
        method: perturb.map_or(MethodName::Sgd, |_| MethodName::Pol),
        of_method: MethodArgs {
            perturb: perturb.map(str::to_owned),
            update: Some(update.into()),
            ..MethodArgs::default()
        },
        train: TrainOptions { lr: 0.1, ..TrainOptions::default() },
        keep: Keep::Best,
        cache_dtype: CacheDtype::F32,
        train_seed: 3,
        images: ImageSettings::default(),
    }))
}

/// A run with these figures on V, and none on test.
fn trained(nll: f64, top1: f64) -> CellFigures {
    let score = ModelScore {
        nll: exactly(nll),
        calibrated_nll: exactly(0.5),
        top1: exactly(top1),
        ece: exactly(0.25),
        calibrated_ece: exactly(0.125),
        brier: None,
        temperature: 1.5,
        temperature_bound: Some(Bound::Flat),
    };
    let (before, after, gain) = (score.clone(), score, exactly(0.0));
    CellFigures::Run(Box::new(RunFigures {
        selected_epoch: 1,
        finished_epochs: 1,
        stopped: None,
        watched_images: 4,
        watched_loss_before: None,
        watched_loss_after: None,
        training_loss: Some(0.5),
        perturbation: None,
        perturbation_length: None,
        capped: None,
        rejected: None,
        val: Some(SplitFigures { before, after, nll_gain: gain, calibrated_nll_gain: gain }),
        test: None,
    }))
}

/// A diagnosis in which these layers have this κ.
fn kappas(layers: &[(&str, f64)], plan_in_sample: InSamplePlan) -> CellFigures {
    let none = Fitted { in_sample: None, cross_fit: None, stderr: None };
    let layer = |(name, kappa): &(&str, f64)| LayerFigures {
        layer: (*name).into(),
        delta_l: none,
        delta_l_calibrated: none,
        kappa: Fitted { cross_fit: Some(*kappa), ..none },
        raw: None,
        eligible: false,
        displacement: 0.5,
        gradient_norm: 1.0,
        weight_norm: 2.0,
        parameters: 8,
    };
    let loss = Loss {
        validation: 0.5,
        stderr: None,
        calibrated: 0.5,
        temperature: 1.0,
        temperatures_of_folds: None,
        temperature_bound: None,
        training: None,
        training_images: None,
    };
    let (layers, plan_in_sample) = (layers.iter().map(layer).collect(), Some(plan_in_sample));
    let basis = crate::diagnose::Basis::Calibrated;
    CellFigures::Diagnosis(DiagnosisFigures { basis, layers, loss, plan: None, plan_in_sample })
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
    let kept = log.add(&entry("a", trained(1.0 / 3.0, 0.5))).unwrap().clone();
    // A second process gets an error; reading needs no lock.
    let second = Log::open(folder.path()).unwrap_err();
    assert!(matches!(second, Error::Locked { .. }), "{second}");
    assert_eq!(read_log(folder.path()).unwrap()["a"], kept);
    log.add(&entry("b", ood(0.75))).unwrap();
    drop(log);
    let whole = fs::read(&path).unwrap();
    for cut in 1..whole.len() {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        assert!(log.get("b").is_none());
        let first_cut = whole.iter().position(|&b| b == b'\n').unwrap() < whole.len() - cut;
        assert_eq!(log.get("a").is_some(), first_cut);
        if first_cut {
            log.add(&entry("b", ood(0.75))).unwrap();
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
    log.add(&entry("a", ood(number))).unwrap();
    drop(log);
    assert_eq!(read_log(folder.path()).unwrap()["a"], entry("a", ood(number)));
}

#[test]
fn errors_name_invalid_and_conflicting_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(CELLS);
    let good = serde_json::to_string(&entry("a", ood(0.75))).unwrap();
    let open_error = |text: String| {
        fs::write(&path, text).unwrap();
        Log::open(folder.path()).unwrap_err().to_string()
    };
    for bad in ["{}", "x", r#"{"cell":"a","figures":{"walk":{}},"seconds":1}"#, ""] {
        let message = open_error(format!("{good}\n{bad}\n"));
        assert!(message.contains("line 2") && message.contains("delete that line"), "{message}");
    }
    let message = open_error(format!("{good}\n{}\n", good.replacen("0.75", "0.5", 1)));
    let found = "cell a: probability.auroc.mean is 0.75 in";
    assert!(message.contains(found) && message.contains("and 0.5 in"), "{message}");
    // Different run times are not a conflict.
    fs::write(&path, format!("{good}\n{}\n", good.replace("s\":0.5}", "s\":7}"))).unwrap();
    assert_eq!(Log::open(folder.path()).unwrap().get("a").unwrap().seconds, 0.5);
}

#[test]
fn runs_are_joined_with_control_and_diagnosis() {
    let run = Planned {
        control: Some("c".into()),
        diagnosis: Some("d".into()),
        ..planned("r", on_layers(Some("head"), "norm"))
    };
    let control = planned("c", on_layers(None, "norm"));
    let cells = vec![planned("d", CellSettings::Diagnosis(ImageSettings::default())), control, run];
    let plan = StudyPlan { schema: SCHEMA.into(), shard: None, cells };
    let in_sample = InSamplePlan { perturb: "head".into(), update: "norm".into() };
    let entries = [
        entry("r", trained(0.5, 0.75)),
        entry("c", trained(0.625, 0.5)),
        entry("d", kappas(&[("head", 3.5), ("norm", 2.5)], in_sample)),
    ];
    let mut entries: HashMap<String, LogEntry> =
        entries.into_iter().map(|e| (e.cell.clone(), e)).collect();
    let [diagnosed, runs] = tables(&plan, &entries).unwrap().try_into().unwrap();
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
    assert_eq!((&row["lr"], &row["train_seed"]), (&0.1.into(), &3.into()));
    assert_eq!((&row["rho"], &row["val_after_temperature_bound"]), (&Value::Null, &"flat".into()));
    assert_eq!(runs.rows[0]["val_nll_gain_over_control"], Value::Null);
    assert_eq!(runs.rows[0].keys().next_back().unwrap(), "seconds");
    // Both rows have the same columns, and CSV has the same fields.
    assert!(runs.rows[0].keys().eq(runs.rows[1].keys()));
    let csv = String::from_utf8(runs.csv().unwrap()).unwrap();
    assert!(csv.lines().nth(1).unwrap().starts_with("c,m,"), "{csv}");
    // Without its control, a run still has its own metrics.
    entries.remove("c");
    let alone = &tables(&plan, &entries).unwrap()[1].rows[0];
    assert_eq!(alone["val_after_nll"], 0.5);
    assert_eq!(alone["control_val_after_nll"], Value::Null);
}

/// The rows that pages read, from the lines of a table.
fn read_rows<T: serde::de::DeserializeOwned>(table: &Table) -> Vec<T> {
    table.jsonl().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every column that a row reads must be one that [`tables`] writes; otherwise it would be `None`.
#[test]
fn rows_are_read_as_they_are_written() {
    let summary = |x: f64| {
        let json = json!({
            "images": 4, "nll": x, "nll_stderr": 0.5, "top1": 0.75, "top1_stderr": 0.25, "top5": 1.0,
            "ece": 0.125, "temperature": 1.5, "temperature_at_bound": false, "calibrated_nll": 0.5,
            "calibrated_nll_stderr": 0.25, "calibrated_ece": 0.0625,
        });
        let found: crate::evaluate::Summary = serde_json::from_value(json).unwrap();
        CellFigures::Evaluation(Box::new(found))
    };
    let shifted = CellSettings::Evaluation(EvaluationSettings {
        shift: "fog".into(),
        severity: 3,
        ..EvaluationSettings::default()
    });
    let detection = |x: f64| {
        let of = |mean: f64| Estimate { mean, stderr: Some(mean / 8.0) };
        Detection { auroc: of(x), fpr95: of(x / 2.0) }
    };
    let others = CellFigures::Ood(OodFigures {
        images: 4,
        ood_images: 2,
        probability: detection(0.75),
        energy: detection(0.5),
    });
    let fitted =
        |x: f64| Fitted { in_sample: Some(x), cross_fit: Some(x / 2.0), stderr: Some(x / 4.0) };
    let layer = |name: &str, x: f64| LayerFigures {
        layer: name.into(),
        delta_l: fitted(x),
        delta_l_calibrated: fitted(2.0 * x),
        kappa: fitted(4.0 * x),
        raw: None,
        eligible: true,
        displacement: 0.5,
        gradient_norm: 1.0,
        weight_norm: 2.0,
        parameters: 8,
    };
    let in_sample = InSamplePlan { perturb: "head".into(), update: "norm".into() };
    let CellFigures::Diagnosis(found) = kappas(&[], in_sample) else { unreachable!() };
    let diagnosis = CellFigures::Diagnosis(DiagnosisFigures {
        layers: vec![layer("head", 1.0), layer("norm", 3.0)],
        ..found
    });
    let on_test = |nll: f64| {
        let CellFigures::Run(run) = trained(nll, 0.5) else { unreachable!() };
        CellFigures::Run(Box::new(RunFigures { test: run.val.clone(), ..*run }))
    };
    let run = Planned {
        control: Some("c".into()),
        diagnosis: Some("d".into()),
        ..planned("r", on_layers(Some("head"), "norm"))
    };
    let mut cells = vec![
        planned("e", shifted),
        planned("o", images("far")),
        planned("d", CellSettings::Diagnosis(ImageSettings::default())),
        run,
    ];
    for cell in &mut cells {
        cell.model.attributes.insert("width".into(), Some(Attribute::Whole(64)));
        cell.model.attributes.insert("depth".into(), None);
        cell.model.checkpoint_digest = "d1".into();
        cell.model.parameters = 1000;
        cell.model.data = "grey".into();
        cell.model.source = "grey/".into();
    }
    let plan = StudyPlan { schema: SCHEMA.into(), shard: None, cells };
    let entries = [
        entry("e", summary(0.625)),
        entry("o", others),
        entry("d", diagnosis),
        entry("r", on_test(0.5)),
        entry("c", on_test(0.75)),
    ];
    let entries = entries.into_iter().map(|e| (e.cell.clone(), e)).collect();
    let [results, ood, layers, runs] = tables(&plan, &entries).unwrap().try_into().unwrap();
    let of = ModelRow {
        model: "m".into(),
        checkpoint_digest: "d1".into(),
        parameters: Some(1000),
        data: "grey".into(),
        source: "grey/".into(),
        attributes: [("width".to_owned(), Attribute::Whole(64))].into(),
    };
    let expected = EvaluationRow {
        of: of.clone(),
        shift: "fog".into(),
        severity: 3,
        nll: Some(0.625),
        nll_stderr: Some(0.5),
        top1: Some(0.75),
        top1_stderr: Some(0.25),
        ece: Some(0.125),
        ece_stderr: None,
    };
    assert_eq!(read_rows::<EvaluationRow>(&results), [expected]);
    let expected = OodRow {
        of: of.clone(),
        ood: "far".into(),
        ood_images: Some(2),
        auroc_probability: Some(0.75),
        auroc_probability_stderr: Some(0.09375),
        fpr95_probability: Some(0.375),
        fpr95_probability_stderr: Some(0.046875),
        auroc_energy: Some(0.5),
        auroc_energy_stderr: Some(0.0625),
        fpr95_energy: Some(0.25),
        fpr95_energy_stderr: Some(0.03125),
    };
    assert_eq!(read_rows::<OodRow>(&ood), [expected]);
    let expected = |layer: &str, x: f64| LayerRow {
        of: of.clone(),
        layer: layer.into(),
        delta_l_cross_fit: Some(x / 2.0),
        delta_l_stderr: Some(x / 4.0),
        delta_l_in_sample: Some(x),
        delta_l_calibrated_cross_fit: Some(x),
        delta_l_calibrated_stderr: Some(x / 2.0),
        kappa_cross_fit: Some(2.0 * x),
        kappa_stderr: Some(x),
        kappa_in_sample: Some(4.0 * x),
        displacement: Some(0.5),
        eligible: true,
    };
    assert_eq!(read_rows::<LayerRow>(&layers), [expected("head", 1.0), expected("norm", 3.0)]);
    let expected = RunRow {
        of,
        method: "pol".into(),
        perturb: Some("head".into()),
        update: Some("norm".into()),
        val_nll_gain_over_control: Some(0.25),
        val_calibrated_nll_gain_over_control: Some(0.0),
        test_nll_gain_over_control: Some(0.25),
        test_calibrated_nll_gain_over_control: Some(0.0),
        kappa_cross_fit_p: Some(2.0),
        kappa_in_sample_p: Some(4.0),
        delta_l_cross_fit_u: Some(1.5),
        delta_l_in_sample_u: Some(3.0),
    };
    assert_eq!(read_rows::<RunRow>(&runs), [expected]);
}

/// Tables of earlier versions lack some columns, and rows of one table may lack a value.
#[test]
fn missing_columns_and_nulls_are_empty() {
    let read = |row: Value| serde_json::from_value::<LayerRow>(row).unwrap();
    assert_eq!(read(json!({})), LayerRow::default());
    let nulls = json!({ "model": null, "layer": null, "eligible": null, "displacement": null, "model_x": null });
    assert_eq!(read(nulls), LayerRow::default());
    assert!(serde_json::from_value::<LayerRow>(json!({ "displacement": "far" })).is_err());
}

#[test]
fn all_rows_have_the_same_columns() {
    let mut cells = vec![planned("a", images("x")), planned("b", images("x,\"y\"\n"))];
    for (cell, size) in cells.iter_mut().zip([None, Some(Attribute::Whole(7))]) {
        cell.model.attributes.insert("size".into(), size);
    }
    let plan = StudyPlan { schema: SCHEMA.into(), shard: None, cells };
    let entries = ["a", "b"].map(|c| (c.to_owned(), entry(c, ood(0.5))));
    let [table] = tables(&plan, &entries.into_iter().collect()).unwrap().try_into().unwrap();
    let columns: Vec<&str> = table.rows[0].keys().map(String::as_str).collect();
    assert_eq!(columns[..3], ["cell", "model", "model_size"]);
    assert_eq!(columns.last(), Some(&"seconds"));
    assert!(table.rows[1].keys().eq(&columns));
    let csv = String::from_utf8(table.csv().unwrap()).unwrap();
    let lines = [columns.join(","), "a,m,,".into(), "b,m,7,".into()];
    for (line, start) in csv.lines().zip(lines) {
        assert!(line.starts_with(&start), "{csv}");
    }
    assert!(csv.contains(",\"x,\"\"y\"\"\n\",") && csv.contains(",0.5,,0.25,,"), "{csv}");
    assert_eq!(table.jsonl().lines().count(), 2);
}

#[test]
fn missing_cells_are_listed_by_position_and_shard() {
    let cell = |i: usize| planned(&format!("c{i}"), images("x"));
    let cells = (0..12).map(cell).collect();
    let plan = StudyPlan { schema: SCHEMA.into(), shard: None, cells };
    let entries_of = |which: &[usize]| -> HashMap<String, LogEntry> {
        let of = |i: &usize| (format!("c{i}"), entry(&format!("c{i}"), ood(0.5)));
        which.iter().map(of).collect()
    };
    let merged = |share: Option<&str>, which: &[usize]| MergedStudy {
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
    assert!(message.starts_with(places) && message.contains("`partial`"), "{message}");
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
