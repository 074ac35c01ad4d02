//! `planish post-train`: PoL, PoF, SAM or plain SGD from a fine-tuned checkpoint.
//!
//! Prepare, train, judge, save, report.

mod destination;
mod figures;
mod forecast;
mod frozen;
mod judge;
mod record;
mod search;
mod work;

use super::bad_samples::damage_note;
use super::caching::{self, words};
use super::common::{Common, Limit};
use super::epochs::EpochArgs;
use super::evaluating::{V, VALIDATION};
use super::images::{DataArgs, data_info};
use super::model::{ModelArgs, checkpoint_info};
use super::numbers::positive;
use super::outcome::show;
use super::output::print;
use super::recipe::{LayerArgs, Name};
use super::saved;
use super::training::{Kept, RecipeArgs};
use crate::cache::Mode;
use crate::checkpoint::{Error as CheckpointError, Saved};
use crate::report::dry_run::DryRun;
use crate::report::post_training::{Output, Report, SCHEMA, TimedRun};
use crate::report::search::Search;
use crate::run::{Run, Running};
use crate::vit::Weights;
use anyhow::{Context, bail};
use destination::Place;
use figures::{Figures, figures};
use forecast::{Outlook, line, outlook};
use judge::{Case, Judged, judge};
use record::{method_info, provenance};
use search::{Found, search};
use std::path::PathBuf;
use work::{Work, intention, median, prepare, train};

/// Options of `post-train`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  planish post-train model/ --data fashion-mnist/ --method pol \
                        --out better/\n  planish post-train model/ --data fashion-mnist/ --method \
                        pol --perturb head --update block.5 --in-place\n  planish post-train \
                        model/ --data fashion-mnist/ --method sam --clip 1 --warmup 0.5 --out \
                        better/"
)]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Method
    #[arg(long, value_enum, default_value = "pol")]
    pub method: Name,
    /// Try recipes for so many minutes (SGD and PoL near the head at several rates, decays and numbers
    /// of epochs, then SGD of each block, then SGD and SAM of all layers), choose by the loss on
    /// validation images after a temperature, and run the best
    #[arg(
        long,
        value_name = "MINUTES",
        value_parser = positive,
        conflicts_with_all = [
            "method", "perturb", "update", "plan", "epochs", "lr", "weight_decay", "dry_run", "memory",
        ],
    )]
    pub search: Option<f64>,
    /// Where the result goes.
    #[command(flatten)]
    pub place: Place,
    /// The layers.
    #[command(flatten)]
    pub layers: LayerArgs,
    /// Validation images that the plan is made on [default: all]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Weights to keep: of the epoch with the least validation loss, or of the last [default: best
    /// with validation images, else last]
    #[arg(long, value_enum)]
    pub keep: Option<Kept>,
    /// Write the tuned model's `logits`, `labels` and `temperature` on test as safetensors: what
    /// `planish compare` takes
    #[arg(long, value_name = "FILE")]
    pub dump: Option<PathBuf>,
    /// Write the result even if it is worse than the input on the validation images
    #[arg(long)]
    pub force: bool,
    /// Files that tell of each epoch.
    #[command(flatten)]
    pub epochs: EpochArgs,
    /// How it is trained.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Its memory.
    #[command(flatten)]
    pub limit: Limit,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// Anything that keeps the model from being trained, or its result from being written: a result
/// worse than the input, too, which the report tells all the same.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    saved::check(args.dump.as_deref())?;
    let Some(minutes) = args.search else { return tune(args, None, clock) };
    let Found { args, search } = search(args, minutes)?;
    tune(&args, Some(search), clock)
}

