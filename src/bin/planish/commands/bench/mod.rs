//! `planish bench`: compares methods with their controls, one process per run.

mod jobs;
mod tally;

use crate::args::{Common, Limit, ModelArgs, note_precision};
use crate::commands::post_train;
use crate::exec::ChildCommand;
use crate::render::epochs::EpochArgs;
use crate::render::print;
use anyhow::Context;
use jobs::{Job, jobs, plan};
use planish::cache::{CacheOptions, CachePolicy, Mode, default_folder};
use planish::data::{DataOptions, Role, require};
use planish::evaluate::Scores;
use planish::forecast::{Expected, Need, Part};
use planish::format::duration;
use planish::options::Error as OptionError;
use planish::output;
use planish::post_train::PostTrainOptions;
use planish::report::bench::{Report, SCHEMA, TimedRun};
use planish::report::dry_run::DryRun;
use planish::report::post_training;
use planish::session::{checkpoint_info, saved};
use planish::train::{Keep, MethodArgs, MethodName, TrainOptions};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tally::{Trained, cost, damaged, rows, show, verdicts};

/// Upper limit of `--seeds`. A larger number is probably a typing error.
const MAX_SEEDS: u64 = 1000;

/// Options of `bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  planish bench model/ --data fashion-mnist/ --methods \
                        pof,pol,sam --seeds 3 --json bench.json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataOptions,
    /// Methods to run, each with its control
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "pof,pol,pol-head",
        help_heading = "Bench options"
    )]
    methods: Vec<Name>,
    /// Number of training seeds
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Bench options")]
    seeds: u64,
    /// Use the plan of this `diagnose` report for PoL [default: diagnose first]
    #[arg(long, value_name = "REPORT", help_heading = "Bench options")]
    plan: Option<PathBuf>,
    /// Number of validation images for the diagnosis [default: all]
    #[arg(long, value_name = "N", help_heading = "Bench options", hide_short_help = true)]
    samples: Option<usize>,
    /// Number of validation images for ΔL and κ before and after tuning. [default: all, or --samples]
    ///
    /// The first seed measures ΔL and κ of the perturbed and updated layers before and after. 0
    /// turns this off.
    #[arg(long, value_name = "N", help_heading = "Advanced options", hide_short_help = true)]
    remeasure: Option<usize>,
    /// Print the forecast and exit
    #[arg(long, help_heading = "Bench options")]
    dry_run: bool,
    #[command(flatten)]
    of_methods: MethodArgs,
    #[command(flatten)]
    train: TrainOptions,
    #[command(flatten)]
    cache: CacheOptions,
    #[command(flatten)]
    pub(crate) limit: Limit,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Methods on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// head perturbed, all else updated
    Pof,
    /// layers from the plan
    Pol,
    /// head perturbed, the plan's layer updated
    PolHead,
    /// sharpness-aware minimisation
    Sam,
    /// SAM with an ascent step scaled by the weights
    Asam,
    /// SAM with an ascent step only every k-th step
    Looksam,
    /// SAM that only perturbs normalisation layers
    SamNorm,
}

impl Name {
    /// The training method.
    fn method(self) -> MethodName {
        match self {
            Name::Pof => MethodName::Pof,
            Name::Pol | Name::PolHead => MethodName::Pol,
            Name::Sam => MethodName::Sam,
            Name::Asam => MethodName::Asam,
            Name::Looksam => MethodName::Looksam,
            Name::SamNorm => MethodName::SamNorm,
        }
    }

    /// Its title in a table.
    fn title(self) -> &'static str {
        match self {
            Name::Pof => "PoF",
            Name::Pol | Name::PolHead => "PoL",
            Name::Sam => "SAM",
            Name::Asam => "ASAM",
            Name::Looksam => "LookSAM",
            Name::SamNorm => "norm-only SAM",
        }
    }

    /// Whether it needs a plan.
    fn is_planned(self) -> bool {
        matches!(self, Name::Pol | Name::PolHead)
    }
}

