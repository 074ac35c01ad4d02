//! `planish bench`: methods against their controls, each run in a process of its own.

mod jobs;
mod tally;

use crate::cache::{Mode, default_folder};
use crate::cli::caching::CacheName;
use crate::cli::children::{Words, spawn};
use crate::cli::common::{Common, Limit};
use crate::cli::format::duration;
use crate::cli::images::DataArgs;
use crate::cli::model::{ModelArgs, checkpoint_info};
use crate::cli::output::print;
use crate::cli::recipe::check_heeded;
use crate::cli::saved;
use crate::cli::training::{RecipeArgs, check};
use crate::data::{Role, require};
use crate::evaluate::Scores;
use crate::forecast::Need;
use crate::report::bench::{Report, SCHEMA, TimedRun};
use crate::report::dry_run::{DryRun, Expected, Part};
use crate::report::post_training;
use anyhow::{Context, bail};
use jobs::{Job, jobs, plan};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tally::{Trained, cost, damaged, rows, show, verdicts};

/// Most seeds that a run may ask for: more would take weeks, and a slip of the finger with them.
const MAX_SEEDS: u64 = 1000;

/// Options of `bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  planish bench model/ --data fashion-mnist/ --methods \
                        pof,pol,sam --seeds 3 --json bench.json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Methods, each run beside its control
    #[arg(long, value_enum, value_delimiter = ',', default_value = "pof,pol,pol-head")]
    methods: Vec<Name>,
    /// Training seeds
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// Take PoL's plan from this report of `diagnose` [default: diagnose first]
    #[arg(long, value_name = "REPORT")]
    plan: Option<PathBuf>,
    /// Layers that PoL perturbs [default: the plan's]; with --update, no diagnosis is needed
    #[arg(long, value_name = "L")]
    perturb: Option<String>,
    /// Layers that PoL updates [default: the plan's], and SAM and its variants [default: all]
    #[arg(long, value_name = "L")]
    update: Option<String>,
    /// Validation images that the plan is made on [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Print the forecast, and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    common: Common,
}

/// Methods on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// head perturbed, all else updated
    Pof,
    /// by the plan
    Pol,
    /// head perturbed, the plan's layer updated
    PolHead,
    /// sharpness-aware minimisation
    Sam,
    /// SAM, its climb scaled by the weights
    Asam,
    /// SAM that climbs at every k-th step only
    Looksam,
    /// SAM that perturbs normalisation layers alone
    SamNorm,
}

impl Name {
    /// What `post-train` and a table call it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Name::Pof => ("pof", "PoF"),
            Name::Pol | Name::PolHead => ("pol", "PoL"),
            Name::Sam => ("sam", "SAM"),
            Name::Asam => ("asam", "ASAM"),
            Name::Looksam => ("looksam", "LookSAM"),
            Name::SamNorm => ("sam-norm", "norm-only SAM"),
        }
    }

    /// Whether its layers come from a plan.
    fn is_planned(self) -> bool {
        matches!(self, Name::Pol | Name::PolHead)
    }
}

/// Runs the command.
///
/// # Errors
/// A run that fails, with what it printed; a report that cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    check(&args.recipe)?;
    let methods: Vec<&str> = args.methods.iter().map(|m| m.names().0).collect();
    check_heeded(&methods, &args.recipe.line, &args.recipe.sam)?;
    if args.perturb.is_some() && !args.methods.contains(&Name::Pol) {
        bail!(
            "--perturb: of the methods asked for none takes it; add pol to --methods, or leave it out"
        )
    }
    if args.plan.is_some() && args.perturb.is_some() && args.update.is_some() {
        bail!("--plan: --perturb and --update name both layers; leave one of the three out")
    }
    if !(1..=MAX_SEEDS).contains(&args.seeds) {
        bail!("--seeds: expected 1 to {MAX_SEEDS}, found {}", args.seeds)
    }
    let checkpoint = args.model.open()?;
    crate::cli::output::spare(
        &[args.common.json.as_deref()],
        &checkpoint.path,
        &args.data.files(),
    )?;
    let roles = args.data.roles(&checkpoint, args.common.seed)?;
    args.common.say_notes(&roles.notes);
    require(Role::Train, roles.train.as_ref())?;
    require(Role::Test, roles.test.as_ref())?;
    let folder = scratch()?;
    let planned = match args.methods.iter().any(|m| m.is_planned()) {
        true => Some(plan(args, folder.path(), &checkpoint, &roles.val_origin)?),
        false => None,
    };
    let jobs = jobs(args, planned.as_ref());
    if args.dry_run || !args.common.quiet {
        let mut expected = vec![Part::new("so far", Need::default().after(clock.seconds()))];
        expected.extend(planned.as_ref().and_then(|plan| plan.ahead.clone()));
        expected.extend(forecast(args, &jobs, folder.path())?);
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
    let progress = args.common.progress("bench", jobs.len() as u64 * args.seeds, "runs");
    let mut trained = Vec::new();
    for job in &jobs {
        let (mut runs, mut scores) = (Vec::new(), None);
        for seed in &seeds {
            progress.note(format!("{}, seed {seed}", job.name));
            let (run, scored) = train(args, job, *seed, folder.path())?;
            runs.push(run);
            scores = scores.or(scored);
            progress.add(1);
        }
        trained.push(Trained { name: job.name.clone(), control: job.control, runs, scores });
    }
    drop(progress);
    let rows = rows(&trained, args.common.seed)?;
    let costs = trained.iter().map(cost).collect();
    let report = Report {
        schema: SCHEMA.into(),
        run: TimedRun { run: clock.finish(), costs },
        damaged: damaged(&trained),
        checkpoint: checkpoint_info(&checkpoint),
        seeds,
        settings: serde_json::json!(Words::default().recipe(&args.recipe).0),
        plan: planned.map(|plan| plan.from),
        verdicts: verdicts(&rows, args.seeds as usize),
        rows,
    };
    args.common.save(&report)?;
    Ok(print(&show(&report))?)
}

