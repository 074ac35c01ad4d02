//! `planish post-train`: PoL, PoF, SAM or plain SGD from a fine-tuned checkpoint.

use crate::args::{Common, Limit, MethodArgs, ModelArgs, note_precision};
use crate::render::epochs::EpochArgs;
use crate::render::post_train::show;
use crate::render::print;
use crate::render::progress::Terminal;
use anyhow::bail;
use clap::ArgGroup;
use planish::cache::{CacheInfo, CacheOptions, Mode};
use planish::data::DataOptions;
use planish::observe::Event;
use planish::options::check;
use planish::output;
use planish::post_train::frozen::{describe, info};
use planish::post_train::search::Search;
use planish::post_train::{
    Outlook, Place, PostTrainOptions, PostTrainSession, PostTrained, Preview, outlook_line, search,
};
use planish::report::dry_run::DryRun;
use planish::report::post_training::{Report, SCHEMA, TimedRun};
use planish::run::{Run, Running};
use planish::session::{checkpoint_info, data_info, saved};
use planish::train::{Keep, MethodName, MethodOptions, TrainOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Options of `post-train`.
#[derive(clap::Args, Clone, Debug, Serialize, Deserialize)]
#[command(
    group = ArgGroup::new("place").required(true).multiple(true),
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
    pub data: DataOptions,
    /// Method
    #[arg(long, value_enum, default_value = "pol")]
    pub method: MethodName,
    /// Try recipes for so many minutes and run the best: SGD and PoL near the head at several rates,
    /// decays and numbers of epochs, then SGD of each block, then SGD and SAM of all layers. The best
    /// has the least loss on validation images after a temperature
    #[arg(
        long,
        value_name = "MINUTES",
        allow_negative_numbers = true,
        conflicts_with_all = [
            "method", "perturb", "update", "plan", "epochs", "lr", "weight_decay", "dry_run", "memory",
        ],
    )]
    pub search: Option<f64>,
    /// Where the result goes: a .safetensors file or a folder
    #[arg(long, value_name = "NEW", group = "place")]
    pub out: Option<PathBuf>,
    /// Replace CKPT itself; `planish undo CKPT` puts it back, byte for byte
    #[arg(long, conflicts_with = "out", group = "place")]
    pub in_place: bool,
    /// Print plan and forecast, and stop
    #[arg(long, group = "place")]
    pub dry_run: bool,
    /// Take the layers from this report of `diagnose` [default: diagnose first]
    #[arg(long, value_name = "REPORT")]
    pub plan: Option<PathBuf>,
    /// Validation images that the plan is made on [default: all]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Validation images on which ΔL and κ of the layers are measured before and after; 0 for none
    /// [default: all, or --samples]
    #[arg(long, value_name = "N")]
    pub remeasure: Option<usize>,
    /// Weights to keep: of the epoch with the least validation loss, or of the last [default: best
    /// with validation images, else last]
    #[arg(long, value_enum)]
    pub keep: Option<Keep>,
    /// Write the tuned model's `logits`, `labels` and `temperature` on test as safetensors: what
    /// `planish compare` takes
    #[arg(long, value_name = "FILE")]
    pub dump: Option<PathBuf>,
    /// Write the result even if it is worse than the input on the validation images
    #[arg(long)]
    pub force: bool,
    /// Seed of B, B′ and γ [default: --seed]
    #[arg(long, value_name = "S")]
    pub train_seed: Option<u64>,
    /// Options of the method.
    #[command(flatten)]
    pub of_method: MethodArgs,
    /// How it is trained.
    #[command(flatten)]
    pub train: TrainOptions,
    /// Where frozen activations are kept.
    #[command(flatten)]
    pub cache: CacheOptions,
    /// Files with the figures of each epoch.
    #[command(flatten)]
    pub epochs: EpochArgs,
    /// Its memory.
    #[command(flatten)]
    pub limit: Limit,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

impl Args {
    fn options(&self, method: MethodOptions) -> PostTrainOptions {
        PostTrainOptions {
            method,
            train: self.train.clone(),
            cache: self.cache.clone(),
            keep: self.keep,
            train_seed: self.train_seed,
            plan: self.plan.clone(),
            samples: self.samples,
            remeasure: self.remeasure,
            force: self.force,
            memory_mib: self.limit.mib(),
        }
    }

    fn place(&self) -> Place {
        match &self.out {
            Some(out) => Place::New(out.clone()),
            None if self.in_place => Place::InPlace,
            None => Place::Nowhere,
        }
    }

