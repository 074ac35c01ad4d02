//! Summary: three sentences and a row of figures.

use super::headline::{Headline, final_figures, headline, method, refusal, refused};
use super::input::{Input, Report};
use super::text::{escape, note, paragraph};
use crate::bench::RowResult;
use crate::evaluate::{Estimate, Summary, Verdict};
use crate::format::{count, estimate, number, percent, share};
use crate::report::sentence::sentence;
use crate::report::unanswered_note;
use std::collections::BTreeSet;

/// The heading: what was done, model and images.
pub fn heading(inputs: &[Input]) -> String {
    let mut done: Vec<String> = Vec::new();
    for one in inputs.iter().filter_map(|input| what(&input.report)) {
        if !done.contains(&one) {
            done.push(one);
        }
    }
    let subject = subject(inputs);
    match done.len() {
        0 => subject,
        1..=3 => format!("{}: {subject}", done.join(", ")),
        n => format!("{}, and {} more: {subject}", done[..2].join(", "), n - 2),
    }
}

/// What made a report, so that headings tell pages apart.
fn what(report: &Report) -> Option<String> {
    Some(match report {
        Report::Diagnosis(_) => "diagnosis".into(),
        Report::Evaluation(_) => "evaluation".into(),
        Report::PostTraining(r) => method(r),
        Report::Calibration(r) => format!("calibration by {}", r.method.name()),
        Report::Merging(r) => format!("merge by {}", r.method.name()),
        Report::Fixing(_) => "fix".into(),
        Report::Finetuning(_) => "fine-tuning".into(),
        Report::Bench(r) => format!("bench of {} methods", r.rows.len()),
        _ => return None,
    })
}

/// Model and images.
fn subject(inputs: &[Input]) -> String {
    let named = inputs.iter().find_map(|input| match &input.report {
        Report::Diagnosis(r) => Some((&r.checkpoint, Some(&r.data))),
        Report::Evaluation(r) => Some((&r.checkpoint, Some(&r.data))),
        Report::PostTraining(r) => Some((&r.checkpoint, Some(&r.training))),
        Report::Calibration(r) => Some((&r.checkpoint, Some(&r.validation.data))),
        Report::Merging(r) => Some((&r.checkpoint, Some(&r.validation.data))),
        Report::Fixing(r) => Some((&r.checkpoint, Some(&r.validation.data))),
        Report::Bench(r) => Some((&r.checkpoint, None)),
        _ => None,
    });
    let mut models: Vec<&str> = inputs
        .iter()
        .filter_map(|input| match &input.report {
            Report::Diagnosis(r) => Some(short(&r.checkpoint.path)),
            Report::Evaluation(r) => Some(short(&r.checkpoint.path)),
            Report::PostTraining(r) => Some(short(&r.checkpoint.path)),
            Report::Calibration(r) => Some(short(&r.checkpoint.path)),
            Report::Merging(r) => Some(short(&r.checkpoint.path)),
            Report::Fixing(r) => Some(short(&r.checkpoint.path)),
            Report::Bench(r) => Some(short(&r.checkpoint.path)),
            _ => None,
        })
        .collect();
    models.sort_unstable();
    models.dedup();
    let others = match models.len().saturating_sub(1) {
        0 => String::new(),
        1 => " and another model".into(),
        n => format!(" and {n} other models"),
    };
    match named {
        Some((c, Some(data))) => format!("{}{others} on {}", short(&c.path), data.path),
        Some((c, None)) => short(&c.path).to_owned() + &others,
        None => inputs.first().map_or(String::new(), |input| match &input.report {
            Report::Comparison(r) => format!("{} compared with {}", r.b.path, r.a.path),
            Report::Finetuning(r) => r.checkpoint.clone(),
            Report::Study(_) => format!("a study of {}", model_count(input)),
            Report::Layers(_) => format!("the layers of {}", model_count(input)),
            Report::Ood(_) => format!("out-of-distribution images, {}", model_count(input)),
            Report::Runs(rows) => format!("{} training runs", count(rows.len() as u64)),
            _ => input.name.clone(),
        }),
    }
}

/// The number of models of a study's table as text.
fn model_count(input: &Input) -> String {
    let rows = input.models().unwrap_or_default();
    match rows.iter().map(|row| &row.model).collect::<BTreeSet<_>>().len() {
        1 => "one model".into(),
        n => format!("{n} models"),
    }
}

/// A checkpoint in a folder is named after the folder.
fn short(path: &str) -> &str {
    path.strip_suffix("/model.safetensors").unwrap_or(path)
}

/// Quality of the model, layers that overfit, effect of tuning, and runs that were refused.
pub fn sentences(inputs: &[Input]) -> String {
    let first = |of: fn(&Report) -> Option<String>| inputs.iter().find_map(|i| of(&i.report));
    let good = headline(inputs).map(|head| how_good(&head));
    let found = [forced(inputs), good, first(where_from), tuned(inputs), refusals(inputs)];
    let all: String = found.iter().flatten().map(|text| paragraph(text)).collect();
    format!("<div class=\"summary\">\n{all}</div>\n")
}

fn how_good(head: &Headline) -> String {
    let s = head.given;
    let fitted =
        s.temperature_note().map_or(String::new(), |note| format!(" Temperature: {note}."));
    format!(
        "{}On {}{} the model has an accuracy of {} and a loss of {}; a temperature of {} changes \
         the loss to {} and the calibration error from {} to {}.{fitted}",
        head.lead,
        head.images,
        if head.tuned.is_some() { ", before tuning," } else { "" },
        percent(s.top1),
        nll(s),
        number(s.temperature),
        number(s.calibrated_nll),
        number(s.ece),
        number(s.calibrated_ece)
    )
}

