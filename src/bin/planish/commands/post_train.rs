//! `planish post-train`: PoL, PoF, SAM or plain SGD, starting from a fine-tuned checkpoint.

use crate::args::{Common, ModelArgs, note_precision};
use crate::render::epochs::EpochLog;
use crate::render::post_train::{epoch_figures, epoch_line, show, tried};
use anyhow::{Context, bail};
use clap::ArgGroup;
use planish::checkpoint::{check_writable, weights_file};
use planish::data::DataOptions;
use planish::fix::{FixCandidate, FixOptions};
use planish::options::check;
use planish::output;
use planish::post_train::frozen::describe;
use planish::post_train::search::RecipeSearch;
use planish::post_train::{
    Outlook, Place, PostTrainOptions, PostTrainSession, PostTrained, Preview, outlook_line, search,
};
use planish::report::Fixing;
use planish::report::dry_run::DryRun;
use planish::report::epochs::EpochFileOptions;
use planish::report::post_training::PostTrainReport;
use planish::report::search::{FRUITLESS_SEARCH, FruitlessSearch};
use planish::run::Running;
use planish::session::{self, checkpoint_info, saved};
use planish::train::Epoch;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    /// Try recipes for this many minutes, then run the best one.
    ///
    /// First, for at most half of the time, moves without training are measured, as in `planish fix`.
    /// The recipes are SGD and PoL near the head with several learning rates, weight decays and
    /// numbers of epochs, then SGD of each block, then SGD, SAM, Friendly-SAM and SL-SAM of all
    /// layers. With --lora, SGD is tried with and without adapters. Moves and recipes are compared by
    /// calibrated loss on the validation images. Those within one standard error of the best are tied.
    /// Of these, moves are chosen and applied as in `planish fix`; otherwise the recipe with the lowest
    /// raw loss is chosen.
    #[arg(
        long,
        value_name = "MINUTES",
        help_heading = "Tuning options",
        allow_negative_numbers = true,
        conflicts_with_all = [
            "method", "preset", "perturb", "update", "plan", "epochs", "lr", "weight_decay", "dry_run", "memory",
        ],
    )]
    pub search: Option<f64>,
    /// Weights before fine-tuning; --search also tries moves towards them
    #[arg(long, value_name = "CKPT0", requires = "search", help_heading = "Tuning options")]
    #[serde(default)]
    pub pretrained: Option<PathBuf>,
    /// Write the tuned checkpoint to this .safetensors file or folder
    #[arg(long, value_name = "NEW", group = "place", help_heading = "Tuning options")]
    pub out: Option<PathBuf>,
    /// Overwrite CKPT; `planish undo CKPT` restores it, byte for byte
    #[arg(long, conflicts_with = "out", group = "place", help_heading = "Tuning options")]
    pub in_place: bool,
    /// Print the plan and the forecast, and exit
    #[arg(long, group = "place", help_heading = "Tuning options")]
    pub dry_run: bool,
    /// All other options of the run.
    #[command(flatten)]
    pub options: PostTrainOptions,
    /// Output files for each epoch.
    #[command(flatten)]
    pub epochs: EpochFileOptions,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