    fn preview(&self) -> Preview {
        match (self.dry_run, self.common.quiet && self.limit.memory.is_none()) {
            (true, _) => Preview::DryRun,
            (false, true) => Preview::None,
            (false, false) => Preview::Forecast,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Anything that keeps the model from being trained, or its result from being written. A result worse
/// than the input is not written either; the report is.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    saved::check(args.dump.as_deref())?;
    let checkpoint = args.model.open()?;
    output::spare(
        &[args.common.json.as_deref(), args.dump.as_deref()],
        &checkpoint.path,
        &args.data.files(),
    )?;
    note_precision(args.train.precision, &args.common);
    let terminal = args.common.terminal().with_epochs(args.epochs.open()?);
    let context = args.common.context(&terminal);
    let (options, search) = match args.search {
        None => (args.options(args.of_method.method(args.method)?), None),
        Some(minutes) => {
            check::positive("search", minutes)?;
            let base = args.options(MethodOptions::default_of(MethodName::Sgd));
            let given = args.of_method.given();
            let found = search(&base, &given, minutes, &checkpoint, &args.data, &context)?;
            args.common.say(&crate::render::post_train::tried(&found.search));
            (found.options, Some(found.search))
        }
    };
    let mut session = PostTrainSession::prepare(
        &options,
        checkpoint,
        &args.data,
        &args.place(),
        args.preview(),
        &context,
    )?;
    if search.is_some() {
        session.chosen_by = "by a search on V".into();
    }
    let mut planned = None;
    if args.preview() != Preview::None {
        let outlook = session.outlook(clock.seconds(), &context)?;
        let kept = describe(&outlook.plan);
        let line = format!("{}; {}; {kept}", session.intention()?, outlook_line(&outlook));
        if args.dry_run {
            args.common.save(&dry_run(&session, clock.finish(), outlook)?)?;
            return Ok(print(&line)?);
        }
        terminal_line(&terminal, &line);
        planned = Some(outlook);
    }
    let plan = match &planned {
        Some(outlook) => outlook.plan.clone(),
        None => session.cache_plan(None)?,
    };
    let found = session.run(&plan, args.dump.as_deref(), &context)?;
    terminal.finish()?;
    finish(args, &session, found, search, planned, clock)
}

fn terminal_line(terminal: &Terminal, line: &str) {
    planish::observe::Observer::observe(terminal, Event::Info(line));
}

/// Writes and prints the report.
fn finish(
    args: &Args,
    session: &PostTrainSession,
    mut found: PostTrained,
    search: Option<Search>,
    planned: Option<Outlook>,
    clock: Running,
) -> anyhow::Result<()> {
    found.notes.extend(search.as_ref().and_then(Search::taken));
    let epochs = found.outcome.epochs;
    let seconds_per_epoch = median(epochs.iter().map(|e| e.seconds).collect());
    let CacheInfo { seconds: cache_seconds, mode, .. } = found.cache;
    let checkpoint = &session.checkpoint;
    let report = Report {
        schema: SCHEMA.into(),
        run: TimedRun {
            run: clock.finish(),
            seconds_per_epoch,
            training_peak_mib: found.training_peak_mib,
            cache_seconds,
            cache: found.cache,
            forecast: planned.map(|outlook| outlook.expected),
        },
        checkpoint: checkpoint_info(checkpoint),
        output: found.output,
        method: found.method,
        settings: session.settings.clone(),
        training: data_info(session.data.of(&session.train), &session.train, "train"),
        micro_batch: session.stepping().micro_batch,
        recompute: session.model.checkpointing,
        precision: session.model.precision.name().into(),
        cached: mode != Mode::Off,
        search,
        augmentation: session.augmentation(),
        epochs,
        selection: found.selection,
        validation: found.figures.validation,
        test: found.figures.test,
        predictions: found.figures.predictions,
        layers: found.figures.layers,
        class_names: checkpoint
            .class_names
            .clone()
            .or(session.train.class_names().map(<[_]>::to_vec)),
        damaged: found.damaged,
        notes: found.notes,
    };
    args.common.save(&report)?;
    print(&show(&report, &args.common.untold(&report.notes, &session.roles.notes)))?;
    if let Some(error) = found.failure {
        return Err(anyhow::Error::from(error).context(written(&report)));
    }
    match found.refusal {
        None => Ok(()),
        Some(why) => bail!("{why}"),
    }
}

fn dry_run(session: &PostTrainSession, run: Run, outlook: Outlook) -> anyhow::Result<DryRun> {
    let checkpoint = checkpoint_info(&session.checkpoint);
    Ok(DryRun {
        method: Some(session.method()?),
        settings: Some(session.settings.clone()),
        cache: Some(info(&outlook.plan, &session.prefix())),
        ..DryRun::new(run, checkpoint, &session.roles.notes, outlook.expected)
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

/// The middle value; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
