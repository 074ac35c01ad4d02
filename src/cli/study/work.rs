//! The cells that are missing, computed one by one and kept as they come.

use super::bench::Run;
use super::cells::{Cell, Job};
use super::diagnosis::diagnosis;
use super::evaluation::Evaluator;
use super::setup::{Opened, Pair, Setup};
use super::training::Ground;
use crate::cli::bad_samples::damage_note;
use crate::cli::common::Common;
use crate::study::{Entry, Kind};
use anyhow::bail;
use serde_json::{Map, Value};
use std::time::Instant;

/// Computes these cells, pair by pair; `keep` has each as soon as it is there.
///
/// # Errors
/// Anything wrong with checkpoints or images: those that have changed since the study was planned,
/// too; those of `keep`.
pub fn compute(
    setup: &Setup,
    cells: &[&Cell],
    common: &Common,
    keep: &mut dyn FnMut(Entry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut pairs: Vec<Pair> = cells.iter().map(|cell| cell.job.pair()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let progress = common.progress("study", cells.len() as u64, "cells");
    for pair in pairs {
        let own: Vec<&Cell> = cells.iter().filter(|c| c.job.pair() == pair).copied().collect();
        let opened = setup.open(pair, common)?;
        unchanged(&own, &opened)?;
        let mut finished = |entry: Entry| -> anyhow::Result<()> {
            keep(entry)?;
            progress.add(1);
            Ok(())
        };
        let name = setup.file.model[pair.model].name.as_ref();
        let begin = |what: &str| progress.note(format!("{name}, {what}"));
        evaluations(setup, (pair, &opened), &own, common, &begin, &mut finished)?;
        for cell in own.iter().filter(|c| c.planned.kind == Kind::Diagnosis) {
            begin("diagnosis");
            let mut clock = Instant::now();
            let figures = diagnosis(&opened, common)?;
            finished(entry(cell, figures, &mut clock))?;
        }
        if own.iter().any(|c| c.planned.kind == Kind::Run) {
            begin("training");
            train(&opened, &own, common, &begin, &mut finished)?;
        }
        common.say_notes(damage_note(&opened.sources.damaged()).as_slice());
    }
    Ok(())
}

/// Cells that need the model's logits on its split.
fn evaluations(
    setup: &Setup,
    (pair, opened): (Pair, &Opened),
    cells: &[&Cell],
    common: &Common,
    begin: &dyn Fn(&str),
    finished: &mut dyn FnMut(Entry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut clock = Instant::now();
    let mut evaluator = None;
    // Its time counts as the first cell's, which cannot do without.
    let start = || Evaluator::new(setup, pair, opened, common);
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

/// Cells of post-training.
fn train(
    opened: &Opened,
    cells: &[&Cell],
    common: &Common,
    begin: &dyn Fn(&str),
    finished: &mut dyn FnMut(Entry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let trained = cells.iter().filter_map(|cell| match &cell.job {
        Job::Train { run, .. } => Some((*cell, run.as_ref())),
        _ => None,
    });
    let (cells, runs): (Vec<&Cell>, Vec<&Run>) = trained.unzip();
    let ground = Ground::new(opened, common, Some(opened.images()?.test))?;
    ground.train(&runs, begin, &mut |place, figures, seconds| {
        finished(timed(cells[place], figures, seconds))?;
        Ok(true)
    })
}

/// What is there, or is made now.
fn begun<T>(slot: &mut Option<T>, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&T> {
    Ok(match slot {
        Some(there) => there,
        none => none.insert(make()?),
    })
}

/// A finished cell, with the time since the one before.
fn entry(cell: &Cell, figures: Map<String, Value>, clock: &mut Instant) -> Entry {
    let seconds = clock.elapsed().as_secs_f64();
    *clock = Instant::now();
    timed(cell, figures, seconds)
}

fn timed(cell: &Cell, figures: Map<String, Value>, seconds: f64) -> Entry {
    let seconds = (seconds * 1e3).round() / 1e3;
    Entry { cell: cell.planned.cell.clone(), kind: cell.planned.kind, figures, seconds }
}

/// Refuses a checkpoint or images that are not those the cells are named by.
fn unchanged(cells: &[&Cell], opened: &Opened) -> anyhow::Result<()> {
    let planned = cells.first().and_then(|c| c.planned.settings.get("checkpoint_digest"));
    let now = opened.checkpoint.digest.as_str();
    if planned.and_then(Value::as_str) != Some(now) {
        bail!(
            "{}: it has changed since the study began: its SHA-256 is {now} now; start the study \
             again",
            opened.checkpoint.path.display()
        )
    }
    Ok(())
}

/// What a user calls so many cells of a kind.
pub fn counted(kind: Kind, n: usize) -> String {
    let name = match kind {
        Kind::Evaluation => "evaluations",
        Kind::Ood => "of other images",
        Kind::Diagnosis => "diagnoses",
        Kind::Run => "training runs",
    };
    format!("{n} {name}")
}
