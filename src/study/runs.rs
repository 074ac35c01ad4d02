//! Post-training cells: their names and settings.

use super::bench::{runs, wants};
use super::cells::{Cell, Job};
use super::setup::{Opened, Pair, Setup};
use super::{Kind, Planned};
use crate::data::{Role, Split, require};
use crate::error::Result;
use crate::evaluate::DEFINITIONS;
use crate::fingerprint::fingerprint;
use crate::post_train::{Compared, Run, Trial};
use crate::session::Context;
use crate::train::recipe::ResolvedMethod;
use crate::train::run::TrainSettings;
use crate::train::sam::Variant;
use crate::train::{Keep, TrainOptions};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// The images of a run.
pub struct Images<'a> {
    /// Training images.
    pub train: &'a Split,
    /// V, which selects the epoch.
    pub val: &'a Split,
    /// Test images.
    pub test: &'a Split,
}

impl Opened {
    /// All three splits.
    ///
    /// # Errors
    /// A missing split.
    pub fn images(&self) -> Result<Images<'_>> {
        Ok(Images {
            train: require(Role::Train, self.roles.train.as_ref())?,
            val: require(Role::Val, self.roles.val.as_ref())?,
            test: require(Role::Test, self.roles.test.as_ref())?,
        })
    }
}

/// The cells of a pair: diagnosis, controls and methods. Each appears once per `[[bench]]`.
///
/// # Errors
/// A `[[bench]]` that is invalid for this model; no V, training or test images.
pub fn cells(setup: &Setup, pair: Pair, opened: &Opened, context: &Context) -> Result<Vec<Cell>> {
    let mut all: Vec<Cell> = Vec::new();
    for bench in &setup.file.bench {
        if !wants(setup, bench, pair)? {
            continue;
        }
        let images = opened.images()?;
        let diagnosis =
            bench.diagnose.then(|| diagnosis(setup, pair, opened, &images, context)).transpose()?;
        if let Some(cell) = &diagnosis
            && !all.iter().any(|known| known.planned.cell == cell.planned.cell)
        {
            all.push(Cell { planned: cell.planned.clone(), job: cell.job.clone() });
        }
        let mut base = setup.columns(pair, &opened.checkpoint);
        base.insert("bench".into(), bench.name.as_ref().clone().into());
        let named = |run: Run, control: Option<String>| -> Result<Cell> {
            let settings = of_run(&run, images.train.len());
            let mut own = base.clone();
            own.extend(columns(&run, &settings));
            own.extend(about(opened, &images, context));
            let cell = cell(&run, &settings, opened, &images, context)?;
            let diagnosis = diagnosis.as_ref().map(|d| d.planned.cell.clone());
            let planned = Planned { cell, kind: Kind::Run, control, diagnosis, settings: own };
            Ok(Cell { planned, job: Job::Train { pair, run: Box::new(run) } })
        };
        let mut seen = HashSet::new();
        for run in runs(setup, bench, &opened.checkpoint)? {
            let control = (run.recipe.method != ResolvedMethod::Sgd)
                .then(|| named(run.control(), None))
                .transpose()?;
            let name = control.as_ref().map(|c| c.planned.cell.clone());
            for cell in control.into_iter().chain([named(run, name)?]) {
                if seen.insert(cell.planned.cell.clone()) {
                    all.push(cell);
                }
            }
        }
    }
    Ok(all)
}

/// The diagnosis cell of a pair.
fn diagnosis(
    setup: &Setup,
    pair: Pair,
    opened: &Opened,
    images: &Images,
    context: &Context,
) -> Result<Cell> {
    let mut settings = setup.columns(pair, &opened.checkpoint);
    settings.extend(about(opened, images, context));
    let spec = json!({ "definitions": DEFINITIONS, "of": identity(opened, images, context) });
    let cell = fingerprint("planish/diagnosis/2", &spec)?;
    let planned = Planned { cell, kind: Kind::Diagnosis, control: None, diagnosis: None, settings };
    Ok(Cell { planned, job: Job::Diagnose { pair } })
}

/// Everything that results on a pair's roles depend on.
fn identity(opened: &Opened, images: &Images, context: &Context) -> Value {
    json!({
        "checkpoint": opened.checkpoint.digest,
        "architecture": opened.checkpoint.config,
        "preprocessing": opened.checkpoint.preprocess,
        "train": images.train.digest(),
        "val": images.val.digest(),
        "test": images.test.digest(),
        "seed": context.seed,
        "rounding": context.engine.rounding(),
    })
}

/// Columns that describe the images.
fn about(opened: &Opened, images: &Images, context: &Context) -> Map<String, Value> {
    let mut row = Map::new();
    for (role, split) in [("train", images.train), ("val", images.val), ("test", images.test)] {
        row.insert(format!("{role}_images"), split.len().into());
        row.insert(format!("{role}_digest"), split.digest().into());
    }
    row.insert("val_from".into(), opened.roles.val_origin.clone().into());
    row.insert("seed".into(), context.seed.into());
    row
}

/// The settings that all methods share, and the size of B′, which is at most the training set.
fn of_run(run: &Run, images: usize) -> (TrainSettings, usize) {
    (run.settings(), run.recipe.perturbation_batch.min(images))
}

