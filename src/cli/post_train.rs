//! `planish post-train`: PoL, PoF or plain SGD from a fine-tuned checkpoint.

use super::common::Common;
use super::diagnose::Subject;
use super::format::duration;
use super::images::{DataArgs, data_info, pixels, sample};
use super::model::{ModelArgs, checkpoint_info, objective};
use super::outcome::{epoch_line, show};
use super::output::print;
use super::recipe::{LayerArgs, Name, RecipeArgs, check, recipe, settings};
use super::scoring::{Pair, before_after, predict, remeasure};
use crate::checkpoint::{Checkpoint, Provenance};
use crate::data::order::Batches;
use crate::data::{Role, Split, require};
use crate::forecast::{measure_rate, peak_mib, step_work};
use crate::report::post_training::{MethodInfo, Report, SCHEMA, TimedRun};
use crate::train::perturbation::Rule;
use crate::train::post::{Settings, post_train};
use crate::train::recipe::Recipe;
use crate::train::source::{Source, cache_bytes};
use crate::vit::Granularity;
use crate::vit::layers::layers;
use anyhow::Context;
use candle_core::DType;
use std::path::PathBuf;
use std::time::Instant;

/// Options of `post-train`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  planish post-train model/ --data fashion-mnist/ --method pol \
                        --out better/\n  planish post-train model/ --data fashion-mnist/ --method \
                        pol --perturb head --update block.5 --out better/"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Method
    #[arg(long, value_enum, default_value = "pol")]
    method: Name,
    /// Where the result goes: a .safetensors file or a folder
    #[arg(long, value_name = "NEW")]
    out: PathBuf,
    #[command(flatten)]
    layers: LayerArgs,
    /// Validation images that the plan is made on [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    common: Common,
}

/// Validation images that each epoch is watched on: enough to see where a run goes.
const WATCHED: usize = 1000;

