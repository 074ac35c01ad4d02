//! Another program gets the reports of the commands from the library.

#[allow(dead_code)]
mod common;

use common::Bench;
use planish::prelude::*;
use planish::remedies::Remedy;
use planish::report::Evaluation;
use planish::report::diagnosis::DiagnosisReport;
use planish::run::RunInfo;
use serde::Serialize;
use serde_json::Value;

/// The report that a command writes, without what differs between two runs.
fn of_command(bench: &Bench, words: &[&str]) -> Value {
    let json = bench.path("report.json");
    let shared = [&bench.model, "--data", &bench.data, "--json", &json, "--seed", "3"];
    let out = bench.run(&[&words[..1], &shared, &words[1..]].concat());
    assert!(out.success, "{}", out.errors);
    without_run(bench.json("report.json"))
}

fn without_run(mut report: Value) -> Value {
    let run = report.as_object_mut().unwrap().remove("run");
    assert!(run.is_some());
    report
}

/// A report as it would be read from a file.
fn as_read(report: &impl Serialize) -> Value {
    without_run(serde_json::from_str(&serde_json::to_string(report).unwrap()).unwrap())
}

fn opened(bench: &Bench) -> (Checkpoint, DataOptions) {
    let checkpoint = Checkpoint::open(bench.model.as_ref(), &Load::default()).unwrap();
    (checkpoint, DataOptions { data: vec![bench.data.clone()], ..DataOptions::default() })
}

#[test]
fn a_diagnosis_has_the_report_of_the_command() {
    let bench = Bench::with_model();
    let words =
        ["diagnose", "--samples", "16", "--convergence", "--spectrum", "--remedies", "decay"];
    let expected = of_command(&bench, &words);
    let options = DiagnoseOptions {
        samples: Some(16),
        convergence: true,
        spectrum: true,
        remedies: vec![Remedy::Decay],
        ..DiagnoseOptions::default()
    };
    let (checkpoint, data) = opened(&bench);
    let context = Context::silent(3);
    let clock = RunInfo::start("library".into(), context.seed, context.engine);
    let limit = Limit::default();
    let session = DiagnoseSession::prepare(&options, checkpoint, &data, limit, &context).unwrap();
    let found = session.run(&context).unwrap();
    let report = DiagnosisReport::new(clock.finish(), &session, found);
    assert!(report.remedies.is_some() && report.convergence.len() == 2);
    assert_eq!(as_read(&report), expected);
}

#[test]
fn an_evaluation_has_the_report_of_the_command() {
    let bench = Bench::with_model();
    let (ood, shift) = (format!("same={}", bench.data), "corruptions:fog,contrast:2");
    let expected = of_command(&bench, &["eval", "--shift", shift, "--ood", &ood]);
    let options = EvaluateOptions {
        shift: Some(shift.parse().unwrap()),
        ood: vec![("same".into(), bench.data.clone())],
        ..EvaluateOptions::default()
    };
    let (checkpoint, data) = opened(&bench);
    let context = Context::silent(3);
    let clock = RunInfo::start("library".into(), context.seed, context.engine);
    let session = EvaluateSession::prepare(&options, checkpoint, &data).unwrap();
    let found = session.run(&context).unwrap();
    let mut report = Evaluation::new(clock.finish(), &session, &found);
    report.add_shifts(&session, &found, None, &context, &mut |_| Ok(())).unwrap();
    assert_eq!(report.shifts.as_ref().unwrap().cells.len(), 2);
    assert_eq!(as_read(&report), expected);
}
