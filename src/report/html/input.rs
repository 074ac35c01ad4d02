//! Reads results from files.

use crate::report::{
    CALIBRATION, CalibrationReport, EVALUATION, Evaluation, FINETUNING, FIXING, Finetuning, Fixing,
    MERGING, Merging, bench, comparison, diagnosis, post_training,
};
use crate::run::RunInfo;
use crate::study::{EvaluationRow, LayerRow, ModelRow, OodRow, RunRow};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A report or a study's table that the page can show.
#[derive(Debug)]
pub enum Report {
    /// Of `diagnose`.
    Diagnosis(Box<diagnosis::DiagnosisReport>),
    /// Of `post-train`.
    PostTraining(Box<post_training::PostTrainReport>),
    /// Of `bench`.
    Bench(Box<bench::BenchReport>),
    /// Of `eval`.
    Evaluation(Box<Evaluation>),
    /// Of `calibrate`.
    Calibration(Box<CalibrationReport>),
    /// Of `merge`.
    Merging(Box<Merging>),
    /// Of `fix`.
    Fixing(Box<Fixing>),
    /// Of `compare`.
    Comparison(Box<comparison::ComparisonReport>),
    /// Of `finetune`.
    Finetuning(Box<Finetuning>),
    /// `results.jsonl` of `study`.
    Study(Vec<EvaluationRow>),
    /// `runs.jsonl` of `study`.
    Runs(Vec<RunRow>),
    /// `layers.jsonl` of `study`.
    Layers(Vec<LayerRow>),
    /// `ood.jsonl` of `study`.
    Ood(Vec<OodRow>),
}

/// A result and its file.
#[derive(Debug)]
pub struct Input {
    /// The file's name without its folder.
    pub name: String,
    /// What is in it.
    pub report: Report,
}

/// Errors from reading a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; pass the `json` report of a command", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not a result, or its kind or version is not supported.
    #[error(
        "{}: expected a result of schema {expected}, found {found}; {remedy}", .path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Supported schemas.
        expected: String,
        /// What the file contains.
        found: String,
        /// Suggested remedy.
        remedy: &'static str,
    },
}

/// Reads a study's table. A column that no other table has identifies its kind.
fn rows(path: &Path, bytes: &[u8]) -> Result<Input, Error> {
    let other = |found: String| Error::Schema {
        path: path.into(),
        expected: "a table of `planish study`: results, runs, layers or ood, each .jsonl".into(),
        found,
        remedy: "pass an unmodified table of a study",
    };
    let invalid =
        |line: usize, e: serde_json::Error| other(format!("an invalid row in line {line} ({e})"));
    let lines = bytes.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let row = |(i, line): (usize, &[u8])| match serde_json::from_slice::<Map<String, Value>>(line) {
        Ok(row) => Ok((i + 1, row)),
        Err(e) => Err(invalid(i + 1, e)),
    };
    let rows = lines.map(row).collect::<Result<Rows, _>>()?;
    let has =
        |column: &str| !rows.is_empty() && rows.iter().all(|(_, row)| row.contains_key(column));
    let report = if has("shift") {
        typed_rows(rows).map(Report::Study)
    } else if has("train_seed") {
        typed_rows(rows).map(Report::Runs)
    } else if has("layer") {
        typed_rows(rows).map(Report::Layers)
    } else if has("ood") {
        typed_rows(rows).map(Report::Ood)
    } else {
        return Err(other("none of them".into()));
    };
    let report = report.map_err(|(line, e)| invalid(line, e))?;
    Ok(Input { name: name(path), report })
}

/// Rows with the numbers of their lines.
type Rows = Vec<(usize, Map<String, Value>)>;

