//! Everything needed to reproduce a result: commands, seeds, digests, versions, settings.

use super::input::{Input, Report};
use super::text::{escape, facts, folded};
use crate::checkpoint::CheckpointInfo;
use crate::data::DataInfo;
use crate::format::{count, duration};
use crate::study::ModelRow;
use crate::train::{Preset, TrainSettings};
use serde::Serialize;
use std::collections::BTreeSet;

/// One entry per result.
pub fn provenance(inputs: &[Input]) -> String {
    inputs.iter().map(one).collect()
}

fn one(input: &Input) -> String {
    let Some(run) = input.run() else { return of_rows(input) };
    let mut out = format!(
        "<h3>{}</h3>\n<pre>{}</pre>\n",
        escape(&format!("{} ({})", input.name, schema(input))),
        escape(&run.command)
    );
    let mut pairs = vec![
        ("planish", run.version.clone()),
        ("seed", run.seed.to_string()),
        ("started", format!("{} on {}", run.date, run.host)),
        ("took", duration(run.seconds)),
        ("threads, device", format!("{}, {}", run.threads, run.device)),
        ("peak memory", run.peak_mib.map_or(String::new(), |m| format!("{m} MiB"))),
    ];
    if let Report::Bench(r) = &input.report {
        // Each run has a process of its own.
        let peaks = r.run.costs.iter().filter_map(|cost| cost.peak_mib);
        let largest = peaks.map(|peak| peak.mean).max_by(f64::total_cmp);
        let text = |mib: f64| format!("{mib:.0} MiB, mean of the method that needs most");
        pairs.extend(largest.map(|mib| ("peak memory of a run", text(mib))));
    }
    if let Some(c) = checkpoint(input) {
        pairs.extend([
            ("checkpoint", format!("{}, digest {}", c.place(), c.digest)),
            (
                "architecture",
                format!(
                    "{} ({} layout), {} parameters",
                    c.architecture,
                    c.layout,
                    count(c.parameters as u64)
                ),
            ),
        ]);
    }
    pairs.extend(data(input).iter().map(|d| {
        let of = format!("{}: {} images of {}", d.split, count(d.images as u64), d.path);
        ("images", format!("{of} ({}), SHA-256 {}", d.origin, d.digest))
    }));
    out += &facts(&pairs);
    if let Some(text) = settings(input) {
        out += &folded("Settings", &format!("<pre>{}</pre>\n", escape(&text)));
    }
    out
}

/// The settings of a training run as JSON, as the report has them.
fn settings(input: &Input) -> Option<String> {
    #[derive(Serialize)]
    struct OfRun<'a> {
        #[serde(flatten)]
        train: &'a TrainSettings,
        #[serde(skip_serializing_if = "Option::is_none")]
        preset: Option<Preset>,
    }
    let text = match &input.report {
        Report::PostTraining(r) => {
            serde_json::to_string_pretty(&OfRun { train: &r.settings, preset: r.preset })
        }
        Report::Bench(r) => serde_json::to_string_pretty(&r.settings),
        Report::Finetuning(r) => serde_json::to_string_pretty(&r.settings),
        _ => return None,
    };
    text.ok()
}

/// Provenance of a study's table. Each row has its own digests.
fn of_rows(input: &Input) -> String {
    let Some(rows) = input.models() else { return String::new() };
    let distinct = |of: fn(&ModelRow) -> &str| {
        let found = rows.iter().map(|row| of(row)).filter(|text| !text.is_empty());
        found.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    let pairs = [
        ("rows", count(rows.len() as u64)),
        ("models", distinct(|row| &row.model)),
        ("checkpoints, digests", distinct(|row| &row.checkpoint_digest)),
        ("images", distinct(|row| &row.source)),
    ];
    format!("<h3>{}</h3>\n{}", escape(&input.name), facts(&pairs))
}

fn schema(input: &Input) -> &str {
    match &input.report {
        Report::Diagnosis(r) => &r.schema,
        Report::PostTraining(r) => &r.schema,
        Report::Bench(r) => &r.schema,
        Report::Evaluation(r) => &r.schema,
        Report::Calibration(r) => &r.schema,
        Report::Merging(r) => &r.schema,
        Report::Fixing(r) => &r.schema,
        Report::Comparison(r) => &r.schema,
        Report::Finetuning(r) => &r.schema,
        Report::Study(_) | Report::Runs(_) | Report::Layers(_) | Report::Ood(_) => {
            crate::study::SCHEMA
        }
    }
}

fn checkpoint(input: &Input) -> Option<&CheckpointInfo> {
    match &input.report {
        Report::Diagnosis(r) => Some(&r.checkpoint),
        Report::PostTraining(r) => Some(&r.checkpoint),
        Report::Bench(r) => Some(&r.checkpoint),
        Report::Evaluation(r) => Some(&r.checkpoint),
        Report::Calibration(r) => Some(&r.checkpoint),
        Report::Merging(r) => Some(&r.checkpoint),
        Report::Fixing(r) => Some(&r.checkpoint),
        _ => None,
    }
}

fn data(input: &Input) -> Vec<&DataInfo> {
    match &input.report {
        Report::Diagnosis(r) => vec![&r.data],
        Report::PostTraining(r) => {
            let judged = r.validation.iter().chain(&r.test).map(|part| &part.data);
            std::iter::once(&r.training).chain(judged).collect()
        }
        Report::Evaluation(r) => {
            std::iter::once(&r.data).chain(r.others.iter().map(|o| &o.data)).collect()
        }
        Report::Fixing(r) => {
            std::iter::once(&r.validation.data).chain(r.test.as_ref().map(|t| &t.data)).collect()
        }
        Report::Merging(r) => {
            std::iter::once(&r.validation.data).chain(r.test.as_ref().map(|t| &t.data)).collect()
        }
        Report::Calibration(r) => {
            std::iter::once(&r.validation.data).chain(r.test.as_ref().map(|t| &t.data)).collect()
        }
        Report::Finetuning(r) => r.data.iter().collect(),
        _ => Vec::new(),
    }
}
