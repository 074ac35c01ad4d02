//! `eval --shift` and `eval --ood`.

mod asked;
mod held;
mod show;

pub use asked::{Asked, ood, shift};
pub use held::{Held, Occupied};
pub use show::{others_text, shifted_text};

use crate::checkpoint::Checkpoint;
use crate::cli::common::Common;
use crate::cli::evaluating::{Evaluated, predict};
use crate::cli::images::{data_info, pixels};
use crate::data::{CifarC, DamagedFile, DataSet};
use crate::evaluate::{
    Predictions, Summary, detect, max_probability, negative_energy, summarise_at,
};
use crate::pixels::Pixels;
use crate::report::{Cell, Evaluation, Other, Shifts, Step};
use crate::shift::{Corruption, corrupted};
use anyhow::Context;

/// Bytes of levels that are corrupted at a time.
const CHUNK: usize = 32 << 20;

/// Figures of one cell, at the temperature of the clean images; from `files`, or made on the fly.
///
/// # Errors
/// Images that cannot be read or corrupted.
pub fn measure(
    checkpoint: &Checkpoint,
    found: &Evaluated,
    files: Option<&CifarC>,
    (corruption, severity): (Corruption, usize),
    seed: u64,
) -> anyhow::Result<Summary> {
    let predictions = match files {
        Some(files) => {
            let split = files.split(corruption.name(), severity)?;
            found.objective.predict(&pixels(checkpoint, &split)?)?
        }
        None => logits(checkpoint, found, (corruption, severity), seed)?,
    };
    // Diagrams of 75 cells would be most of a file.
    Ok(Summary { reliability: None, ..summarise_at(&predictions, &found.temperatures) })
}

/// Fills the matrix in, cell by cell, saving the report after each. Cells of a report that is
/// already there, in `held`, are taken over.
///
/// # Errors
/// [`Occupied`] where they are of another model, images, seed or figures; images that cannot be
/// corrupted; a report that cannot be written.
pub fn fill(
    report: &mut Evaluation,
    (asked, held): (&Asked, Option<Held>),
    checkpoint: &Checkpoint,
    found: &Evaluated,
    common: &Common,
) -> anyhow::Result<()> {
    let preprocess = checkpoint.preprocess.as_ref().context(
        "corruptions are made at the model's own image size, and the checkpoint tells no \
         preprocessing; pass --mean and --std",
    )?;
    let files = asked.files(&found.split)?;
    let origin = asked.origin(preprocess.image_size);
    let kept = held.map(|held| held.shifts(report, Some(&origin))).transpose()?;
    let known = match &files {
        // Reading them is quick, and what is in them is not known before.
        Some(_) => Vec::new(),
        None => kept.map_or(Vec::new(), |kept| kept.cells),
    };
    let asked_for = |c: &Cell| {
        asked.severities.contains(&c.severity)
            && asked.corruptions.iter().any(|corruption| corruption.name() == c.corruption)
    };
    let total = asked.corruptions.len() * asked.severities.len();
    let progress = common.progress("corruptions", total as u64, "cells");
    // What is there already stays, asked for this time or not.
    let mut cells = known;
    progress.add(cells.iter().filter(|cell| asked_for(cell)).count() as u64);
    report.shifts = Some(matrix(&mut cells, &asked_for, total, &origin, report));
    for (corruption, severity) in asked.cells() {
        let same = |c: &Cell| c.corruption == corruption.name() && c.severity == severity;
        if cells.iter().any(same) {
            continue;
        }
        progress.note(format!("{corruption} {severity}"));
        let shift = (corruption, severity);
        let figures = measure(checkpoint, found, files.as_ref(), shift, common.seed)?;
        cells.push(Cell { corruption: corruption.name().into(), severity, figures });
        report.shifts = Some(matrix(&mut cells, &asked_for, total, &origin, report));
        common.save(report)?;
        progress.add(1);
    }
    Ok(())
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

/// The matrix of these cells, brought into the paper's order.
fn matrix(
    cells: &mut [Cell],
    asked_for: &dyn Fn(&Cell) -> bool,
    total: usize,
    origin: &str,
    report: &Evaluation,
) -> Shifts {
    let place = |c: &Cell| Corruption::ALL.iter().position(|x| x.name() == c.corruption);
    cells.sort_by_key(|c| (place(c), c.severity));
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
        settings: origin.to_owned(),
        finished: cells.iter().filter(|cell| asked_for(cell)).count() == total,
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
) -> anyhow::Result<(Vec<Other>, Vec<DamagedFile>)> {
    let mut damaged = Vec::new();
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
        damaged.extend(split.damaged());
        let origin = format!("split {}, whole, in stored order", split.name());
        Ok(Other {
            name: name.clone(),
            data: data_info(&data, split, &origin),
            max_probability: score(max_probability),
            energy: score(negative_energy),
        })
    };
    let others = sets.iter().map(one).collect::<anyhow::Result<_>>()?;
    Ok((others, damaged))
}
