//! `eval --shift` and `eval --ood`.

use super::common::Common;
use super::evaluating::{Evaluated, predict};
use super::format::{estimate, number, percent};
use super::images::data_info;
use super::table::{Align, Style, Table};
use crate::checkpoint::Checkpoint;
use crate::data::DataSet;
use crate::evaluate::{
    Detection, Predictions, Summary, detect, max_probability, negative_energy, summarise_at,
};
use crate::pixels::Pixels;
use crate::report::{Cell, Evaluation, Other, Shifts, Step};
use crate::shift::{Corruption, corrupted, settings};
use anyhow::Context;
use std::path::Path;

/// Bytes of levels that are corrupted at a time.
const CHUNK: usize = 32 << 20;

/// What `--shift` asks for: corruptions and severities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    corruptions: Vec<Corruption>,
    severities: Vec<usize>,
}

/// `corruptions`, `corruptions:fog,snow`, `corruptions:fog:1,3`, `corruptions::5`.
pub fn shift(text: &str) -> Result<Asked, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (names, severities) = match parts[..] {
        ["corruptions"] => ("", ""),
        ["corruptions", names] => (names, ""),
        ["corruptions", names, severities] => (names, severities),
        _ => {
            return Err(
                "expected corruptions[:names][:severities], as in corruptions:fog:1,3".into()
            );
        }
    };
    let all: Vec<&str> = Corruption::ALL.iter().map(|c| c.name()).collect();
    let unknown = |name: &str| format!("no corruption `{name}`; there are {}", all.join(", "));
    let named = |name: &str| Corruption::named(name).ok_or_else(|| unknown(name));
    let asked: Vec<Corruption> = match names {
        "" => Corruption::ALL.to_vec(),
        names => names.split(',').map(named).collect::<Result<_, _>>()?,
    };
    let severity = |text: &str| match text.parse() {
        Ok(n @ 1..=5) => Ok(n),
        _ => Err(format!("severity `{text}`: expected 1 to 5")),
    };
    let severities: Vec<usize> = match severities {
        "" => (1..=5).collect(),
        some => some.split(',').map(severity).collect::<Result<_, _>>()?,
    };
    let corruptions = Corruption::ALL.into_iter().filter(|c| asked.contains(c)).collect();
    let severities = (1..=5).filter(|s| severities.contains(s)).collect();
    Ok(Asked { corruptions, severities })
}

/// `NAME=DATA`.
pub fn ood(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, data)) if !name.is_empty() && !data.is_empty() => {
            Ok((name.into(), data.into()))
        }
        _ => Err("expected NAME=DATA, as in digits=mnist/".into()),
    }
}

/// Fills the matrix in, cell by cell, saving the report after each. Cells of a report that is
/// already there are taken over if it is of the same model, images, seed and clean figures.
///
/// # Errors
/// Images that cannot be corrupted; a report that cannot be written.
pub fn fill(
    report: &mut Evaluation,
    asked: &Asked,
    checkpoint: &Checkpoint,
    found: &Evaluated,
    common: &Common,
) -> anyhow::Result<()> {
    let known = common.json.as_deref().and_then(|path| kept(path, report)).unwrap_or_default();
    let preprocess = checkpoint.preprocess.as_ref().context(
        "corruptions are made at the model's own image size, and the checkpoint tells no \
         preprocessing; pass --mean and --std",
    )?;
    let total = asked.corruptions.len() * asked.severities.len();
    let progress = common.progress("corruptions", total as u64, "cells");
    let mut cells: Vec<Cell> = Vec::new();
    for &corruption in &asked.corruptions {
        for &severity in &asked.severities {
            let same = |c: &&Cell| c.corruption == corruption.name() && c.severity == severity;
            let cell = match known.iter().find(same) {
                Some(cell) => cell.clone(),
                None => {
                    progress.note(format!("{corruption} {severity}"));
                    let predictions =
                        logits(checkpoint, found, (corruption, severity), common.seed)?;
                    let figures = summarise_at(&predictions, &found.temperatures);
                    // Diagrams of 75 cells would be most of the file.
                    let figures = Summary { reliability: None, ..figures };
                    Cell { corruption: corruption.name().into(), severity, figures }
                }
            };
            cells.push(cell);
            report.shifts = Some(matrix(&cells, total, preprocess.image_size, report));
            common.save(report)?;
            progress.add(1);
        }
    }
    Ok(())
}

/// Cells of the report at `path`, if they are of what is being evaluated now.
fn kept(path: &Path, now: &Evaluation) -> Option<Vec<Cell>> {
    let old: Evaluation = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    // Reading may move a number's last bit, so both are compared as read.
    let now: Evaluation = serde_json::from_slice(&serde_json::to_vec(now).ok()?).ok()?;
    let same = old.schema == now.schema
        && old.run.version == now.run.version
        && old.run.seed == now.run.seed
        && old.checkpoint.digest == now.checkpoint.digest
        && old.data.digest == now.data.digest
        // Of the preprocessing, the precision and the temperature these tell.
        && old.figures == now.figures;
    old.shifts.filter(|_| same).map(|shifts| shifts.cells)
}

fn logits(
    checkpoint: &Checkpoint,
    found: &Evaluated,
    shift: (Corruption, usize),
    seed: u64,
) -> anyhow::Result<Predictions> {
    let preprocess =
        checkpoint.preprocess.as_ref().context("the checkpoint tells no preprocessing")?;
    let bytes = preprocess.image_size.iter().product::<usize>() * preprocess.channels;
    let all: Vec<usize> = (0..found.split.len()).collect();
    let mut values = Vec::new();
    for indices in all.chunks((CHUNK / bytes.max(1)).max(1)) {
        let (split, left) = corrupted(&found.split, indices, preprocess, shift, seed)?;
        let pixels = Pixels::new(&split, Some(&left), &checkpoint.config)?;
        values.extend_from_slice(found.objective.predict(&pixels)?.values());
    }
    Ok(Predictions::new(values, checkpoint.config.classes, found.split.labels())?)
}

