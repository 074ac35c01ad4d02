//! The cells of a study: their names and how they are computed.

use super::setup::{ModelOnData, Setup};
use super::{Planned, SCHEMA, Share, StudyPlan, evaluation, runs};
use crate::error::Result;
use crate::post_train::TrialSpec;
use crate::session::Context;
use crate::shift::Corruption;
use std::collections::BTreeSet;

/// A cell.
pub struct Cell {
    /// Name and settings.
    pub planned: Planned,
    /// How it is computed.
    pub job: Job,
}

/// How a cell is computed.
#[derive(Clone, Debug)]
pub enum Job {
    /// Evaluation on a split, shifted or not.
    Evaluate {
        /// Model and data.
        pair: ModelOnData,
        /// The shift.
        shift: Option<CellShift>,
    },
    /// Evaluation on images of another kind.
    Ood {
        /// Model and data.
        pair: ModelOnData,
        /// Index of these images in the file.
        set: usize,
    },
    /// ΔL and κ of every layer.
    Diagnose {
        /// Model and data.
        pair: ModelOnData,
    },
    /// Post-training.
    Train {
        /// Model and data.
        pair: ModelOnData,
        /// What is done.
        run: Box<TrialSpec>,
    },
}

/// One corruption at one severity.
#[derive(Clone, Copy, Debug)]
pub struct CellShift {
    /// Index in the file's list.
    pub asked: usize,
    /// The corruption.
    pub corruption: Corruption,
    /// 1 to 5.
    pub severity: usize,
}

impl Job {
    /// Model and data.
    pub fn pair(&self) -> ModelOnData {
        match self {
            Job::Evaluate { pair, .. }
            | Job::Ood { pair, .. }
            | Job::Diagnose { pair }
            | Job::Train { pair, .. } => *pair,
        }
    }
}

/// All cells, in the study's order: by model, then by data set.
///
/// # Errors
/// Anything wrong with a checkpoint or with images. All are opened now, before any work.
pub fn all(setup: &Setup, context: &Context) -> Result<Vec<Cell>> {
    let (mut cells, mut told) = (Vec::new(), BTreeSet::new());
    let pairs: Vec<ModelOnData> = setup.pairs().collect();
    let progress = context.task("reading", pairs.len() as u64, "models on data sets");
    for pair in pairs {
        let model = setup.file.model[pair.model].name.as_ref();
        progress.status(model);
        let opened = setup.open(pair, context)?;
        for note in &opened.data.notes {
            // Many models share a data set.
            if told.insert(note.clone()) {
                context.note(&format!("{model}: {note}"));
            }
        }
        if setup.file.evaluate {
            cells.extend(evaluation::cells(setup, pair, &opened, context)?);
        }
        cells.extend(runs::cells(setup, pair, &opened, context)?);
        progress.advance(1);
    }
    Ok(cells)
}

/// The plan of these cells, for the folder of this share.
pub fn plan(cells: &[Cell], share: Share) -> StudyPlan {
    let cells = cells.iter().map(|cell| cell.planned.clone()).collect();
    let shard = (share != Share::default()).then(|| share.to_string());
    StudyPlan { schema: SCHEMA.into(), shard, cells }
}
