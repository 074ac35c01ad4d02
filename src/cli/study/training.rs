//! Training runs from one checkpoint: what does not depend on the run is computed once.

use super::bench::Run;
use super::judged::{Judged, Start};
use super::setup::Opened;
use crate::cache::About;
use crate::checkpoint::Error as CheckpointError;
use crate::cli::caching::{keep, view_name};
use crate::cli::common::Common;
use crate::cli::images::{pixels, sample};
use crate::cli::model::objective;
use crate::cli::training::{Kept, micro_batch, settings, stepping};
use crate::data::{Role, Split, require};
use crate::objective::{Activations, Examples, Objective};
use crate::pixels::Pixels;
use crate::train::Keep;
use crate::train::Prefix;
use crate::train::post::{Event, Outcome, post_train};
use crate::train::source::Source;
use crate::vit::stage_name;
use candle_core::DType;
use serde_json::{Map, Value};
use std::time::Instant;

/// Validation images that each epoch is watched on, as `post-train` has it.
const WATCHED: usize = 1000;

/// What is done with a finished run: its place among the runs, its figures and its seconds; whether to
/// go on.
pub type Finished<'f> = dyn FnMut(usize, Map<String, Value>, f64) -> anyhow::Result<bool> + 'f;

/// A model with its images, before any training.
pub struct Ground<'a> {
    opened: &'a Opened,
    common: Common,
    model: Objective,
    train: Pixels,
    watched: Pixels,
    start: Start,
}

impl<'a> Ground<'a> {
    /// Takes the model's logits on V, and on `test` if that is to be read.
    ///
    /// # Errors
    /// No training images or no V; images that cannot be read; logits that are not finite.
    pub fn new(opened: &'a Opened, common: &Common, test: Option<&Split>) -> anyhow::Result<Self> {
        let checkpoint = &opened.checkpoint;
        let train = require(Role::Train, opened.roles.train.as_ref())?;
        let val = require(Role::Val, opened.roles.val.as_ref())?;
        let model = objective(checkpoint, DType::F32)?;
        let of = |split: &Split| pixels(checkpoint, split);
        let judges = std::iter::once(val).chain(test).map(of).collect::<Result<_, _>>()?;
        let start = Start::new(&model, judges, common.seed)?;
        let watched = of(&sample(val, Some(WATCHED), common.seed)?)?;
        let train = of(train)?;
        let common = Common { quiet: true, ..common.clone() };
        Ok(Self { opened, common, model, train, watched, start })
    }

    /// Trains, run by run, those together that freeze the same layers. `begin` is told what goes on,
    /// epoch by epoch; `finished` has each run's place, figures and seconds, and says whether to go on.
    ///
    /// # Errors
    /// Those of training and of `finished`.
    pub fn train(
        &self,
        runs: &[&Run],
        begin: &dyn Fn(&str),
        finished: &mut Finished,
    ) -> anyhow::Result<()> {
        let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
        for (place, run) in runs.iter().enumerate() {
            let frozen = frozen(run);
            match groups.iter_mut().find(|(known, _)| *known == frozen) {
                Some((_, group)) => group.push(place),
                None => groups.push((frozen, vec![place])),
            }
        }
        for (_, group) in &groups {
            if !self.group(runs, group, begin, finished)? {
                break;
            }
        }
        Ok(())
    }

