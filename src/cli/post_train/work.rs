//! `post-train` up to the judgement: everything opened and checked, the layers chosen, the model
//! trained.

use super::Args;
use super::destination::Destination;
use super::record::method_info;
use crate::checkpoint::Checkpoint;
use crate::cli::diagnose::Subject;
use crate::cli::format::duration;
use crate::cli::images::{Sources, pixels, sample};
use crate::cli::model::objective;
use crate::cli::outcome::epoch_line;
use crate::cli::recipe::recipe;
use crate::cli::training::{Kept, check, micro_batch, settings};
use crate::data::order::Batches;
use crate::data::{Role, Roles, Split, require};
use crate::forecast::{measure_rate, peak_mib};
use crate::objective::Objective;
use crate::pixels::Pixels;
use crate::train::post::{Outcome, Settings, post_train};
use crate::train::recipe::Recipe;
use crate::train::source::{Source, cache_bytes};
use crate::train::{Keep, Schedule};
use crate::vit::Granularity;
use crate::vit::layers::layers;
use anyhow::{Context, bail};
use candle_core::DType;
use std::time::Instant;

/// Validation images that each epoch is watched on: enough to see where a run goes.
const WATCHED: usize = 1000;

/// All that is known before training.
pub struct Work {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The data sets.
    pub sources: Sources,
    /// Who of their images does what.
    pub roles: Roles,
    /// The training images.
    pub train: Split,
    /// The same as the model takes them.
    pub images: Pixels,
    /// The model.
    pub model: Objective,
    /// V, measured on; if there is one.
    pub subject: Option<Subject>,
    /// The method with its layers.
    pub recipe: Recipe,
    /// On whose word.
    pub chosen_by: String,
    /// What every method shares.
    pub settings: Settings,
    /// Where the result goes.
    pub destination: Destination,
}

/// Opens and checks everything, chooses the layers, by a diagnosis if need be.
///
/// # Errors
/// Whatever keeps training from starting.
pub fn prepare(args: &Args) -> anyhow::Result<Work> {
    check(&args.recipe)?;
    let checkpoint = args.model.open()?;
    let destination = args.place.open(&checkpoint)?;
    let sources = args.data.open()?;
    let roles = sources.roles(&checkpoint, args.common.seed)?;
    let train = require(Role::Train, roles.train.as_ref())?.clone();
    let keep = match (args.keep.map(Kept::keep), &roles.val) {
        (Some(Keep::Best), None) => {
            bail!(
                "--keep best: expected validation images, found none; pass --val-data or --keep last"
            )
        }
        (Some(keep), _) => keep,
        (None, Some(_)) => Keep::Best,
        (None, None) => Keep::Last,
    };
    let seed = args.recipe.train_seed.unwrap_or(args.common.seed);
    let settings = settings(&args.recipe, keep, seed);
    // Known now, before a diagnosis and the frozen layers have taken their time.
    let steps = Batches::new(train.len(), settings.batch, 0, "B")?.per_epoch();
    Schedule::over(settings.schedule, settings.learning_rate, 0.0, settings.epochs, steps)?;

    let mut model = objective(&checkpoint, DType::F32)?;
    if let Some(n) = micro_batch(&args.recipe) {
        model.micro_batch = n.min(settings.batch);
    }
    let images = pixels(&checkpoint, &train)?;
    let subject = match &roles.val {
        Some(_) => Some(Subject::new(&checkpoint, &roles, args.samples, &args.common)?),
        None => None,
    };
    let diagnose = || {
        let subject = subject.as_ref().context(
            "there are no validation images to make a plan on: pass --val-data, or --perturb and \
             --update",
        )?;
        let all = layers(&checkpoint.config, Granularity::Block);
        Ok(subject.measure(&all, &args.common)?.plan)
    };
    let (recipe, chosen_by) =
        recipe(args.method, &args.layers, &args.recipe, &checkpoint, &roles.val_origin, &diagnose)?;
    destination.check_space(&checkpoint, &recipe.update)?;
    Ok(Work {
        checkpoint,
        sources,
        roles,
        train,
        images,
        model,
        subject,
        recipe,
        chosen_by,
        settings,
        destination,
    })
}

/// What training gave.
pub struct Trained {
    /// The weights kept, and how the epochs went.
    pub outcome: Outcome,
    /// Validation images that epochs were watched on.
    pub watched: Option<usize>,
    /// Whether the frozen layers' activations were kept in memory.
    pub cached: bool,
    /// Seconds that they took.
    pub cache_seconds: f64,
}

/// Runs the frozen layers once, then the epochs; a forecast first.
///
/// # Errors
/// Those of [`post_train`].
pub fn train(args: &Args, work: &Work) -> anyhow::Result<Trained> {
    let Work { model, recipe, settings, images, .. } = work;
    let (steps, stage) = (work.train.len() / settings.batch.max(1), recipe.first_stage());
    let budget = args.recipe.cache.saturating_mul(1 << 20);
    if !args.common.quiet {
        note(&plan(work, steps, cache_bytes(model, images, stage), budget)?);
    }
    let clock = Instant::now();
    let progress = args.common.progress("frozen layers", images.split().len() as u64, "images");
    let source = Source::new(model, images, stage, budget, &mut |n| progress.add(n as u64))?;
    drop(progress);
    let cached = source.is_cached();
    let cache_seconds = if cached { clock.elapsed().as_secs_f64() } else { 0.0 };
    let watched = match &work.subject {
        Some(s) => {
            let few = sample(s.validation.split(), Some(WATCHED), args.common.seed)?;
            Some(model.activations(&pixels(&work.checkpoint, &few)?, stage)?)
        }
        None => None,
    };
    let mut method = recipe.method(&model.config, source.len(), settings.seed)?;
    let images = (steps as u64).saturating_mul(settings.batch as u64);
    let total = images.saturating_mul(settings.epochs as u64);
    let progress = args.common.progress(method.name(), total, "images");
    let outcome =
        post_train(model, &mut *method, &source, watched.as_ref(), settings, &mut |n, epoch| {
            progress.add(n as u64);
            if let (Some(epoch), false) = (epoch, args.common.quiet) {
                progress.line(&epoch_line(epoch));
            }
        })?;
    let watched = watched.map(|w| w.labels.len());
    Ok(Trained { outcome, watched, cached, cache_seconds })
}

/// What is about to be done, and what it will take; `held` bytes would keep the frozen layers'
/// activations.
fn plan(work: &Work, steps: usize, held: usize, budget: usize) -> anyhow::Result<String> {
    let Work { model, recipe, settings, .. } = work;
    let rate = measure_rate(model, &work.images)?;
    let tensors = recipe.update.tensors.iter();
    let tuned: usize = tensors.map(|&i| model.weights.tensor(i).elem_count()).sum();
    let held = if held <= budget { held as f64 } else { 0.0 };
    let flop = recipe.work(&model.config, settings.batch) * (steps * settings.batch) as f64;
    let method = method_info(recipe, &model.config, work.chosen_by.clone())?;
    Ok(format!(
        "{}: perturb {}, update {} ({}); {} epochs of {steps} steps, about {} an epoch and {:.0} \
         MiB",
        method.name,
        method.perturb.as_deref().unwrap_or("nothing"),
        method.update,
        method.chosen_by,
        settings.epochs,
        duration(flop / rate),
        peak_mib(model, recipe.copies() * tuned, held, recipe.is_newton()),
    ))
}

fn note(line: &str) {
    use std::io::Write;
    // A closed standard error is no reason to lose the work.
    let _ = writeln!(std::io::stderr(), "{line}");
}