/// A folder for what the runs write, removed at the end.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("planish-bench-")
        .tempdir()
        .context("cannot make a temporary folder; set TMPDIR to one that can be written")
}

/// A folder for the frozen layers' activations, named: then files there come before memory, and all
/// rows and seeds that freeze the same layers share one.
fn shared(args: &Args) -> Words {
    let mut words = Words::default();
    let cache = &args.recipe.cache;
    if let (CacheName::Auto, None, Ok(folder)) = (cache.cache, &cache.cache_dir, default_folder()) {
        words.option("--cache-dir", folder.display());
    }
    words
}

/// The command line of one run, but for what it writes.
fn words(args: &Args, job: &Job, seed: u64) -> Words {
    Words::new("post-train", &args.model, &args.data)
        .recipe(&args.recipe)
        .and(&shared(args))
        .limit(&args.limit)
        .and(&job.options)
        .option("--seed", args.common.seed)
        .option("--train-seed", seed)
        // Seeds share the checkpoint, so one of them shows how a method moves ΔL and κ.
        .option("--remeasure", if seed == args.common.seed { again(args) } else { 0 })
        // Every row is judged after its last epoch, whatever V says: picking epochs by V, or
        // dropping bad ends, would favour the method that wavers most.
        .option("--keep", "last")
        .flag("--force")
        .clone()
}

/// What the rows will take: each is asked by a dry run of its own, on its first seed.
fn forecast(args: &Args, jobs: &[Job], folder: &Path) -> anyhow::Result<Vec<Part>> {
    let json = folder.join("dry-run.json");
    let (mut parts, mut keys) = (Vec::new(), HashSet::new());
    let progress = args.common.progress("forecast", jobs.len() as u64, "runs");
    for job in jobs {
        let mut words = words(args, job, args.common.seed);
        words.flag("--dry-run").option("--json", json.display());
        spawn(&words, &args.common).with_context(|| format!("forecast of {}", job.name))?;
        let DryRun { expected, cache, .. } = read(&json)?;
        let again = expected.seconds_of("layers measured again");
        let frozen = expected.seconds_of("frozen layers");
        // Files are written by the first run that freezes these layers, and by no other.
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
        progress.add(1);
    }
    Ok(parts)
}

/// One run in a process of its own, and its report; of the first seed with its scores on test.
fn train(
    args: &Args,
    job: &Job,
    seed: u64,
    folder: &Path,
) -> anyhow::Result<(post_training::Report, Option<[Scores; 2]>)> {
    let dump = (seed == args.common.seed).then(|| folder.join("logits.safetensors"));
    let (json, out) = (folder.join("run.json"), folder.join("run.safetensors"));
    let mut words = words(args, job, seed);
    words.option("--json", json.display()).option("--out", out.display());
    if let Some(dump) = &dump {
        words.option("--dump", dump.display());
    }
    spawn(&words, &args.common).with_context(|| format!("{}, seed {seed}", job.name))?;
    let report = read(&json)?;
    let _ = std::fs::remove_file(out);
    let saved = dump.map(|dump| saved::read(&dump, None)).transpose()?;
    Ok((report, saved.map(|saved| saved.scores())))
}

/// A report that a run left.
pub fn read<T: serde::de::DeserializeOwned>(json: &Path) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(json).with_context(|| format!("cannot read {}", json.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Images on which the first seed measures ΔL and κ again.
fn again(args: &Args) -> usize {
    args.recipe.remeasure.or(args.samples).unwrap_or(usize::MAX)
}