    /// Trains runs that share their frozen layers; whether to go on.
    fn group(
        &self,
        runs: &[&Run],
        places: &[usize],
        begin: &dyn Fn(&str),
        finished: &mut Finished,
    ) -> anyhow::Result<bool> {
        let Some(first) = places.first().map(|&place| runs[place]) else { return Ok(true) };
        let mut clock = Instant::now();
        let (words, stage) = (&first.words.recipe, first.recipe.first_stage());
        let mut model = self.model.clone();
        model.precision = words.precision.get();
        if let Some(n) = micro_batch(words) {
            model.micro_batch = n.min(words.batch_size);
        }
        let cache = &words.cache;
        let views = cache.views(&self.train, words.epochs, self.common.seed)?;
        let shown = views.iter().map(|view| view as &dyn Examples).collect();
        let prefix = Prefix::new(&model, shown, stage, cache.half());
        let ram = cache.cache_ram.saturating_mul(1 << 20);
        let plan = cache.plan(&prefix, ram)?;
        let about = |view| About {
            key: String::new(),
            model: self.opened.checkpoint.path.display().to_string(),
            data: self.train.split().place(),
            stage: stage_name(&model.config, stage),
            view: view_name(&cache.augment, self.common.seed, view),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        begin("frozen layers");
        let source = keep(cache, prefix, &plan, &about, &self.common)?.source;
        let watched = model.activations(&self.watched, stage)?;
        let frozen = self.start.frozen(&self.model, stage, ram)?;
        let stepping = stepping(&model, words, false, stage);
        for &place in places {
            let outcome = self.run(runs[place], &stepping, (&source, &watched), begin)?;
            let figures = self.judge(&outcome, &frozen, watched.labels.len())?;
            let seconds = clock.elapsed().as_secs_f64();
            clock = Instant::now();
            if !finished(place, figures, seconds)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run(
        &self,
        run: &Run,
        model: &Objective,
        (source, watched): (&Source, &Activations),
        begin: &dyn Fn(&str),
    ) -> anyhow::Result<Outcome> {
        let mut recipe = run.recipe.clone();
        // The training set has no more.
        recipe.perturbation_batch = recipe.perturbation_batch.min(source.len());
        let keep = run.words.keep.map_or(Keep::Best, Kept::keep);
        let settings = settings(&run.words.recipe, keep, run.seed);
        let mut method = recipe.method(&model.config, source.len(), run.seed)?;
        let watched = Some(watched);
        let (called, epochs) = (run.called(), settings.epochs);
        let mut tell = |event: Event| match event {
            Event::Start(_) => begin(&format!("{called}, epoch 1 of {epochs}")),
            Event::Epoch(e) if e.epoch < epochs => {
                begin(&format!("{called}, epoch {} of {epochs}", e.epoch + 1));
            }
            Event::Epoch(_) => begin(&format!("{called}, its figures")),
            Event::Step(_) => {}
        };
        Ok(post_train(model, &mut *method, source, watched, &settings, &mut tell)?)
    }

    /// The row's figures: how training went, and the result, as it would be stored, beside the start.
    fn judge(
        &self,
        outcome: &Outcome,
        frozen: &[Option<Activations>],
        watched: usize,
    ) -> anyhow::Result<Map<String, Value>> {
        let (judged, flaw) = match self.opened.checkpoint.as_stored(&outcome.weights) {
            Ok(stored) => self.start.judge(&self.model.exact().at(stored), frozen)?,
            Err(error @ CheckpointError::Overflow { .. }) => {
                (Judged::default(), Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        let stopped = outcome.stopped.as_ref().map(ToString::to_string).or(flaw);
        let last = outcome.epochs.last();
        let kept = outcome.epochs.iter().find(|e| e.epoch == outcome.epoch);
        let mut row: Map<String, Value> = [
            ("selected_epoch", Value::from(outcome.epoch)),
            ("finished_epochs", outcome.epochs.len().into()),
            ("stopped", stopped.into()),
            ("watched_images", watched.into()),
            ("watched_loss_before", outcome.start.into()),
            ("watched_loss_after", kept.and_then(|e| e.validation_loss).into()),
            ("training_loss", last.map(|e| e.training_loss).into()),
            ("perturbation", last.and_then(|e| e.perturbation).into()),
            ("perturbation_length", last.and_then(|e| e.perturbation_length).into()),
            ("capped", last.and_then(|e| e.capped).into()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        row.extend(judged.0);
        Ok(row)
    }
}

/// What cells must agree in to share their frozen layers.
fn frozen(run: &Run) -> String {
    let words = &run.words.recipe;
    let epochs = if words.cache.augment == Default::default() { 0 } else { words.epochs };
    format!(
        "{} {:?} {:?} {:?} {epochs}",
        run.recipe.first_stage(),
        words.cache,
        words.precision,
        micro_batch(words).map(|n| n.min(words.batch_size)),
    )
}