impl Args {
    /// Rejects options that no selected method uses.
    fn check(&self) -> anyhow::Result<()> {
        self.train.check()?;
        self.cache.check()?;
        let methods: Vec<MethodName> = self.methods.iter().map(|name| name.method()).collect();
        self.of_methods.check_read_by(&methods)?;
        if self.of_methods.perturb.is_some() && !self.methods.contains(&Name::Pol) {
            let (option, applies_to) = ("perturb".into(), "the method pol".into());
            return Err(OptionError::NoEffect { option, applies_to }.into());
        }
        if self.plan.is_some()
            && self.of_methods.perturb.is_some()
            && self.of_methods.update.is_some()
        {
            let text = "`plan` has no effect, because `perturb` and `update` name both layers; \
                        remove one of the three";
            return Err(OptionError::Conflict(text.into()).into());
        }
        if !(1..=MAX_SEEDS).contains(&self.seeds) {
            let expected = format!("1 to {MAX_SEEDS}");
            return Err(OptionError::value("seeds", expected, self.seeds).into());
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// A run fails, or the report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    args.check()?;
    note_precision(args.train.precision, &args.common);
    let checkpoint = args.model.open()?;
    output::spare(&[args.common.json.as_deref()], &checkpoint.path, &args.data.files())?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let roles = crate::args::roles(&args.data, &checkpoint, &context)?;
    args.common.say_notes(&roles.notes);
    require(Role::Train, roles.train.as_ref())?;
    require(Role::Test, roles.test.as_ref())?;
    let folder = scratch()?;
    let planned = match args.methods.iter().any(|m| m.is_planned()) {
        true => Some(plan(args, folder.path(), &checkpoint, &roles.val_origin)?),
        false => None,
    };
    let jobs = jobs(args, planned.as_ref(), &checkpoint.network)?;
    if args.dry_run || !args.common.quiet {
        let mut expected = vec![Part::new("so far", Need::default().after(clock.seconds()))];
        expected.extend(planned.as_ref().and_then(|plan| plan.ahead.clone()));
        expected.extend(forecast(args, &jobs, folder.path(), &context)?);
        let expected = Expected::of(expected);
        let line = format!(
            "bench: {} rows of {} seeds, about {} and {:.0} MiB",
            jobs.len(),
            args.seeds,
            duration(expected.seconds),
            expected.peak_mib
        );
        if args.dry_run {
            let info = checkpoint_info(&checkpoint);
            args.common.save(&DryRun::new(clock.finish(), info, &roles.notes, expected))?;
            return Ok(print(&line)?);
        }
        args.common.say(&line);
    }
    let seeds: Vec<u64> = (0..args.seeds).map(|i| args.common.seed.wrapping_add(i)).collect();
    let mut trained = Vec::new();
    {
        let task = context.task("bench", jobs.len() as u64 * args.seeds, "runs");
        for job in &jobs {
            let (mut runs, mut scores) = (Vec::new(), None);
            for seed in &seeds {
                task.status(&format!("{}, seed {seed}", job.name));
                let (run, scored) = train(args, job, *seed, folder.path())?;
                runs.push(run);
                scores = scores.or(scored);
                task.advance(1);
            }
            trained.push(Trained { name: job.name.clone(), control: job.control, runs, scores });
        }
    }
    let rows = rows(&trained, args.common.seed)?;
    let costs = trained.iter().map(cost).collect();
    let report = Report {
        schema: SCHEMA.into(),
        run: TimedRun { run: clock.finish(), costs },
        damaged: damaged(&trained),
        checkpoint: checkpoint_info(&checkpoint),
        seeds,
        settings: json!({ "train": args.train, "cache": args.cache }),
        plan: planned.map(|plan| plan.from),
        verdicts: verdicts(&rows, args.seeds as usize),
        rows,
    };
    args.common.save(&report)?;
    Ok(print(&show(&report))?)
}

/// A temporary folder for the outputs of the runs.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("planish-bench-")
        .tempdir()
        .context("cannot create a temporary folder; set TMPDIR to a writable folder")
}

/// The cache options with an explicit folder. Files in that folder then take precedence over
/// memory, so rows and seeds that freeze the same layers share one file.
fn shared(cache: &CacheOptions) -> CacheOptions {
    let mut cache = cache.clone();
    if let (CachePolicy::Auto, None, Ok(folder)) = (cache.cache, &cache.cache_dir, default_folder())
    {
        cache.cache_dir = Some(folder);
    }
    cache
}

/// The arguments of one `post-train` run, without its outputs.
fn one(args: &Args, job: &Job, seed: u64) -> post_train::Args {
    let first = seed == args.common.seed;
    post_train::Args {
        model: args.model.clone(),
        data: args.data.clone(),
        method: job.method,
        search: None,
        out: None,
        in_place: false,
        dry_run: false,
        of_method: job.options.clone(),
        options: PostTrainOptions {
            // All seeds start from one checkpoint, so one seed is enough to measure the change in
            // ΔL and κ.
            remeasure: Some(if first { again(args) } else { 0 }),
            // Every row is evaluated after its last epoch. Selecting epochs by V, or discarding bad
            // results, would favour the method with the most variance.
            keep: Some(Keep::Last),
            force: true,
            train_seed: Some(seed),
            train: args.train.clone(),
            cache: shared(&args.cache),
            limit: args.limit,
            ..PostTrainOptions::default()
        },
        epochs: EpochArgs::default(),
        common: Common { json: None, ..args.common.clone() },
    }
}

/// The forecast of each row: a dry run of its first seed.
fn forecast(
    args: &Args,
    jobs: &[Job],
    folder: &Path,
    context: &planish::session::Context,
) -> anyhow::Result<Vec<Part>> {
    let json = folder.join("dry-run.json");
    let (mut parts, mut keys) = (Vec::new(), HashSet::new());
    let task = context.task("forecast", jobs.len() as u64, "runs");
    for job in jobs {
        let mut run = one(args, job, args.common.seed);
        run.dry_run = true;
        run.common.json = Some(json.clone());
        ChildCommand::PostTrain(Box::new(run))
            .spawn(&args.common)
            .with_context(|| format!("forecast of {}", job.name))?;
        let DryRun { expected, cache, .. } = read(&json)?;
        let again = expected.seconds_of("layers measured again");
        let frozen = expected.seconds_of("frozen layers");
        // Only the first run that freezes these layers writes cache files.
        let (each, once) = match cache.filter(|cache| cache.mode == Mode::Disk) {
            Some(cache) => {
                let fresh = cache.keys.iter().filter(|key| keys.insert((*key).clone())).count();
                (0.0, frozen * fresh as f64 / cache.keys.len().max(1) as f64)
            }
            None => (frozen, 0.0),
        };
        let others = expected.seconds - again - frozen;
        let seconds = args.seeds as f64 * (others + each) + once + again;
        parts.push(Part::new(&job.name, Need { seconds, mib: expected.peak_mib }));
        task.advance(1);
    }
    Ok(parts)
}

/// Runs one seed of a row in a child process. Returns its report and, for the first seed, its test
/// scores.
fn train(
    args: &Args,
    job: &Job,
    seed: u64,
    folder: &Path,
) -> anyhow::Result<(post_training::Report, Option<[Scores; 2]>)> {
    let dump = (seed == args.common.seed).then(|| folder.join("logits.safetensors"));
    let (json, out) = (folder.join("run.json"), folder.join("run.safetensors"));
    let mut run = one(args, job, seed);
    run.common.json = Some(json.clone());
    (run.out, run.options.dump) = (Some(out.clone()), dump.clone());
    ChildCommand::PostTrain(Box::new(run))
        .spawn(&args.common)
        .with_context(|| format!("{}, seed {seed}", job.name))?;
    let report = read(&json)?;
    let _ = std::fs::remove_file(out);
    let saved = dump.map(|dump| saved::read(&dump, None)).transpose()?;
    Ok((report, saved.map(|saved| saved.scores())))
}

/// Reads the report of a run.
pub fn read<T: serde::de::DeserializeOwned>(json: &Path) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(json).with_context(|| format!("cannot read {}", json.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Number of images on which the first seed measures ΔL and κ again.
fn again(args: &Args) -> usize {
    args.remeasure.or(args.samples).unwrap_or(usize::MAX)
}
