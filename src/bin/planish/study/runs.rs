//! Cells of post-training: their names and settings.

use super::bench::{Run, RunWords, runs, wants};
use super::cells::{Cell, Job};
use super::setup::{Opened, Pair, Setup};
use crate::common::Common;
use crate::training::{Kept, settings};
use planish::data::{Role, Split, require};
use planish::evaluate::DEFINITIONS;
use planish::fingerprint::fingerprint;
use planish::study::{Kind, Planned};
use planish::train::Keep;
use planish::train::perturbation::Rule;
use planish::train::post::Settings;
use planish::train::recipe::Kind as Method;
use planish::train::sam::Variant;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// The images of a run.
pub struct Images<'a> {
    /// They train.
    pub train: &'a Split,
    /// V: it chooses the epoch.
    pub val: &'a Split,
    /// They judge.
    pub test: &'a Split,
}

impl Opened {
    /// All three, or what is missing.
    ///
    /// # Errors
    /// A split that there is not.
    pub fn images(&self) -> anyhow::Result<Images<'_>> {
        Ok(Images {
            train: require(Role::Train, self.roles.train.as_ref())?,
            val: require(Role::Val, self.roles.val.as_ref())?,
            test: require(Role::Test, self.roles.test.as_ref())?,
        })
    }
}

