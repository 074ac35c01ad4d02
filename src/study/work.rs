//! Computes missing cells one by one and stores each immediately.

use super::cells::{Cell, Job};
use super::diagnosis::diagnosis;
use super::evaluation::Evaluator;
use super::setup::{ModelOnData, Opened, Setup};
use super::{CellFigures, CellKind, Error as StudyError, LogEntry};
use crate::error::Result;
use crate::post_train::{TrialSpec, Trials};
use crate::session::Context;
use crate::session::bad_samples::damage_note;
use std::time::Instant;

/// Computes these cells, pair by pair. Calls `keep` with each as soon as it is done.
///
/// # Errors
/// Anything wrong with checkpoints or images, including changes since the study was planned; those
/// of `keep`.
pub fn compute(
    setup: &Setup,
    cells: &[&Cell],
    context: &Context,
    keep: &mut dyn FnMut(LogEntry) -> Result<()>,
) -> Result<()> {
    let mut pairs: Vec<ModelOnData> = cells.iter().map(|cell| cell.job.pair()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let progress = context.task("study", cells.len() as u64, "cells");
    for pair in pairs {
        let own: Vec<&Cell> = cells.iter().filter(|c| c.job.pair() == pair).copied().collect();
        let opened = setup.open(pair, context)?;
        unchanged(&own, &opened)?;
        let mut finished = |entry: LogEntry| -> Result<()> {
            keep(entry)?;
            progress.advance(1);
            Ok(())
        };
        let name = setup.file.model[pair.model].name.as_ref();
        let begin = |what: &str| progress.status(&format!("{name}, {what}"));
        evaluations(setup, (pair, &opened), &own, context, &begin, &mut finished)?;
        for cell in own.iter().filter(|c| c.planned.kind() == CellKind::Diagnosis) {
            begin("diagnosis");
            let mut clock = Instant::now();
            let figures = diagnosis(&opened, context)?;
            finished(entry(cell, figures, &mut clock))?;
        }
        if own.iter().any(|c| c.planned.kind() == CellKind::Run) {
            begin("training");
            train(&opened, &own, context, &begin, &mut finished)?;
        }
        damage_note(&opened.data.damaged()).iter().for_each(|note| context.note(note));
    }
    Ok(())
}

/// Cells that need the model's logits on its split.
fn evaluations(
    setup: &Setup,
    (pair, opened): (ModelOnData, &Opened),
    cells: &[&Cell],
    context: &Context,
    begin: &dyn Fn(&str),
    finished: &mut dyn FnMut(LogEntry) -> Result<()>,
) -> Result<()> {
    let mut clock = Instant::now();
    let mut evaluator = None;
    // Its time counts towards the first cell, which needs it.
    let start = || Evaluator::new(setup, pair, opened, context);
    for cell in cells {
        match &cell.job {
            Job::Evaluate { shift: None, .. } => begin("as it is"),
            Job::Evaluate { shift: Some(s), .. } => {
                begin(&format!("{} {}", s.corruption, s.severity))
            }
            Job::Ood { .. } => begin("other images"),
            Job::Diagnose { .. } | Job::Train { .. } => {}
        }
        let figures = match &cell.job {
            Job::Evaluate { shift, .. } => begun(&mut evaluator, start)?.evaluation(*shift)?,
            Job::Ood { set, .. } => begun(&mut evaluator, start)?.ood(*set)?,
            Job::Diagnose { .. } | Job::Train { .. } => continue,
        };
        finished(entry(cell, figures, &mut clock))?;
    }
    Ok(())
}

/// Computes post-training cells.
fn train(
    opened: &Opened,
    cells: &[&Cell],
    context: &Context,
    begin: &dyn Fn(&str),
    finished: &mut dyn FnMut(LogEntry) -> Result<()>,
) -> Result<()> {
    let trained = cells.iter().filter_map(|cell| match &cell.job {
        Job::Train { run, .. } => Some((*cell, run.as_ref())),
        _ => None,
    });
    let (cells, runs): (Vec<&Cell>, Vec<&TrialSpec>) = trained.unzip();
    let Opened { checkpoint, roles, .. } = opened;
    let test = opened.images()?.test;
    let trials = Trials::new(checkpoint, roles, Some(test), context)?;
    trials.train(&runs, begin, &mut |place, trial| {
        let seconds = trial.seconds;
        finished(timed(cells[place], trial.into(), seconds))?;
        Ok(true)
    })
}

/// Returns the value in `slot`, creating it first if needed.
fn begun<T>(slot: &mut Option<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    Ok(match slot {
        Some(there) => there,
        none => none.insert(make()?),
    })
}

/// A finished cell, with the time since the previous one.
fn entry(cell: &Cell, figures: CellFigures, clock: &mut Instant) -> LogEntry {
    let seconds = clock.elapsed().as_secs_f64();
    *clock = Instant::now();
    timed(cell, figures, seconds)
}

fn timed(cell: &Cell, figures: CellFigures, seconds: f64) -> LogEntry {
    let seconds = (seconds * 1e3).round() / 1e3;
    LogEntry { cell: cell.planned.cell.clone(), figures, seconds }
}

/// Rejects a checkpoint or images that changed since the cells were named.
fn unchanged(cells: &[&Cell], opened: &Opened) -> Result<()> {
    let now = &opened.checkpoint.digest;
    match cells.iter().all(|c| c.planned.model.checkpoint_digest == *now) {
        true => Ok(()),
        false => {
            let (path, now) = (opened.checkpoint.path.clone(), now.clone());
            Err(StudyError::Changed { path, now }.into())
        }
    }
}

/// A count of cells of a kind, in words.
pub fn counted(kind: CellKind, n: usize) -> String {
    let name = match kind {
        CellKind::Evaluation => "evaluations",
        CellKind::Ood => "out-of-distribution evaluations",
        CellKind::Diagnosis => "diagnoses",
        CellKind::Run => "training runs",
    };
    format!("{n} {name}")
}
