//! Evaluates a model on shifted images, and on out-of-distribution images.

use super::{CorruptedCell, Corruption, Other, SeverityMeans, Shift, Shifts, corrupted};
use crate::checkpoint::Checkpoint;
use crate::data::{CifarC, DamagedFile, DataSet, Preprocess, channels_changed};
use crate::error::{Error, Result};
use crate::evaluate::{Summary, detect, max_probability, negative_energy, summarise_at};
use crate::pixels::Pixels;
use crate::predictions::Predictions;
use crate::session::evaluate::{ScoredSplit, predict};
use crate::session::{Context, data_info, pixels};

/// Bytes of levels that are corrupted at a time.
const CHUNK: usize = 32 << 20;

/// Figures of one cell, at the temperature of the clean images; from `files`, or computed here.
///
/// # Errors
/// Images that cannot be read or corrupted.
pub fn measure(
    checkpoint: &Checkpoint,
    found: &ScoredSplit,
    files: Option<&CifarC>,
    (corruption, severity): (Corruption, usize),
    seed: u64,
) -> Result<Summary> {
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

/// The model's preprocessing, which shifts need.
///
/// # Errors
/// [`Error::Missing`] for a checkpoint without preprocessing.
pub fn preprocessing(checkpoint: &Checkpoint) -> Result<&Preprocess> {
    checkpoint.preprocess.as_ref().ok_or_else(|| {
        Error::Missing(format!(
            "{}: corruptions are applied at the model's image size, but the checkpoint does not state the \
             preprocessing; set `mean` and `std`",
            checkpoint.path.display()
        ))
    })
}

/// Evaluates every cell of `asked` that is not in `known`, at the temperature of the clean images,
/// whose figures are `clean`. Calls `save` with the matrix after each cell.
///
/// # Errors
/// Images that cannot be corrupted or read; those of `save`.
pub fn corrupted_matrix(
    (asked, known): (&Shift, Vec<CorruptedCell>),
    checkpoint: &Checkpoint,
    found: &ScoredSplit,
    clean: &Summary,
    context: &Context,
    save: &mut dyn FnMut(&Shifts) -> Result<()>,
) -> Result<Shifts> {
    let files = asked.files(&found.split)?;
    let origin = asked.origin(preprocessing(checkpoint)?.image_size);
    let asked_for = |c: &CorruptedCell| {
        asked.severities.contains(&c.severity)
            && asked.corruptions.iter().any(|corruption| corruption.name() == c.corruption)
    };
    let total = asked.corruptions.len() * asked.severities.len();
    let progress = context.task("corruptions", total as u64, "cells");
    // Known cells are kept, even if they were not asked for this time.
    let mut cells = known;
    progress.advance(cells.iter().filter(|cell| asked_for(cell)).count() as u64);
    let mut shifts = matrix(&mut cells, &asked_for, total, &origin, clean);
    for (corruption, severity) in asked.cells() {
        let same = |c: &CorruptedCell| c.corruption == corruption.name() && c.severity == severity;
        if cells.iter().any(same) {
            continue;
        }
        progress.status(&format!("{corruption} {severity}"));
        let shift = (corruption, severity);
        let figures = measure(checkpoint, found, files.as_ref(), shift, context.seed)?;
        cells.push(CorruptedCell { corruption: corruption.name().into(), severity, figures });
        shifts = matrix(&mut cells, &asked_for, total, &origin, clean);
        save(&shifts)?;
        progress.advance(1);
    }
    Ok(shifts)
}

fn logits(
    checkpoint: &Checkpoint,
    found: &ScoredSplit,
    shift: (Corruption, usize),
    seed: u64,
) -> Result<Predictions> {
    let preprocess = preprocessing(checkpoint)?;
    let bytes = preprocess.image_size.iter().product::<usize>() * preprocess.channels;
    let all: Vec<usize> = (0..found.split.len()).collect();
    let mut values = Vec::new();
    for indices in all.chunks((CHUNK / bytes.max(1)).max(1)) {
        let (split, left) = corrupted(&found.split, indices, preprocess, shift, seed)?;
        let pixels = Pixels::new(&split, Some(&left), &checkpoint.network)?;
        values.extend_from_slice(found.objective.predict(&pixels)?.values());
    }
    Ok(Predictions::new(values, checkpoint.network.classes(), found.split.labels())?)
}

/// The matrix of these cells, brought into the paper's order.
fn matrix(
    cells: &mut [CorruptedCell],
    asked_for: &dyn Fn(&CorruptedCell) -> bool,
    total: usize,
    origin: &str,
    clean: &Summary,
) -> Shifts {
    let place = |c: &CorruptedCell| Corruption::ALL.iter().position(|x| x.name() == c.corruption);
    cells.sort_by_key(|c| (place(c), c.severity));
    let step = |severity: usize, of: &[&Summary]| {
        let mean = |f: fn(&Summary) -> f64| of.iter().map(|s| f(s)).sum::<f64>() / of.len() as f64;
        SeverityMeans {
            severity,
            nll: mean(|s| s.nll),
            top1: mean(|s| s.top1),
            ece: mean(|s| s.ece),
            calibrated_ece: mean(|s| s.calibrated_ece),
        }
    };
    let mut by_severity = vec![step(0, &[clean])];
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

/// Results on out-of-distribution images.
pub struct Others {
    /// How well the model separates each set from the images it was evaluated on.
    pub sets: Vec<Other>,
    /// How the sets were read.
    pub notes: Vec<String>,
    /// Damaged image files among those read.
    pub damaged: Vec<DamagedFile>,
}

/// How well the model separates each of these sets from the images it was evaluated on.
///
/// # Errors
/// Images that cannot be read.
pub fn others(
    sets: &[(String, String)],
    checkpoint: &Checkpoint,
    found: &ScoredSplit,
    context: &Context,
) -> Result<Others> {
    let (mut notes, mut damaged) = (Vec::new(), Vec::new());
    let mut one = |(name, spec): &(String, String)| {
        let data = DataSet::open(spec)?;
        notes.extend(channels_changed(&data, checkpoint.config.channels()));
        let split = data.split("test").or_else(|| data.splits().first());
        let none = || Error::Missing(format!("{spec} has no split"));
        let split = split.ok_or_else(none)?;
        // Their labels are of other classes.
        let objective = &found.objective;
        let logits = predict(checkpoint, objective, &split.unlabelled(), name, context)?;
        let score = |of: fn(&Predictions) -> Vec<f64>| {
            detect(&of(&found.predictions), &of(&logits), context.seed)
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
    let sets = sets.iter().map(&mut one).collect::<Result<_>>()?;
    Ok(Others { sets, notes, damaged })
}