/// The cells of a pair: diagnosis, controls and methods, each once a `[[bench]]`.
///
/// # Errors
/// A `[[bench]]` that makes no sense for this model; no V, training or test images.
pub fn cells(
    setup: &Setup,
    pair: Pair,
    opened: &Opened,
    common: &Common,
) -> anyhow::Result<Vec<Cell>> {
    let mut all: Vec<Cell> = Vec::new();
    for bench in &setup.file.bench {
        if !wants(setup, bench, pair)? {
            continue;
        }
        let images = opened.images()?;
        let diagnosis =
            bench.diagnose.then(|| diagnosis(setup, pair, opened, &images, common)).transpose()?;
        if let Some(cell) = &diagnosis
            && !all.iter().any(|known| known.planned.cell == cell.planned.cell)
        {
            all.push(Cell { planned: cell.planned.clone(), job: cell.job.clone() });
        }
        let mut base = setup.columns(pair, &opened.checkpoint);
        base.insert("bench".into(), bench.name.as_ref().clone().into());
        let named = |run: Run, control: Option<String>| -> anyhow::Result<Cell> {
            let settings = run.settings(images.train.len());
            let mut columns = base.clone();
            columns.extend(run.columns(&settings));
            columns.extend(about(opened, &images, common));
            let cell = run.cell(&settings, opened, &images, common)?;
            let diagnosis = diagnosis.as_ref().map(|d| d.planned.cell.clone());
            let planned = Planned { cell, kind: Kind::Run, control, diagnosis, settings: columns };
            Ok(Cell { planned, job: Job::Train { pair, run: Box::new(run) } })
        };
        let mut seen = HashSet::new();
        for run in runs(setup, bench, &opened.checkpoint)? {
            let control =
                (run.recipe.kind != Method::Sgd).then(|| named(run.control(), None)).transpose()?;
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

/// The diagnosis of a pair.
fn diagnosis(
    setup: &Setup,
    pair: Pair,
    opened: &Opened,
    images: &Images,
    common: &Common,
) -> anyhow::Result<Cell> {
    let mut settings = setup.columns(pair, &opened.checkpoint);
    settings.extend(about(opened, images, common));
    let spec = json!({ "definitions": DEFINITIONS, "of": identity(opened, images, common) });
    let cell = fingerprint("planish/diagnosis/2", &spec)?;
    let planned = Planned { cell, kind: Kind::Diagnosis, control: None, diagnosis: None, settings };
    Ok(Cell { planned, job: Job::Diagnose { pair } })
}

/// What everything that is measured of a pair's roles follows from.
fn identity(opened: &Opened, images: &Images, common: &Common) -> Value {
    json!({
        "checkpoint": opened.checkpoint.digest,
        "architecture": opened.checkpoint.config,
        "preprocessing": opened.checkpoint.preprocess,
        "train": images.train.digest(),
        "val": images.val.digest(),
        "test": images.test.digest(),
        "seed": common.seed,
        "tf32": common.tf32,
    })
}

/// Columns that tell of the images.
fn about(opened: &Opened, images: &Images, common: &Common) -> Map<String, Value> {
    let mut row = Map::new();
    for (role, split) in [("train", images.train), ("val", images.val), ("test", images.test)] {
        row.insert(format!("{role}_images"), split.len().into());
        row.insert(format!("{role}_digest"), split.digest().into());
    }
    row.insert("val_from".into(), opened.roles.val_origin.clone().into());
    row.insert("seed".into(), common.seed.into());
    row
}

impl Run {
    /// The settings that every method shares; B′ is no larger than the training set.
    fn settings(&self, images: usize) -> (Settings, usize) {
        let RunWords { recipe, keep } = &self.words;
        let keep = keep.map_or(Keep::Best, Kept::keep);
        (settings(recipe, keep, self.seed), self.recipe.perturbation_batch.min(images))
    }

    /// The digest of all that it follows from.
    fn cell(
        &self,
        (settings, perturbation_batch): &(Settings, usize),
        opened: &Opened,
        images: &Images,
        common: &Common,
    ) -> anyhow::Result<String> {
        let (recipe, cache) = (&self.recipe, &self.words.recipe.cache);
        let perturbed = recipe
            .perturb
            .as_ref()
            .map(|p| json!([p.tensors, recipe.gamma_max, perturbation_batch, recipe.rule]));
        let spec = json!({
            "definitions": DEFINITIONS,
            "of": identity(opened, images, common),
            "method": recipe.kind,
            "perturb": perturbed,
            "rho": recipe.rho,
            "update": recipe.update.tensors,
            "settings": settings,
            "micro_batch": crate::training::micro_batch(&self.words.recipe),
            "precision": self.words.recipe.precision.get().name(),
            "half": cache.half(),
            "augment": cache.augment.to_string(),
            "views": cache.views,
        });
        Ok(fingerprint("planish/run/2", &spec)?)
    }

    /// Every setting, column by column.
    fn columns(&self, (settings, perturbation_batch): &(Settings, usize)) -> Map<String, Value> {
        let (recipe, words) = (&self.recipe, &self.words.recipe);
        let perturbed = recipe.perturb.as_ref();
        let (eta, every, alpha) = match recipe.kind {
            Method::Sam(Variant::Adaptive { eta }) => (Some(eta), None, None),
            Method::Sam(Variant::Look { every, alpha }) => (None, Some(every), Some(alpha)),
            _ => (None, None, None),
        };
        let sam = matches!(recipe.kind, Method::Sam(_));
        let step = if recipe.rule == Rule::Newton { "newton" } else { "search" };
        let all: [(&str, Value); 24] = [
            ("method", recipe.kind.name().into()),
            ("perturb", perturbed.map(|p| p.name.clone()).into()),
            ("update", recipe.update.name.clone().into()),
            ("epochs", settings.epochs.into()),
            ("batch_size", settings.batch.into()),
            ("lr", settings.learning_rate.into()),
            ("schedule", words.schedule.name().into()),
            ("warmup", settings.warmup.into()),
            ("clip", settings.clip.into()),
            ("momentum", settings.momentum.into()),
            ("weight_decay", settings.weight_decay.into()),
            ("keep", if settings.keep == Keep::Best { "best" } else { "last" }.into()),
            ("gamma", perturbed.map(|_| recipe.gamma_max).into()),
            ("perturb_batch", perturbed.map(|_| *perturbation_batch).into()),
            ("step", perturbed.map(|_| step).into()),
            ("rho", sam.then_some(recipe.rho).into()),
            ("asam_eta", eta.into()),
            ("look_every", every.into()),
            ("look_alpha", alpha.into()),
            ("augment", words.cache.augment.to_string().into()),
            ("views", words.cache.views.into()),
            ("cache_dtype", if words.cache.half() { "bf16" } else { "f32" }.into()),
            ("precision", words.precision.get().name().into()),
            ("train_seed", self.seed.into()),
        ];
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
