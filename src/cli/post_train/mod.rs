//! `planish post-train`: PoL, PoF, SAM or plain SGD from a fine-tuned checkpoint.
//!
//! Prepare, train, judge, save, report.

mod destination;
mod forecast;
mod frozen;
mod judge;
mod record;
mod work;

use super::caching::{self, words};
use super::common::{Common, Limit};
use super::epochs::EpochArgs;
use super::images::{DataArgs, data_info};
use super::model::{ModelArgs, checkpoint_info};
use super::outcome::show;
use super::output::print;
use super::recipe::{LayerArgs, Name};
use super::saved;
use super::scoring::{Pair, before_after, predict, remeasure, temperatures};
use super::subject::Subject;
use super::training::{Kept, RecipeArgs};
use crate::cache::Mode;
use crate::checkpoint::{Error as CheckpointError, Saved};
use crate::data::Split;
use crate::objective::Objective;
use crate::report::PredictionsInfo;
use crate::report::dry_run::DryRun;
use crate::report::post_training::{
    BeforeAfter, LayerBeforeAfter, Output, Report, SCHEMA, TimedRun,
};
use crate::run::Run;
use crate::vit::Weights;
use anyhow::{Context, bail};
use destination::Place;
use forecast::{Outlook, line, outlook};
use judge::{Case, Judged, judge};
use record::{method_info, provenance};
use std::path::PathBuf;
use work::{Work, intention, median, prepare, train};

/// Options of `post-train`.
#[derive(clap::Args, Debug)]
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
    let mut work = prepare(args)?;
    let mut planned = None;
    if args.place.dry_run || !args.common.quiet || args.limit.memory.is_some() {
        let outlook = outlook(args, &mut work, clock.seconds())?;
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
        micro_batch: work.model.micro_batch,
        recompute: work.model.recompute,
        precision: work.model.precision.name().into(),
        cached: cache.mode != Mode::Off,
        augmentation: work.augmentation(),
        epochs,
        selection,
        validation: figures.validation,
        test: figures.test,
        predictions: figures.predictions,
        layers: figures.layers,
        class_names: checkpoint.class_names.clone().or(work.train.class_names().map(<[_]>::to_vec)),
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

/// The model before and after, on V and on test.
#[derive(Default)]
struct Figures {
    validation: Option<BeforeAfter>,
    test: Option<BeforeAfter>,
    predictions: Option<PredictionsInfo>,
    layers: Vec<LayerBeforeAfter>,
}

/// Scores both models. What was not `written` is no result: then test stays unread, and no layer is
/// measured again.
fn figures(
    args: &Args,
    work: &Work,
    tuned: &Objective,
    judged: &Judged,
    written: bool,
) -> anyhow::Result<Figures> {
    let Work { checkpoint, sources, roles, recipe, .. } = work;
    let model = &work.model.exact();
    let scored = |split: &Option<Split>, own: Option<&Pair>, v: Option<&Pair>, origin: &str| {
        let both = split.as_ref().zip(own);
        let score = |(split, own): (&Split, &Pair)| {
            let info = data_info(sources.of(split), split, origin);
            before_after(own, v, info, args.common.seed)
        };
        both.map(score).transpose()
    };
    let on_v = judged.on_v.as_ref();
    let validation = scored(&roles.val, on_v, None, &roles.val_origin)?;
    if !written {
        return Ok(Figures { validation, ..Figures::default() });
    }
    let on_test = predict(checkpoint, [model, tuned], roles.test.as_ref())?;
    let test = scored(&roles.test, on_test.as_ref(), on_v, "test")?;
    let predictions = match (&args.dump, &on_test) {
        (Some(path), Some(own)) => {
            let [_, after] = temperatures(own, on_v, args.common.seed)?;
            Some(saved::write(path, &own[1], &after)?)
        }
        _ => None,
    };
    let layers = match (args.recipe.remeasure, &work.subject) {
        (Some(0), _) | (_, None) => Vec::new(),
        (None, Some(subject)) => remeasure(subject, tuned, recipe, &args.common)?,
        (n, Some(_)) => {
            let subject = Subject::new(checkpoint, roles, n, &args.common)?;
            remeasure(&subject, tuned, recipe, &args.common)?
        }
    };
    Ok(Figures { validation, test, predictions, layers })
}
