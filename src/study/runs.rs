//! Post-training cells: their names and settings.

use super::Planned;
use super::bench::{runs, wants};
use super::cells::{Cell, Job};
use super::file::Bench;
use super::settings::{CellSettings, ImageSettings, RunSettings};
use super::setup::{ModelOnData, Opened, Setup};
use crate::data::{Role, Split, require};
use crate::error::Result;
use crate::evaluate::DEFINITIONS;
use crate::fingerprint::fingerprint;
use crate::options::names;
use crate::post_train::TrialSpec;
use crate::session::Context;
use crate::train::{LoraOptions, MethodArgs, TrainOptions};
use serde_json::{Value, json};
use std::collections::HashSet;

/// The splits of a run.
pub struct Splits<'a> {
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
    pub fn images(&self) -> Result<Splits<'_>> {
        Ok(Splits {
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
pub fn cells(
    setup: &Setup,
    pair: ModelOnData,
    opened: &Opened,
    context: &Context,
) -> Result<Vec<Cell>> {
    let (mut all, mut told): (Vec<Cell>, HashSet<String>) = Default::default();
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
        let named = |run: TrialSpec, control: Option<String>| -> Result<Cell> {
            let settings = settings(&run, bench, about(opened, &images, context));
            let cell = cell(&run, &settings, opened, &images, context)?;
            let diagnosis = diagnosis.as_ref().map(|d| d.planned.cell.clone());
            let model = setup.model_settings(pair, &opened.checkpoint);
            let settings = CellSettings::Run(Box::new(settings));
            let planned = Planned { cell, model, settings, control, diagnosis };
            Ok(Cell { planned, job: Job::Train { pair, run: Box::new(run) } })
        };
        let mut seen = HashSet::new();
        let mut note = |text: String| {
            // Combinations and seeds have the same notes.
            if told.insert(text.clone()) {
                context.note(&text);
            }
        };
        for run in runs(setup, bench, &opened.checkpoint, images.train.len(), &mut note)? {
            let control =
                (!run.recipe.is_control()).then(|| named(run.control(), None)).transpose()?;
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
    pair: ModelOnData,
    opened: &Opened,
    images: &Splits,
    context: &Context,
) -> Result<Cell> {
    let spec = json!({ "definitions": DEFINITIONS, "of": identity(opened, images, context) });
    let cell = fingerprint("planish/diagnosis/4", &spec)?;
    let model = setup.model_settings(pair, &opened.checkpoint);
    let settings = CellSettings::Diagnosis(about(opened, images, context));
    let planned = Planned { cell, model, settings, control: None, diagnosis: None };
    Ok(Cell { planned, job: Job::Diagnose { pair } })
}

/// Everything that results on a pair's roles depend on.
fn identity(opened: &Opened, images: &Splits, context: &Context) -> Value {
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

/// What tables say about the images.
fn about(opened: &Opened, images: &Splits, context: &Context) -> ImageSettings {
    let Splits { train, val, test } = images;
    ImageSettings {
        train_images: train.len(),
        train_digest: train.digest().into(),
        val_images: val.len(),
        val_digest: val.digest().into(),
        test_images: test.len(),
        test_digest: test.digest().into(),
        val_from: opened.roles.val_origin.clone(),
        seed: context.seed,
    }
}

/// The settings of a run.
fn settings(run: &TrialSpec, bench: &Bench, images: ImageSettings) -> RunSettings {
    let args = run.recipe.args();
    // B′ is at most the training set.
    let perturb_batch = args.perturb_batch.map(|n| n.min(images.train_images));
    RunSettings {
        bench: bench.name.as_ref().clone(),
        method: run.recipe.method.method_name(),
        of_method: MethodArgs { perturb_batch, ..args },
        train: run.train.clone(),
        keep: run.keep,
        cache_dtype: run.cache.cache_dtype,
        train_seed: run.seed,
        images,
    }
}

/// The name of a run's cell. Every training and method option is part of it. Layers count by their
/// tensors, not by their names; `micro_batch` and `accumulate` set one size.
fn cell(
    run: &TrialSpec,
    settings: &RunSettings,
    opened: &Opened,
    images: &Splits,
    context: &Context,
) -> Result<String> {
    let micro_batch = run.train.micro_batch();
    let train = TrainOptions { micro_batch, accumulate: None, ..run.train.clone() };
    let of_method = MethodArgs { perturb: None, update: None, ..settings.of_method.clone() };
    let mut of_method = serde_json::to_value(of_method)?;
    if let (None, Value::Object(fields)) = (settings.of_method.lora.lora, &mut of_method) {
        // Cells without adapters keep the names that they had before there were options of adapters.
        names::<LoraOptions>().iter().for_each(|name| drop(fields.remove(name)));
    }
    let spec = json!({
        "definitions": DEFINITIONS,
        "of": identity(opened, images, context),
        "method": settings.method,
        "of_method": of_method,
        "perturb": run.recipe.perturb.as_ref().map(|layer| &layer.tensors),
        "update": run.recipe.update.tensors,
        "train": train,
        "keep": settings.keep,
        "cache_dtype": settings.cache_dtype,
        "train_seed": settings.train_seed,
    });
    Ok(fingerprint("planish/run/4", &spec)?)
}