/// The rows as their type, or the line of the first that is not.
fn typed_rows<T: DeserializeOwned>(rows: Rows) -> Result<Vec<T>, (usize, serde_json::Error)> {
    let one = |(line, row)| serde_json::from_value(Value::Object(row)).map_err(|e| (line, e));
    rows.into_iter().map(one).collect()
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Supported schemas.
const SCHEMAS: [&str; 9] = [
    diagnosis::SCHEMA,
    post_training::SCHEMA,
    bench::SCHEMA,
    EVALUATION,
    CALIBRATION,
    MERGING,
    FIXING,
    comparison::SCHEMA,
    FINETUNING,
];

/// Reads a result of any kind.
///
/// # Errors
/// [`Error`].
pub fn read(path: &Path) -> Result<Input, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    if path.extension().is_some_and(|end| end == "jsonl") {
        return rows(path, &bytes);
    }
    let other = |expected: &str, found: String, remedy| Error::Schema {
        path: path.into(),
        expected: expected.into(),
        found,
        remedy,
    };
    let all = SCHEMAS.join(", ");
    let json = "pass the `json` report of diagnose, post-train, bench, eval, calibrate, merge, \
                fix, compare or finetune";
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| other(&all, format!("invalid JSON ({e})"), json))?;
    let schema = value["schema"].as_str().unwrap_or("none").to_owned();
    let Some(known) = SCHEMAS.into_iter().find(|s| *s == schema) else {
        let kind = |s: &str| s.rsplit_once('/').map(|(kind, _)| kind.to_owned());
        let sibling = SCHEMAS.into_iter().find(|s| kind(s) == kind(&schema));
        return Err(match sibling {
            Some(ours) => {
                other(ours, schema, "create it again, or use the version of planish that wrote it")
            }
            None => other(&all, schema, json),
        });
    };
    let damaged = |e: serde_json::Error| {
        other(known, format!("that schema with unexpected contents ({e})"), "create it again")
    };
    let report = match known {
        diagnosis::SCHEMA => Report::Diagnosis(typed(value).map_err(damaged)?),
        post_training::SCHEMA => Report::PostTraining(typed(value).map_err(damaged)?),
        bench::SCHEMA => Report::Bench(typed(value).map_err(damaged)?),
        EVALUATION => Report::Evaluation(typed(value).map_err(damaged)?),
        CALIBRATION => Report::Calibration(typed(value).map_err(damaged)?),
        MERGING => Report::Merging(typed(value).map_err(damaged)?),
        FIXING => Report::Fixing(typed(value).map_err(damaged)?),
        comparison::SCHEMA => Report::Comparison(typed(value).map_err(damaged)?),
        _ => Report::Finetuning(typed(value).map_err(damaged)?),
    };
    Ok(Input { name: name(path), report })
}

fn typed<T: DeserializeOwned>(value: Value) -> serde_json::Result<Box<T>> {
    serde_json::from_value(value).map(Box::new)
}

impl Input {
    /// The model of each row of a study's table.
    pub fn models(&self) -> Option<Vec<&ModelRow>> {
        Some(match &self.report {
            Report::Study(rows) => rows.iter().map(|row| &row.of).collect(),
            Report::Runs(rows) => rows.iter().map(|row| &row.of).collect(),
            Report::Layers(rows) => rows.iter().map(|row| &row.of).collect(),
            Report::Ood(rows) => rows.iter().map(|row| &row.of).collect(),
            _ => return None,
        })
    }

    /// Provenance of the result; `None` for a study's table.
    pub fn run(&self) -> Option<&RunInfo> {
        Some(match &self.report {
            Report::Diagnosis(r) => &r.run.run,
            Report::PostTraining(r) => &r.run.run,
            Report::Bench(r) => &r.run.run,
            Report::Evaluation(r) => &r.run,
            Report::Calibration(r) => &r.run,
            Report::Merging(r) => &r.run,
            Report::Fixing(r) => &r.run.run,
            Report::Comparison(r) => &r.run,
            Report::Finetuning(r) => &r.run,
            Report::Study(_) | Report::Runs(_) | Report::Layers(_) | Report::Ood(_) => return None,
        })
    }
}
