//! A bench from Rust: runs in one process give the figures of `planish bench`, which starts a process for
//! each.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use planish::bench::{BenchMethod, BenchOptions, BenchSession, InProcess};
use planish::post_train::Preview;
use planish::prelude::*;
use planish::train::{MethodArgs, MethodName};
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
        methods: vec![BenchMethod::POL_HEAD, sam],
        seeds: 2,
        samples: Some(12),
        of_methods: MethodArgs { perturb_batch: Some(8), ..MethodArgs::default() },
        train: TrainOptions { epochs: 2, batch_size: 8, ..TrainOptions::default() },
        ..BenchOptions::default()
    };
    options.cache.cache_dir = Some(cache.into());
    let checkpoint = Checkpoint::open(bench.model.as_ref(), &Load::default()).unwrap();
    let data = DataOptions { data: bench.data.clone(), ..DataOptions::default() };
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

    // A forecast has one part for the time so far, the diagnosis and each row.
    let expected = prepare(Preview::DryRun).outlook(1.0, &context).unwrap();
    assert_eq!(expected.parts.len(), 2 + 4);
    assert!(expected.parts.iter().all(|part| part.seconds > 0.0));
}