impl Args {
    /// The arguments that give these options, without any output.
    pub fn of(
        options: PostTrainOptions,
        model: ModelArgs,
        data: DataOptions,
        common: Common,
    ) -> Self {
        Self {
            model,
            data,
            search: None,
            pretrained: None,
            out: None,
            in_place: false,
            dry_run: false,
            options,
            epochs: EpochFileOptions::default(),
            common,
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
        match (self.dry_run, self.common.quiet && self.options.limit.memory.is_none()) {
            (true, _) => Preview::DryRun,
            (false, true) => Preview::None,
            (false, false) => Preview::Forecast,
        }
    }
}

/// Said if a search chooses moves.
const NO_DUMP: &str = "`dump`: no logits were written, because the search chose moves; run `planish eval` with `dump` \
                       on the new checkpoint";
/// The same, for files of epochs.
const NO_EPOCHS: &str =
    "no file of epochs was written, because the search chose moves, which need no training";

/// Runs the command.
///
/// # Errors
/// The model cannot be trained, or the result cannot be written. A result worse than the input is
/// not written, but the report is.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    saved::check(args.options.dump.as_deref())?;
    let checkpoint = args.model.open()?;
    let before = args.pretrained.as_deref().map(weights_file).transpose()?;
    let read: Vec<&Path> = args.data.files().into_iter().chain(before.as_deref()).collect();
    output::spare(
        &[args.common.json_file(), args.options.dump.as_deref(), args.epochs.csv.as_deref()],
        &checkpoint.path,
        &read,
    )?;
    args.out.as_deref().map_or(Ok(()), check_writable)?;
    let training = args.options.preset.train(&args.options.train);
    note_precision(training.precision, &args.common);
    args.epochs.check()?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let (options, search) = match args.search {
        None => (args.options.clone(), None),
        Some(minutes) => {
            check::positive("search", minutes)?;
            // The best recipe may have adapters.
            args.place().check_adapters(&args.options.of_method.lora)?;
            let of_fix =
                FixOptions { pretrained: args.pretrained.clone(), ..FixOptions::default() };
            let mut moves = None;
            let mut find = |seconds| {
                moves = FixCandidate::find(&of_fix, &checkpoint, &args.data, seconds, &context)?;
                Ok(moves.as_ref().map(|moves| moves.tried.clone()))
            };
            let (base, data) = (&args.options, &args.data);
            let found = search(base, minutes, &checkpoint, data, &mut find, &context)?;
            args.common.say(&tried(&found.search));
            if let (Some(moves), true) = (moves, found.chose_moves()) {
                let (session, fixed, forecast) = moves.apply(&args.place(), &context)?;
                let mut report = Fixing::new(clock.finish(), &session, fixed, forecast);
                report.search = Some(found.search);
                if args.options.dump.is_some() {
                    report.notes.push(NO_DUMP.into());
                }
                if args.epochs.csv.is_some() || args.epochs.tensorboard.is_some() {
                    report.notes.push(NO_EPOCHS.into());
                }
                return super::fix::finish(&args.common, None, &report, &[]);
            }
            if found.best.is_none() {
                args.common.save(&FruitlessSearch {
                    schema: FRUITLESS_SEARCH.into(),
                    run: clock.finish(),
                    checkpoint: checkpoint_info(&checkpoint),
                    search: found.search.clone(),
                })?;
            }
            (found.options()?, Some(found.search))
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
        let kept = describe(&outlook.plan, context.engine);
        let line =
            format!("{}; {}; {kept}", session.intention()?, outlook_line(&outlook, context.engine));
        if args.dry_run {
            args.common.save(&DryRun::of_post_training(clock.finish(), &session, outlook)?)?;
            return Ok(args.common.print(&line)?);
        }
        context.info(&line);
        planned = Some(outlook);
    }
    let plan = match &planned {
        Some(outlook) => outlook.plan.clone(),
        None => session.cache_plan(None)?,
    };
    let show = |epoch: &Epoch, watched| (epoch_line(epoch, watched), epoch_figures(epoch));
    let log = EpochLog::open(&args.epochs, &terminal, Box::new(show))?;
    let found = session.run(&plan, &session::Context { observer: &log, ..context })?;
    let logged = log.finish();
    let written = finish(args, &session, found, search, planned, clock)?;
    logged.context(written)
}

/// Writes and prints the report, and returns what was written.
fn finish(
    args: &Args,
    session: &PostTrainSession,
    mut found: PostTrained,
    search: Option<RecipeSearch>,
    planned: Option<Outlook>,
    clock: Running,
) -> anyhow::Result<String> {
    let (failure, refusal) = (found.failure.take(), found.refusal.take());
    let forecast = planned.map(|outlook| outlook.expected);
    let report = PostTrainReport::new(clock.finish(), session, found, search, forecast);
    let saved = args.common.save(&report);
    args.common.print(&show(&report, &args.common.untold(&report.notes, &session.roles.notes)))?;
    let written = written(&report);
    saved.with_context(|| written.clone())?;
    if let Some(error) = failure {
        let context = format!("{written}; but it could not be evaluated");
        return Err(anyhow::Error::from(error).context(context));
    }
    match refusal {
        None => Ok(written),
        Some(why) => bail!("{why}"),
    }
}

/// What was written, for an error that comes later.
fn written(report: &PostTrainReport) -> String {
    let Some(file) = &report.output else { return "nothing was written".into() };
    let back = match &file.undo {
        Some(_) => format!("; `planish undo {}` restores the old one", report.checkpoint.path),
        None => String::new(),
    };
    format!("{} was written{back}", file.path)
}