fn matrix(cells: &[Cell], total: usize, size: [usize; 2], report: &Evaluation) -> Shifts {
    let step = |severity: usize, of: &[&Summary]| {
        let mean = |f: fn(&Summary) -> f64| of.iter().map(|s| f(s)).sum::<f64>() / of.len() as f64;
        Step {
            severity,
            nll: mean(|s| s.nll),
            top1: mean(|s| s.top1),
            ece: mean(|s| s.ece),
            calibrated_ece: mean(|s| s.calibrated_ece),
        }
    };
    let mut by_severity = vec![step(0, &[&report.figures])];
    for severity in 1..=5 {
        let at = cells.iter().filter(|c| c.severity == severity).map(|c| &c.figures);
        let at: Vec<_> = at.collect();
        if !at.is_empty() {
            by_severity.push(step(severity, &at));
        }
    }
    let errors: f64 = cells.iter().map(|c| 1.0 - c.figures.top1).sum();
    Shifts {
        settings: settings(size).into(),
        finished: cells.len() == total,
        cells: cells.to_vec(),
        mean_error: errors / cells.len() as f64,
        by_severity,
    }
}

/// How well the model tells each of these sets from the images it was evaluated on.
///
/// # Errors
/// Images that cannot be read.
pub fn others(
    sets: &[(String, String)],
    checkpoint: &Checkpoint,
    found: &Evaluated,
    common: &Common,
) -> anyhow::Result<Vec<Other>> {
    let one = |(name, spec): &(String, String)| {
        let data = DataSet::open(spec)?;
        let split = data.split("test").or_else(|| data.splits().first());
        let split = split.with_context(|| format!("{spec} has no split"))?;
        // Their labels are of other classes.
        let objective = &found.objective;
        let logits = predict(checkpoint, objective, &split.unlabelled(), name, common)?;
        let score = |of: fn(&Predictions) -> Vec<f64>| {
            detect(&of(&found.predictions), &of(&logits), common.seed)
        };
        let origin = format!("split {}, whole, in stored order", split.name());
        Ok(Other {
            name: name.clone(),
            data: data_info(&data, split, &origin),
            max_probability: score(max_probability),
            energy: score(negative_energy),
        })
    };
    sets.iter().map(one).collect()
}

/// Error by corruption and severity, and means by severity.
pub fn shifted_text(shifts: &Shifts) -> String {
    let right = |name| (name, Align::Right);
    let severities: Vec<usize> =
        (1..=5).filter(|&s| shifts.cells.iter().any(|c| c.severity == s)).collect();
    let titles: Vec<String> = severities.iter().map(usize::to_string).collect();
    let mut columns = vec![("top-1 by severity", Align::Left)];
    columns.extend(titles.iter().map(|title| right(title.as_str())));
    let mut table = Table::new(&columns);
    for corruption in Corruption::ALL {
        let cell = |s: &usize| {
            let same = |c: &&Cell| c.corruption == corruption.name() && c.severity == *s;
            shifts.cells.iter().find(same).map(|c| percent(c.figures.top1))
        };
        let row: Vec<String> = severities.iter().filter_map(cell).collect();
        if !row.is_empty() {
            table.row(std::iter::once(corruption.name().to_owned()).chain(row));
        }
    }
    let mut means = Table::new(&[
        ("severity", Align::Left),
        right("NLL"),
        right("top-1"),
        right("ECE"),
        right("calibrated ECE"),
    ]);
    for step in &shifts.by_severity {
        let name = if step.severity == 0 { "clean".into() } else { step.severity.to_string() };
        means.row([
            name,
            number(step.nll),
            percent(step.top1),
            number(step.ece),
            number(step.calibrated_ece),
        ]);
    }
    let style = Style::of_stdout();
    format!(
        "\n{}\n{}mean corruption error {} ({} settings)\n",
        table.render(style),
        means.render(style),
        percent(shifts.mean_error),
        shifts.settings
    )
}

/// One row for each other set and score.
pub fn others_text(others: &[Other]) -> String {
    let columns =
        [("other images", Align::Left), ("AUROC", Align::Right), ("FPR@95", Align::Right)];
    let mut table = Table::new(&columns);
    let mut row = |name: String, d: &Detection| {
        table.row([name, estimate(d.auroc), estimate(d.fpr95)]);
    };
    for other in others {
        row(format!("{}, largest probability", other.name), &other.max_probability);
        row(format!("{}, energy", other.name), &other.energy);
    }
    format!("\n{}", table.render(Style::of_stdout()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_or_named() {
        let all = shift("corruptions").unwrap();
        assert_eq!((all.corruptions.len(), all.severities), (15, vec![1, 2, 3, 4, 5]));
        let some = shift("corruptions:snow,fog:5,1,5").unwrap();
        assert_eq!(some.corruptions, [Corruption::Snow, Corruption::Fog]);
        assert_eq!(some.severities, [1, 5]);
        assert_eq!(shift("corruptions::3").unwrap().severities, [3]);
        assert!(shift("corruptions:rain").unwrap_err().contains("gaussian_noise"));
        assert!(shift("corruptions:fog:6").unwrap_err().contains("1 to 5"));
        assert!(shift("rotations").unwrap_err().contains("corruptions[:names]"));
        assert_eq!(ood("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(["a", "=b", "a="].iter().all(|text| ood(text).is_err()));
    }
}