/// Runs the command.
///
/// # Errors
/// Anything that keeps the model from being trained, or its result from being written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    check(&args.recipe)?;
    let checkpoint = args.model.open()?;
    checkpoint.check_output(&args.out)?;
    let sources = args.data.open(&checkpoint)?;
    let roles = sources.roles(&checkpoint, args.common.seed)?;
    let train = require(Role::Train, roles.train.as_ref())?.clone();
    // Known now, before a diagnosis and the frozen layers have taken their time.
    Batches::new(train.len(), args.recipe.batch_size, 0, "B")?;
    let mut notes = roles.notes.clone();

    let model = objective(&checkpoint, DType::F32)?;
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
    let settings = settings(&args.recipe, args.recipe.train_seed.unwrap_or(args.common.seed));
    let (steps, stage) = (train.len() / settings.batch.max(1), recipe.first_stage());

    let budget = args.recipe.cache.saturating_mul(1 << 20);
    let held = cache_bytes(&model, &images, stage);
    let rate = measure_rate(&model, &images)?;
    let newton = recipe.rule == Rule::Newton;
    let ratio = recipe.perturbation_batch as f64 / settings.batch as f64;
    let perturb = recipe.perturb.as_ref().map(|p| (p, newton));
    let work = step_work(&model.config, &recipe.update, perturb, ratio);
    let tuned: usize =
        recipe.update.tensors.iter().map(|&i| model.weights.tensor(i).elem_count()).sum();
    if !args.common.quiet {
        note(&format!(
            "{}: perturb {}, update {} ({chosen_by}); {} epochs of {steps} steps, about {} an \
             epoch and {:.0} MiB",
            recipe.kind.name(),
            recipe.perturb.as_ref().map_or("nothing", |p| &p.name),
            recipe.update.name,
            settings.epochs,
            duration(work * (steps * settings.batch) as f64 / rate),
            peak_mib(&model, 4 * tuned, if held <= budget { held as f64 } else { 0.0 }, newton),
        ));
    }

    let cache_clock = Instant::now();
    let progress = args.common.progress("frozen layers", train.len() as u64, "images");
    let source = Source::new(&model, &images, stage, budget, &mut |n| progress.add(n as u64))?;
    drop(progress);
    let cache_seconds = if source.is_cached() { cache_clock.elapsed().as_secs_f64() } else { 0.0 };
    let watched = match &subject {
        Some(s) => {
            let few = sample(s.validation.split(), Some(WATCHED), args.common.seed)?;
            Some(model.activations(&pixels(&checkpoint, &few)?, stage)?)
        }
        None => None,
    };
    let mut method = recipe.method(train.len(), settings.seed)?;
    let total = (settings.epochs * steps * settings.batch) as u64;
    let progress = args.common.progress(method.name(), total, "images");
    let (weights, epochs) = post_train(
        &model,
        &mut *method,
        &source,
        watched.as_ref(),
        &settings,
        &mut |images, epoch| {
            progress.add(images as u64);
            if let (Some(epoch), false) = (epoch, args.common.quiet) {
                progress.line(&epoch_line(epoch));
            }
        },
    )?;
    drop(progress);
    drop(source);
    let training_peak_mib = clock.finish().peak_mib;

    let provenance = provenance(&checkpoint, &recipe, &settings, &train)?;
    let written = checkpoint.save(&args.out, &weights, &provenance)?;
    let tuned = model.at(weights);
    let models = [&model, &tuned];
    let predict = |split: &Option<Split>| predict(&checkpoint, models, split.as_ref());
    let (on_v, on_test) = (predict(&roles.val)?, predict(&roles.test)?);
    let scored = |split: &Option<Split>, own: Option<&Pair>, v: Option<&Pair>, origin: &str| {
        split
            .as_ref()
            .zip(own)
            .map(|(split, own)| {
                let info = data_info(sources.of(split), split, origin);
                before_after(own, v, info, args.common.seed)
            })
            .transpose()
    };
    let validation = scored(&roles.val, on_v.as_ref(), None, &roles.val_origin)?;
    let test = scored(&roles.test, on_test.as_ref(), on_v.as_ref(), "test")?;
    let layers = match (args.recipe.remeasure, &subject) {
        (Some(0), _) | (_, None) => Vec::new(),
        (None, Some(subject)) => remeasure(subject, &tuned, &recipe, &args.common)?,
        (n, Some(_)) => {
            let subject = Subject::new(&checkpoint, &roles, n, &args.common)?;
            remeasure(&subject, &tuned, &recipe, &args.common)?
        }
    };
    if test.is_none() {
        notes.push("there is no test split, so there are no final figures".into());
    }
    let seconds_per_epoch = median(epochs.iter().map(|e| e.seconds).collect());
    let report = Report {
        schema: SCHEMA.into(),
        run: TimedRun { run: clock.finish(), seconds_per_epoch, training_peak_mib, cache_seconds },
        checkpoint: checkpoint_info(&checkpoint),
        output: written.display().to_string(),
        method: MethodInfo {
            name: recipe.kind.name().into(),
            perturb: recipe.perturb.as_ref().map(|p| p.name.clone()),
            update: recipe.update.name.clone(),
            gamma_max: recipe.perturb.as_ref().map(|_| recipe.gamma_max),
            perturbation_batch: recipe.perturb.as_ref().map(|_| recipe.perturbation_batch),
            step: recipe
                .perturb
                .as_ref()
                .map(|_| if newton { "newton".into() } else { "search".into() }),
            chosen_by,
        },
        settings,
        training: data_info(sources.of(&train), &train, "train"),
        cached: cache_seconds > 0.0,
        epochs,
        validation,
        test,
        layers,
        notes,
    };
    print(&show(&report))?;
    args.common.save(&report)?;
    Ok(())
}

fn provenance(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    settings: &Settings,
    train: &Split,
) -> anyhow::Result<Provenance> {
    // What finetune held out stays known, so that the same images validate the result.
    let parent = checkpoint.provenance.as_ref();
    let inherited = parent.filter(|p| p.split.is_some());
    let mut values = serde_json::to_value(settings)?;
    if recipe.perturb.is_some() {
        values["gamma_max"] = recipe.gamma_max.into();
        values["perturbation_batch"] = recipe.perturbation_batch.into();
    }
    Ok(Provenance {
        method: recipe.kind.name().into(),
        perturb: recipe.perturb.iter().map(|p| p.name.clone()).collect(),
        update: vec![recipe.update.name.clone()],
        seed: settings.seed,
        version: env!("CARGO_PKG_VERSION").into(),
        parent_digest: Some(checkpoint.digest.clone()),
        data_digest: inherited
            .and_then(|p| p.data_digest.clone())
            .or_else(|| Some(train.digest().into())),
        split: inherited.and_then(|p| p.split),
        settings: values,
    })
}

fn note(line: &str) {
    use std::io::Write;
    // A closed standard error is no reason to lose the work.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