/// The name of a run's cell.
fn cell(
    run: &Run,
    (settings, perturbation_batch): &(TrainSettings, usize),
    opened: &Opened,
    images: &Images,
    context: &Context,
) -> Result<String> {
    let recipe = &run.recipe;
    // All options are listed, so that a new one cannot be forgotten here. Those without a name are
    // part of `settings`; the two sizes give one micro-batch.
    let TrainOptions {
        epochs: _,
        batch_size: _,
        lr: _,
        schedule: _,
        warmup: _,
        momentum: _,
        weight_decay: _,
        clip: _,
        augment,
        views,
        precision,
        micro_batch: _,
        accumulate: _,
    } = &run.train;
    let perturbed = recipe
        .perturb
        .as_ref()
        .map(|p| json!([p.tensors, recipe.gamma_max, perturbation_batch, recipe.rule]));
    let spec = json!({
        "definitions": DEFINITIONS,
        "of": identity(opened, images, context),
        "method": recipe.method,
        "perturb": perturbed,
        "rho": recipe.rho,
        "update": recipe.update.tensors,
        "settings": settings,
        "micro_batch": run.train.micro_batch(),
        "precision": precision.name(),
        "half": run.cache.half(),
        "augment": augment,
        "views": views,
    });
    Ok(fingerprint("planish/run/2", &spec)?)
}

/// All settings of a run, by column.
fn columns(
    run: &Run,
    (settings, perturbation_batch): &(TrainSettings, usize),
) -> Map<String, Value> {
    let (recipe, train) = (&run.recipe, &run.train);
    let perturbed = recipe.perturb.as_ref();
    let (eta, every, alpha) = match recipe.method {
        ResolvedMethod::Sam(Variant::Adaptive { eta }) => (Some(eta), None, None),
        ResolvedMethod::Sam(Variant::Look { every, alpha }) => (None, Some(every), Some(alpha)),
        _ => (None, None, None),
    };
    let sam = matches!(recipe.method, ResolvedMethod::Sam(_));
    let all: [(&str, Value); 24] = [
        ("method", recipe.method.name().into()),
        ("perturb", perturbed.map(|p| p.name.clone()).into()),
        ("update", recipe.update.name.clone().into()),
        ("epochs", settings.epochs.into()),
        ("batch_size", settings.batch_size.into()),
        ("lr", settings.lr.into()),
        ("schedule", settings.schedule.name().into()),
        ("warmup", settings.warmup.into()),
        ("clip", settings.clip.into()),
        ("momentum", train.momentum.into()),
        ("weight_decay", settings.weight_decay.into()),
        ("keep", if settings.keep == Keep::Best { "best" } else { "last" }.into()),
        ("gamma", perturbed.map(|_| recipe.gamma_max).into()),
        ("perturb_batch", perturbed.map(|_| *perturbation_batch).into()),
        ("step", perturbed.map(|_| recipe.rule.name()).into()),
        ("rho", sam.then_some(recipe.rho).into()),
        ("asam_eta", eta.into()),
        ("look_every", every.into()),
        ("look_alpha", alpha.into()),
        ("augment", train.augment.to_string().into()),
        ("views", train.views.into()),
        ("cache_dtype", if run.cache.half() { "bf16" } else { "f32" }.into()),
        ("precision", train.precision.name().into()),
        ("train_seed", run.seed.into()),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The results of a finished run, by column.
pub fn figures(trial: &Trial) -> Map<String, Value> {
    let last = trial.epochs.last();
    let kept = trial.epochs.iter().find(|e| e.epoch == trial.selected_epoch);
    let mut row: Map<String, Value> = [
        ("selected_epoch", Value::from(trial.selected_epoch)),
        ("finished_epochs", trial.epochs.len().into()),
        ("stopped", trial.stopped.clone().into()),
        ("watched_images", trial.watched_images.into()),
        ("watched_loss_before", trial.watched_before.into()),
        ("watched_loss_after", kept.and_then(|e| e.validation_loss).into()),
        ("training_loss", last.map(|e| e.training_loss).into()),
        ("perturbation", last.and_then(|e| e.perturbation).into()),
        ("perturbation_length", last.and_then(|e| e.perturbation_length).into()),
        ("capped", last.and_then(|e| e.capped).into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    for (split, found) in [("val", &trial.val), ("test", &trial.test)] {
        if let Some(found) = found {
            compared(split, found, &mut row);
        }
    }
    row
}

fn compared(split: &str, found: &Compared, row: &mut Map<String, Value>) {
    let estimate = |row: &mut Map<String, Value>, name: String, mean: f64, stderr: Option<f64>| {
        row.insert(name.clone(), mean.into());
        row.insert(format!("{name}_stderr"), stderr.into());
    };
    for (when, s) in [("before", &found.before), ("after", &found.after)] {
        let d = s.details.as_ref();
        for (figure, mean, stderr) in [
            ("nll", s.nll, s.nll_stderr),
            ("calibrated_nll", s.calibrated_nll, s.calibrated_nll_stderr),
            ("top1", s.top1, s.top1_stderr),
            ("ece", s.ece, d.and_then(|d| d.ece_stderr)),
            ("calibrated_ece", s.calibrated_ece, d.and_then(|d| d.calibrated_ece_stderr)),
            ("brier", d.map_or(f64::NAN, |d| d.brier), d.and_then(|d| d.brier_stderr)),
        ] {
            estimate(row, format!("{split}_{when}_{figure}"), mean, stderr);
        }
        row.insert(format!("{split}_{when}_temperature"), s.temperature.into());
        row.insert(format!("{split}_{when}_temperature_bound"), json!(s.temperature_bound));
    }
    let (nll, calibrated) = (found.nll_gain, found.calibrated_nll_gain);
    estimate(row, format!("{split}_nll_gain"), nll.mean, nll.stderr);
    estimate(row, format!("{split}_calibrated_nll_gain"), calibrated.mean, calibrated.stderr);
}