fn tune(args: &Args, search: Option<Search>, clock: Running) -> anyhow::Result<()> {
    let mut work = prepare(args)?;
    if search.is_some() {
        work.chosen_by = "by a search on V".into();
    }
    let mut planned = None;
    if args.place.dry_run || !args.common.quiet || args.limit.memory.is_some() {
        let outlook = outlook(args, &mut work, &clock)?;
        let kept = words(&outlook.plan);
        let line = format!("{}; {}; {kept}", intention(&work)?, line(&outlook));
        if args.place.dry_run {
            let run = clock.finish();
            args.common.save(&dry_run(&work, run, outlook)?)?;
            return Ok(print(&line)?);
        }
        args.common.say(&line);
        planned = Some(outlook);
    }
    let (plan, forecast) = match planned {
        Some(outlook) => (outlook.plan, Some(outlook.expected)),
        None => (work.plan(&args.recipe.cache, None)?, None),
    };
    let trained = train(args, &work, &plan)?;
    let training_peak_mib = clock.finish().peak_mib;
    let Work { checkpoint, sources, recipe, settings, .. } = &work;
    // Judged as it will be stored: rounding to the file's types is part of the result.
    let (stored, overflow) = match checkpoint.as_stored(&trained.outcome.weights) {
        Ok(stored) => (stored, None),
        Err(error @ CheckpointError::Overflow { .. }) => {
            (work.model.weights.clone(), Some(error.to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    // Whatever it was trained in, it is judged as it will be used.
    let exact = work.model.exact();
    let tuned = exact.at(stored);
    let judged = judge(
        checkpoint,
        &Case {
            model: &exact,
            tuned: &tuned,
            val: work.roles.val.as_ref(),
            outcome: &trained.outcome,
            keep: settings.keep,
            watched: trained.watched,
            overflow,
            force: args.force,
        },
    )?;
    let saved = match &judged.refusal {
        Some(_) => None,
        None => {
            let mut provenance = provenance(&work, &judged.selection)?;
            provenance.settings["precision"] = work.model.precision.name().into();
            if let Some(v) = &work.roles.val {
                let (digest, images, seed) = (v.digest().into(), v.len(), args.common.seed);
                provenance.settings[VALIDATION] = serde_json::to_value(V { digest, images, seed })?;
            }
            work.destination.save(checkpoint, &trained.outcome.weights, &provenance)?
        }
    };
    let tuned = match &saved {
        Some(saved) => exact.at(read_back(args, saved)?),
        None => tuned,
    };
    let (figures, failure) = match figures(args, &work, &tuned, &judged, saved.is_some()) {
        Ok(figures) => (figures, None),
        // What was written stays written, and the report says so.
        Err(error) if saved.is_some() => (Figures::default(), Some(error)),
        Err(error) => return Err(error),
    };
    let Judged { selection, refusal, notes: own_notes, .. } = judged;
    let mut notes = work.roles.notes.clone();
    notes.extend(trained.notes);
    notes.extend(own_notes);
    notes.extend(figures.temperature_notes());
    let damaged = sources.damaged();
    notes.extend(damage_note(&damaged));
    notes.extend(search.as_ref().and_then(Search::taken));
    notes.extend(failure.iter().map(|error| format!("there are no figures: {error:#}")));
    if let (Some(path), None) = (&args.dump, &saved) {
        notes.push(format!("{}: not written, for want of a checkpoint", path.display()));
    }
    if work.roles.test.is_none() {
        notes.push("there is no test split, so there are no final figures".into());
    }
    let (epochs, cache) = (trained.outcome.epochs, trained.cache);
    let seconds_per_epoch = median(epochs.iter().map(|e| e.seconds).collect());
    let report = Report {
        schema: SCHEMA.into(),
        run: TimedRun {
            run: clock.finish(),
            seconds_per_epoch,
            training_peak_mib,
            cache_seconds: cache.seconds,
            cache: cache.clone(),
            forecast,
        },
        checkpoint: checkpoint_info(checkpoint),
        output: saved.map(|saved| Output {
            path: saved.path.display().to_string(),
            undo: saved.undo.map(|undo| undo.display().to_string()),
            weights_moved: saved.rounding.moved,
            moves_lost_to_rounding: saved.rounding.unchanged,
        }),
        method: method_info(recipe, &checkpoint.config, work.chosen_by.clone())?,
        settings: settings.clone(),
        training: data_info(sources.of(&work.train), &work.train, "train"),
        micro_batch: work.stepping(args).micro_batch,
        recompute: work.model.recompute,
        precision: work.model.precision.name().into(),
        cached: cache.mode != Mode::Off,
        search,
        augmentation: work.augmentation(),
        epochs,
        selection,
        validation: figures.validation,
        test: figures.test,
        predictions: figures.predictions,
        layers: figures.layers,
        class_names: checkpoint.class_names.clone().or(work.train.class_names().map(<[_]>::to_vec)),
        damaged,
        notes,
    };
    args.common.save(&report)?;
    print(&show(&report, &args.common.untold(&report.notes, &work.roles.notes)))?;
    if let Some(error) = failure {
        return Err(error.context(written(&report)));
    }
    refusal.map_or(Ok(()), |why| bail!("{why}"))
}

fn dry_run(work: &Work, run: Run, outlook: Outlook) -> anyhow::Result<DryRun> {
    let info = checkpoint_info(&work.checkpoint);
    let expected = outlook.expected;
    Ok(DryRun {
        method: Some(method_info(&work.recipe, &work.checkpoint.config, work.chosen_by.clone())?),
        settings: Some(work.settings.clone()),
        cache: Some(caching::info(&outlook.plan, &work.prefix())),
        ..DryRun::new(run, info, &work.roles.notes, expected)
    })
}

/// What a user must know when an error comes after the file was written.
fn written(report: &Report) -> String {
    let Some(file) = &report.output else { return "nothing was written".into() };
    let back = match &file.undo {
        Some(_) => format!("; `planish undo {}` puts the old one back", report.checkpoint.path),
        None => String::new(),
    };
    format!("{} was written{back}; but its figures could not be taken", file.path)
}

/// The weights of the file that was written, as any program will find them.
fn read_back(args: &Args, saved: &Saved) -> anyhow::Result<Weights> {
    let path = saved.path.display();
    let checkpoint = args.model.flags.open(&saved.path);
    Ok(checkpoint.with_context(|| format!("{path} was written, but cannot be read back"))?.weights)
}
