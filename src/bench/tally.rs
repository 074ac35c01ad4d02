//! Rows and costs from the runs of each row.

use super::answers::{ImageScores, answers};
use super::epoch_zero::{EpochZero, Scored, epoch_zero};
use super::{BenchRow, Cost, RowResult, RunResult};
use crate::data::DamagedFile;
use crate::error::{Error, Result};
use crate::evaluate::{Effect, Estimate, Summary, mean_stderr};
use crate::train::Epoch;
use std::collections::HashSet;

/// A trained row: one run per seed.
pub(super) struct Trained<'a> {
    /// The row.
    pub row: &'a BenchRow,
    /// Its runs.
    pub runs: Vec<RunResult>,
    /// Test scores of each run.
    pub scores: Vec<ImageScores>,
}

impl Trained<'_> {
    fn scored(&self) -> Result<Scored<'_>> {
        match self.scores.len() == self.runs.len() {
            true => Ok(Scored { runs: &self.runs, scores: &self.scores }),
            false => Err(no_test()),
        }
    }

    fn stopped(&self) -> bool {
        self.runs.iter().any(|run| run.selection.stopped.is_some())
    }
}

/// Figures of one row.
fn row(name: &str, runs: &[RunResult]) -> Result<RowResult> {
    let test = |f: fn(&Summary) -> f64| -> Result<Estimate> {
        let values: Option<Vec<f64>> =
            runs.iter().map(|r| r.test.as_ref().map(|t| f(&t.after))).collect();
        Ok(mean_stderr(&values.ok_or_else(no_test)?))
    };
    let last = |f: fn(&Epoch) -> Option<f64>| {
        let values: Option<Vec<f64>> = runs.iter().map(|r| r.epochs.last().and_then(f)).collect();
        values.map(|v| mean_stderr(&v))
    };
    let validation: Option<Vec<f64>> =
        runs.iter().map(|r| r.validation.as_ref().map(|v| v.after.nll)).collect();
    let method = &runs.first().ok_or_else(no_run)?.method;
    Ok(RowResult {
        name: name.into(),
        method: Some(method.name.clone()),
        perturb: method.perturb.clone(),
        update: Some(method.update.clone()),
        sam: method.sam.clone(),
        lora: method.lora.clone(),
        nll: test(|s| s.nll)?,
        calibrated_nll: test(|s| s.calibrated_nll)?,
        temperatures_at_bound: runs
            .iter()
            .filter(|r| r.test.as_ref().is_some_and(|t| t.after.temperature_at_bound))
            .count(),
        top1: test(|s| s.top1)?,
        ece: test(|s| s.ece)?,
        validation_nll: validation.map(|v| mean_stderr(&v)),
        perturbation: last(|e| e.perturbation),
        perturbation_length: last(|e| e.perturbation_length),
        capped: last(|e| e.capped),
        rejected: last(|e| e.rejected),
        training_loss: last(|e| Some(e.training_loss)),
        control: None,
        stopped: runs.iter().filter(|r| r.selection.stopped.is_some()).count(),
        gain_over_control: None,
        calibrated_gain_over_control: None,
        answers: None,
        epoch_zero: None,
        layers: runs.first().map(|r| r.layers.clone()).unwrap_or_default(),
    })
}

/// All rows, the untuned model first. Gains over controls are paired by seed.
///
/// # Errors
/// There are no runs or no test images.
pub(super) fn rows(trained: &[Trained], untouched: &ImageScores) -> Result<Vec<RowResult>> {
    let first = trained.iter().flat_map(|t| &t.runs).next().ok_or_else(no_run)?;
    let before = &first.test.as_ref().ok_or_else(no_test)?.before;
    let fixed = |mean: f64| Estimate { mean, stderr: None };
    let mut rows = vec![RowResult {
        name: "untouched".into(),
        method: None,
        perturb: None,
        update: None,
        sam: None,
        lora: None,
        nll: fixed(before.nll),
        calibrated_nll: fixed(before.calibrated_nll),
        temperatures_at_bound: usize::from(before.temperature_at_bound),
        top1: fixed(before.top1),
        ece: fixed(before.ece),
        validation_nll: first.validation.as_ref().map(|v| fixed(v.before.nll)),
        perturbation: None,
        perturbation_length: None,
        capped: None,
        rejected: None,
        training_loss: None,
        control: None,
        stopped: 0,
        gain_over_control: None,
        calibrated_gain_over_control: None,
        answers: None,
        epoch_zero: None,
        layers: Vec::new(),
    }];
    for t in trained {
        let mut row = row(&t.row.name, &t.runs)?;
        let control = t.row.control.and_then(|i| trained.get(i));
        let (own, of_control) = (t.scored()?, control.map(Trained::scored).transpose()?);
        let last = of_control.as_ref().map(Scored::last);
        let mut gains = answers(untouched, &own.last(), last.as_deref())?;
        let mut zero = epoch_zero(untouched, &own, of_control.as_ref())?;
        if t.stopped() || control.is_some_and(Trained::stopped) {
            gains = gains.without_verdicts();
            let silent =
                |zero: EpochZero| EpochZero { answers: zero.answers.without_verdicts(), ..zero };
            zero = zero.map(silent);
        }
        row.control = control.map(|control| control.row.name.clone());
        row.gain_over_control = gains.nll_over_control.as_ref().map(Effect::estimate);
        row.calibrated_gain_over_control =
            gains.calibrated_nll_over_control.as_ref().map(Effect::estimate);
        (row.answers, row.epoch_zero) = (Some(gains), zero);
        rows.push(row);
    }
    Ok(rows)
}

/// Damaged image files that any run used, without repetition, in the order of the runs.
pub(super) fn damaged(trained: &[Trained]) -> Vec<DamagedFile> {
    let all = trained.iter().flat_map(|t| &t.runs).flat_map(|run| &run.damaged);
    let mut seen = HashSet::new();
    all.filter(|file| seen.insert(&file.path)).cloned().collect()
}

/// Time and memory of a row.
pub(super) fn cost(trained: &Trained) -> Cost {
    let runs = &trained.runs;
    let seconds: Vec<f64> = runs.iter().map(|r| r.seconds_per_epoch).collect();
    let memory: Option<Vec<f64>> =
        runs.iter().map(|r| r.training_peak_mib.map(|m| m as f64)).collect();
    Cost {
        name: trained.row.name.clone(),
        seconds_per_epoch: mean_stderr(&seconds),
        peak_mib: memory.map(|m| mean_stderr(&m)),
        cache: runs.iter().map(|r| r.cache.clone()).collect(),
    }
}

fn no_run() -> Error {
    Error::Missing("a row has no run: train each row with at least one seed".into())
}

pub(super) fn no_test() -> Error {
    Error::Missing(
        "there are no test images: set `test_data`, or use a data set with a test split".into(),
    )
}
