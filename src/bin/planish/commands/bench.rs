//! `planish bench`: compares methods with their controls, one process per run.

use crate::args::{Common, Limit, ModelArgs, note_precision};
use crate::commands::{diagnose, post_train};
use crate::exec::ChildCommand;
use crate::render::bench::text;
use anyhow::Context as _;
use planish::bench::{BenchOptions, BenchRun, BenchRunner, BenchSession, RunForecast, RunResult};
use planish::data::DataOptions;
use planish::diagnose::findings::Plan;
use planish::forecast::Part;
use planish::format::duration;
use planish::output;
use planish::post_train::{PostTrainOptions, Preview};
use planish::report::bench::BenchReport;
use planish::report::{diagnosis, dry_run::DryRun, post_training};
use planish::session::{Context, checkpoint_info, saved};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Options of `bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  planish bench model/ --data fashion-mnist/ --methods \
                        pof,pol,sam --json bench.json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataOptions,
    #[command(flatten)]
    options: BenchOptions,
    /// Print the forecast and exit
    #[arg(long, help_heading = "Bench options")]
    dry_run: bool,
    #[command(flatten)]
    pub(crate) limit: Limit,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Args {
    fn preview(&self) -> Preview {
        match (self.dry_run, self.common.quiet) {
            (true, _) => Preview::DryRun,
            (false, true) => Preview::None,
            (false, false) => Preview::Forecast,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A run fails, or the report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    args.options.check()?;
    let training = args.options.preset.train(&args.options.train);
    note_precision(training.precision, &args.common);
    let checkpoint = args.model.open()?;
    output::spare(&[args.common.json_file()], &checkpoint.path, &args.data.files())?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let runner = Children { args, folder: scratch()? };
    let (options, preview) = (&args.options, args.preview());
    let session =
        BenchSession::prepare(options, &checkpoint, &args.data, &runner, preview, &context)?;
    if preview != Preview::None {
        let expected = session.outlook(clock.seconds(), &context)?;
        let line = format!(
            "bench: {} rows of {} seeds, about {} and {:.0} MiB",
            session.rows.len(),
            options.seeds,
            duration(expected.seconds),
            expected.peak_mib
        );
        if args.dry_run {
            let (info, notes) = (checkpoint_info(&checkpoint), &session.roles.notes);
            args.common.save(&DryRun::new(clock.finish(), info, notes, expected))?;
            return Ok(args.common.print(&line)?);
        }
        context.info(&line);
    }
    let found = session.run(&context)?;
    let report = BenchReport::new(clock.finish(), checkpoint_info(&checkpoint), options, found)?;
    args.common.save(&report)?;
    Ok(args.common.print(&text(&report))?)
}

/// A temporary folder for the outputs of the runs.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("planish-bench-")
        .tempdir()
        .context("cannot create a temporary folder; set TMPDIR to a writable folder")
}

/// Starts a process for each run, so that its peak memory is its own.
struct Children<'a> {
    args: &'a Args,
    folder: tempfile::TempDir,
}

impl Children<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `diagnose`, and returns its report.
    fn diagnosis<T: DeserializeOwned>(
        &self,
        samples: Option<usize>,
        dry_run: bool,
    ) -> anyhow::Result<T> {
        let Args { model, data, limit, common, .. } = self.args;
        let json = self.path("diagnosis.json");
        let own = Common { json: Some(json.clone()), ..common.clone() };
        let mut child = diagnose::Args::new(model.clone(), data.clone(), own);
        (child.options.samples, child.limit, child.dry_run) = (samples, *limit, dry_run);
        ChildCommand::Diagnose(Box::new(child)).spawn(common)?;
        read(&json)
    }

    /// Runs `post-train` without an output, and returns its report.
    fn post_train<T: DeserializeOwned>(
        &self,
        options: PostTrainOptions,
        change: impl FnOnce(&mut post_train::Args),
    ) -> anyhow::Result<T> {
        let Args { model, data, limit, common, .. } = self.args;
        let json = self.path("run.json");
        let own = Common { json: Some(json.clone()), ..common.clone() };
        let options = PostTrainOptions { limit: *limit, ..options };
        let mut child = post_train::Args::of(options, model.clone(), data.clone(), own);
        change(&mut child);
        ChildCommand::PostTrain(Box::new(child)).spawn(common)?;
        read(&json)
    }

    fn trained(&self, run: &BenchRun) -> anyhow::Result<RunResult> {
        let out = self.path(run.output());
        let dump = self.path("logits.safetensors");
        let dump_untouched = run.untouched.then(|| self.path("untouched.safetensors"));
        let options = PostTrainOptions {
            dump: Some(dump.clone()),
            dump_untouched: dump_untouched.clone(),
            ..run.options.clone()
        };
        let report: post_training::PostTrainReport =
            self.post_train(options, |child| child.out = Some(out.clone()))?;
        // The next run writes it again, and disks may be small.
        let _ = std::fs::remove_file(&out).or_else(|_| std::fs::remove_dir_all(&out));
        let untouched = dump_untouched.map(|dump| saved::read(&dump, None)).transpose()?;
        Ok(RunResult {
            scores: Some(saved::read(&dump, None)?.scores()),
            untouched_scores: untouched.map(|saved| saved.scores()),
            ..report.into()
        })
    }
}

impl BenchRunner for Children<'_> {
    type Error = anyhow::Error;

    fn forecast_diagnosis(&self, samples: Option<usize>, _: &Context) -> anyhow::Result<Part> {
        let found: DryRun = self.diagnosis(samples, true)?;
        found.expected.parts.into_iter().next_back().context("the forecast has no part")
    }

    fn diagnose(&self, samples: Option<usize>, _: &Context) -> anyhow::Result<Option<Plan>> {
        let found: diagnosis::DiagnosisReport = self.diagnosis(samples, false)?;
        Ok(found.findings.plan)
    }

    fn forecast(&self, run: &BenchRun, _: &Context) -> anyhow::Result<RunForecast> {
        let found: anyhow::Result<DryRun> =
            self.post_train(run.options.clone(), |child| child.dry_run = true);
        let DryRun { expected, cache, .. } =
            found.with_context(|| format!("forecast of {}", run.row))?;
        Ok(RunForecast { expected, cache })
    }

    fn train(&self, run: &BenchRun, _: &Context) -> anyhow::Result<RunResult> {
        self.trained(run).with_context(|| format!("{}, seed {}", run.row, run.seed))
    }
}

/// Reads the report of a child process.
fn read<T: DeserializeOwned>(json: &Path) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(json).with_context(|| format!("cannot read {}", json.display()))?;
    Ok(serde_json::from_str(&text)?)
}