/// Results that were written although V calls them worse, by file.
fn forced(inputs: &[Input]) -> Option<String> {
    let told = |input: &Input| match &input.report {
        Report::PostTraining(r) => {
            let worse = r.selection.worse_than_input == Some(true) && !refused(r);
            worse.then(|| {
                format!(
                    "{}: {} was written although it is worse than the input on V.",
                    input.name,
                    method(r)
                )
            })
        }
        _ => None,
    };
    let all: Vec<String> = inputs.iter().filter_map(told).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// Runs that the guard refused, by file.
fn refusals(inputs: &[Input]) -> Option<String> {
    let told = |input: &Input| match &input.report {
        Report::PostTraining(r) => refusal(r)
            .map(|why| format!("{}: {} was refused by the guard: {why}.", input.name, method(r))),
        _ => None,
    };
    let all: Vec<String> = inputs.iter().filter_map(told).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

fn nll(s: &Summary) -> String {
    estimate(Estimate { mean: s.nll, stderr: s.nll_stderr })
}

fn where_from(report: &Report) -> Option<String> {
    match report {
        Report::Diagnosis(r) => Some(r.findings.summary.clone()),
        _ => None,
    }
}

fn tuned(inputs: &[Input]) -> Option<String> {
    let bench = inputs.iter().find_map(|i| match &i.report {
        Report::Bench(r) => Some(r),
        _ => None,
    });
    if let Some(bench) = bench {
        if let Some(note) = unanswered_note(bench) {
            return Some(note.into());
        }
        let better: Vec<String> =
            bench.rows.iter().filter(|row| is_better(row)).map(|r| r.name.clone()).collect();
        let treated = bench.rows.iter().filter(|r| r.gain_over_control.is_some()).count();
        let seeds = bench.seeds.len();
        let many = if seeds == 1 { "seed" } else { "seeds" };
        return Some(match better.as_slice() {
            [] => format!(
                "Of {treated} methods, none has an established gain over plain SGD on the same \
                 layers, over {seeds} {many}."
            ),
            those => format!(
                "Of {treated} methods, these have a lower loss than plain SGD on the same layers \
                 over {seeds} {many}: {}.",
                those.join(", ")
            ),
        });
    }
    let kept = |i: &Input| match &i.report {
        Report::PostTraining(r) if refusal(r).is_none() => {
            let (role, part) = final_figures(r)?;
            let said = part.comparison.as_ref().map(|c| sentence(c, "before", "after"))?;
            Some((role, format!("{}, {role}: {said}", method(r))))
        }
        _ => None,
    };
    let best = inputs.iter().filter_map(kept).min_by_key(|(role, _)| *role != "test");
    best.map(|(_, said)| said).or_else(|| {
        inputs.iter().find_map(|i| match &i.report {
            Report::Comparison(r) => Some(r.sentence.clone()),
            Report::Fixing(r) => Some(r.conclusion()),
            _ => None,
        })
    })
}

/// Whether the verdict on a row of a bench is that it is better than its control.
pub(super) fn is_better(row: &RowResult) -> bool {
    let gain = row.answers.as_ref().and_then(|answers| answers.calibrated_nll_over_control);
    gain.is_some_and(|gain| gain.verdict == Some(Verdict::Better))
}

/// The main figures and their source.
pub fn tiles(inputs: &[Input]) -> String {
    let Some(head) = headline(inputs) else { return String::new() };
    let s = head.given;
    let (tiles, when) = match head.tuned {
        Some(tuned) => (before_after(s, tuned), "after tuning and before"),
        None => {
            let [nll, calibrated, top1, ece, temperature] = main_figures(s);
            let images = format!("of {} images", count(s.images as u64));
            let calibrated_ece = format!("calibrated {}", number(s.calibrated_ece));
            (
                vec![
                    ("NLL", nll, "nats per image".into()),
                    ("Calibrated NLL", calibrated, "nats per image".into()),
                    ("Top-1", top1, images),
                    ("ECE", ece, calibrated_ece),
                    ("Temperature", temperature, "1 if calibrated".into()),
                ],
                "the input model",
            )
        }
    };
    let items: String = tiles
        .iter()
        .map(|(name, value, remark)| {
            let (name, value, remark) = (escape(name), escape(value), escape(remark));
            format!("<div><dt>{name}</dt><dd>{value}<small>{remark}</small></dd></div>\n")
        })
        .collect();
    let whose = note(&format!("{}: {when}, on {}.", head.file, head.images));
    format!("<dl class=\"tiles\">\n{items}</dl>\n{whose}")
}

fn before_after(b: &Summary, a: &Summary) -> Vec<(&'static str, String, String)> {
    let names = ["NLL", "Calibrated NLL", "Top-1", "ECE", "Temperature"];
    let figures = names.into_iter().zip(main_figures(a)).zip(main_figures(b));
    figures
        .map(|((name, after), before)| (name, after, format!("after tuning; {before} before")))
        .collect()
}

/// NLL, calibrated NLL, top-1, ECE and temperature, with standard errors if they are known.
fn main_figures(s: &Summary) -> [String; 5] {
    let of = |mean, stderr| Estimate { mean, stderr };
    [
        nll(s),
        estimate(of(s.calibrated_nll, s.calibrated_nll_stderr)),
        share(of(s.top1, s.top1_stderr)),
        estimate(of(s.ece, s.details.as_ref().and_then(|d| d.ece_stderr))),
        number(s.temperature),
    ]
}
