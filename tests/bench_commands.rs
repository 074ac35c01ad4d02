//! A bench from Rust: runs in one process give the figures of `planish bench`, which starts a process for
//! each.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use planish::bench::{BenchMethod, BenchOptions, BenchSession, InProcess};
use planish::post_train::Preview;
use planish::prelude::*;
use planish::train::{LoraOptions, MethodArgs, MethodName};
use serde_json::to_value;

#[test]
fn runs_in_one_process_have_the_same_figures() {
    let bench = Bench::with_model();
    let (cache, json) = (bench.path("cache"), bench.path("bench.json"));
    let words = [
        "bench",
        &bench.model,
        "--data",
        &bench.data,
        "--methods",
        "pol-head,sam",
        "--seeds",
        "2",
        "--epochs",
        "2",
        "--batch-size",
        "8",
        "--samples",
        "12",
        "--perturb-batch",
        "8",
        "--cache-dir",
        &cache,
        "--json",
        &json,
        "--quiet",
    ];
    let run = bench.run(&words);
    assert!(run.success, "{}", run.errors);
    let report = bench.json("bench.json");

    let sam = BenchMethod { method: MethodName::Sam, perturbs_head: false };
    let mut options = BenchOptions {
        methods: Some(vec![BenchMethod::POL_HEAD, sam]),
        seeds: 2,
        samples: Some(12),
        of_methods: MethodArgs { perturb_batch: Some(8), ..MethodArgs::default() },
        train: TrainArgs { epochs: Some(2), batch_size: Some(8), ..TrainArgs::default() },
        ..BenchOptions::default()
    };
    options.cache.cache_dir = Some(cache.into());
    let checkpoint = Checkpoint::open(bench.model.as_ref(), &Load::default()).unwrap();
    let data = DataOptions { data: vec![bench.data.clone()], ..DataOptions::default() };
    let (runner, context) = (InProcess::new(&checkpoint, &data), Context::silent(0));
    let prepare = |preview| {
        BenchSession::prepare(&options, &checkpoint, &data, &runner, preview, &context).unwrap()
    };
    let found = prepare(Preview::None).run(&context).unwrap();
    assert_eq!(to_value(&found.rows).unwrap(), report["rows"]);
    assert_eq!(to_value(&found.verdicts).unwrap(), report["verdicts"]);
    assert_eq!(to_value(&found.plan).unwrap(), report["plan"]);
    assert_eq!(found.rows.len(), 1 + 4);
    assert!(found.rows.iter().any(|row| row.answers.is_some() && !row.layers.is_empty()));

    // Gains over the untouched model are differences of the rows' means.
    let untouched = &found.rows[0];
    for row in &found.rows[1..] {
        let (answers, zero) = (row.answers.as_ref().unwrap(), row.epoch_zero.as_ref().unwrap());
        for (gain, expected) in [
            (answers.nll, untouched.nll.mean - row.nll.mean),
            (answers.calibrated_nll, untouched.calibrated_nll.mean - row.calibrated_nll.mean),
            (answers.top1, row.top1.mean - untouched.top1.mean),
        ] {
            assert!((gain.mean - expected).abs() < 1e-12, "{}: {gain:?} {expected}", row.name);
            let [low, high] = gain.interval.unwrap();
            assert!(low <= gain.mean && gain.mean <= high && gain.verdict.is_none());
        }
        assert_eq!(answers.nll_over_control.is_some(), row.control.is_some());
        assert!(zero.kept <= 2);
        if zero.kept == 2 {
            assert_eq!(zero.answers.calibrated_nll.mean, 0.0);
            assert!((zero.nll.mean - untouched.nll.mean).abs() < 1e-12);
        }
    }
    let from_two = "no verdict from 2 seeds (Student's t is 12.7); use five";
    assert!(found.verdicts.iter().all(|verdict| verdict.ends_with(from_two)));
    assert!(run.output.contains("Does the perturbation matter?"), "{}", run.output);

    // A forecast has one part for the time so far, the diagnosis and each row.
    let expected = prepare(Preview::DryRun).outlook(1.0, &context).unwrap();
    assert_eq!(expected.parts.len(), 2 + 4);
    assert!(expected.parts.iter().all(|part| part.seconds > 0.0));
}

#[test]
fn sgd_is_the_control() {
    let bench = Bench::with_model();
    let words = ["bench", &bench.model, "--data", &bench.data, "--methods", "pol,sgd"];
    let done = bench.run(&words);
    assert_eq!(done.code, Some(2));
    assert!(done.errors.contains("sgd always runs, as the control"), "{}", done.errors);
    let done = bench.run(&[&words[..5], &["adam"]].concat());
    assert!(done.code == Some(2) && done.errors.contains("pol-head"), "{}", done.errors);
}

#[test]
fn adapters_in_one_process_have_the_same_figures() {
    let bench = Bench::with_model();
    let json = bench.path("bench.json");
    let words = ["bench", &bench.model, "--data", &bench.data, "--methods", "sgd", "--lora", "2"];
    let rest = ["--update", "block.1", "--seeds", "1", "--epochs", "1", "--remeasure", "0"];
    let run = bench.run(&[&words[..], &rest, &["--json", &json]].concat());
    assert!(run.success && run.errors.contains("bench: 2 rows of 1 seeds"), "{}", run.errors);
    let report = bench.json("bench.json");
    let sgd = BenchMethod { method: MethodName::Sgd, perturbs_head: false };
    let lora = LoraOptions { lora: Some(2), ..LoraOptions::default() };
    let options = BenchOptions {
        methods: Some(vec![sgd]),
        seeds: 1,
        of_methods: MethodArgs { update: Some("block.1".into()), lora, ..MethodArgs::default() },
        train: TrainArgs { epochs: Some(1), ..TrainArgs::default() },
        remeasure: Some(0),
        ..BenchOptions::default()
    };
    let checkpoint = Checkpoint::open(bench.model.as_ref(), &Load::default()).unwrap();
    let data = DataOptions { data: vec![bench.data.clone()], ..DataOptions::default() };
    let (runner, context) = (InProcess::new(&checkpoint, &data), Context::silent(0));
    let session =
        BenchSession::prepare(&options, &checkpoint, &data, &runner, Preview::None, &context);
    let found = session.unwrap().run(&context).unwrap();
    assert_eq!(to_value(&found.rows).unwrap(), report["rows"]);
    // The default batch is the whole training set.
    assert_eq!(
        (found.train.batch_size, &report["settings"]["train"]["batch_size"]),
        (40, &40.into())
    );
}
