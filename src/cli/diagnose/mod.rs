//! `planish diagnose`: ΔL and κ of every layer, and a plan.

mod forecast;
mod sampling;
mod show;

use crate::cli::bad_samples::damage_note;
use crate::cli::common::{Common, Limit};
use crate::cli::format::duration;
use crate::cli::hvp::Operator;
use crate::cli::images::{DataArgs, data_info};
use crate::cli::model::{ModelArgs, checkpoint_info};
use crate::cli::numbers::{percent, up_to_one};
use crate::cli::output::{print, spare};
use crate::cli::subject::Subject;
use crate::data::{Role, require};
use crate::device;
use crate::diagnose::spectrum::Settings;
use crate::diagnose::{Estimator, Options};
use crate::forecast::Need;
use crate::memory;
use crate::objective::{Examples, Matrix};
use crate::report::diagnosis::{Report, SCHEMA, TimedRun};
use crate::report::dry_run::{DryRun, Expected, Part};
use crate::vit::Granularity;
use crate::vit::layers::{join, layers, select};
use anyhow::bail;
use forecast::post_training;

/// Options of `diagnose`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  planish diagnose model/ --data fashion-mnist/ --samples 2000 \
                        --json diagnosis.json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Validation images to use, in proportion to the classes [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Layers: names or globs, separated by commas [default: all, by --granularity]
    #[arg(long, value_name = "L")]
    layer: Option<String>,
    /// How finely the model is cut into layers
    #[arg(long, value_enum, default_value = "block", conflicts_with = "layer")]
    granularity: Cut,
    /// How each layer's Δw is found: the first minimum along its gradient, or Newton-CG in a trust
    /// region
    #[arg(long, value_enum, default_value = "line")]
    estimator: Way,
    /// Of `--estimator newton`: the longest Δw, as a share of the layer's weight norm
    /// [default: 0.1]
    #[arg(long, value_name = "R", value_parser = up_to_one)]
    radius: Option<f64>,
    /// Of `--estimator newton`: products with the Hessian at most, for each layer and fold
    /// [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// Measure each layer's top eigenvalues, trace and effective dimension, too
    #[arg(long)]
    spectrum: bool,
    /// And its spectral density; takes several times as long
    #[arg(long)]
    density: bool,
    /// Top eigenvalues of `--spectrum` [default: 3]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(1..=20))]
    eigenvalues: Option<u8>,
    /// Of `--spectrum`: `ggn` measures the Gauss-Newton matrix, too, next to the Hessian
    #[arg(long, value_enum)]
    operator: Option<Operator>,
    /// Measure a quarter and a half of V, too: whether V is large enough
    #[arg(long)]
    convergence: bool,
    /// Take more and more of V until the ranking of the layers is known to within this relative
    /// standard error, such as 5%
    #[arg(long, value_name = "P", value_parser = percent, conflicts_with = "convergence")]
    until_stderr: Option<f64>,
    /// Print the forecast, and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    common: Common,
}

/// Granularities on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Cut {
    /// embed, block.0 …, norm, head
    Block,
    /// each block's attention and MLP apart
    Sublayer,
    /// every tensor alone
    Tensor,
}

/// Estimators on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Way {
    /// Along the gradient
    Line,
    /// Steihaug's truncated Newton-CG
    Newton,
}

impl Args {
    /// Refuses options that nothing would heed.
    fn check(&self) -> anyhow::Result<()> {
        let newton = matches!(self.estimator, Way::Newton);
        let spectrum = self.spectrum || self.density;
        for (given, heeded, option, with) in [
            (self.radius.is_some(), newton, "--radius", "--estimator newton"),
            (self.iterations.is_some(), newton, "--iterations", "--estimator newton"),
            (self.eigenvalues.is_some(), spectrum, "--eigenvalues", "--spectrum"),
            (self.operator.is_some(), spectrum, "--operator", "--spectrum"),
        ] {
            if given && !heeded {
                bail!("{option} says nothing without {with}; give both, or leave it out")
            }
        }
        Ok(())
    }

    /// How layers are measured, with that much memory at hand, MiB.
    fn options(&self, room: f64) -> Options {
        let mut matrices = vec![Matrix::Hessian];
        if self.operator == Some(Operator::Ggn) {
            matrices.push(Matrix::GaussNewton);
        }
        Options {
            estimator: match self.estimator {
                Way::Line => Estimator::Line,
                Way::Newton => Estimator::Newton {
                    radius: self.radius.unwrap_or(0.1),
                    iterations: self.iterations.unwrap_or(20) as usize,
                },
            },
            spectrum: (self.spectrum || self.density).then(|| Settings {
                matrices,
                largest: self.eigenvalues.unwrap_or(3).into(),
                whole: true,
                density: self.density,
                room,
                seed: self.common.seed,
            }),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Anything that keeps the model from being measured, or the report from being written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    args.check()?;
    let clock = args.common.start()?;
    let checkpoint = args.model.open()?;
    spare(&[args.common.json.as_deref()], &checkpoint.path, &args.data.files())?;
    let sources = args.data.open(&checkpoint)?;
    let roles = sources.roles(&checkpoint, args.common.seed)?;
    args.common.say_notes(&roles.notes);
    let chosen = match &args.layer {
        Some(pattern) => select(&checkpoint.config, pattern)?,
        None => layers(
            &checkpoint.config,
            match args.granularity {
                Cut::Block => Granularity::Block,
                Cut::Sublayer => Granularity::Sublayer,
                Cut::Tensor => Granularity::Tensor,
            },
        ),
    };
    let v = require(Role::Val, roles.val.as_ref())?;
    let most = args.samples.unwrap_or(usize::MAX).min(v.len());
    if most == 1 {
        bail!("V has one image, and either fold needs one; give more, or more with --samples")
    }
    let sizes = sampling::sizes(most, args.convergence, args.until_stderr.is_some());
    let mut work = Subject::new(&checkpoint, &roles, Some(most), &args.common)?;
    let calibration = work.calibrate(&chosen, &args.limit)?;
    let options = args.options(room(&args.limit));
    let whole = work.need_with(&chosen, &options, &calibration);
    let times = sizes.iter().sum::<usize>() as f64 / most.max(1) as f64;
    let need = Need { seconds: times * whole.seconds, ..whole }.after(clock.seconds());
    if let Some(limit) = args.limit.mib().filter(|limit| need.mib > *limit) {
        bail!(
            "--memory: this takes about {:.0} MiB, and {limit:.0} MiB are allowed; leave out \
             --spectrum or --density, cut finer with --granularity, or allow more",
            need.mib
        )
    }
    let plain = Options::default();
    let line = format!(
        "diagnose: {} layers on {} images, {} {} and {}",
        chosen.len(),
        work.validation.len(),
        if options == plain && sizes.len() == 1 { "about" } else { "at most" },
        duration(need.seconds),
        device::outlook(need.mib, 0)
    );
    if args.dry_run {
        let device_peak_mib = device::expected_mib(0);
        let expected =
            Expected { device_peak_mib, ..Expected::of(vec![Part::new("diagnosis", need)]) };
        let info = checkpoint_info(&checkpoint);
        args.common.save(&DryRun::new(clock.finish(), info, &roles.notes, expected))?;
        return Ok(print(&line)?);
    }
    args.common.say(&line);
    if args.convergence && sizes.len() == 1 {
        args.common.say("note: too few images for --convergence to divide");
    }
    let part = |n| work.with_images(&checkpoint, &roles, n, &args.common);
    let mut found = sampling::measure(&work, &part, &sizes, args.until_stderr, |subject, full| {
        let few;
        let how = if full {
            &options
        } else {
            few = options.only_top();
            &few
        };
        subject.measure(&chosen, how, &args.common)
    })?;
    let damaged = sources.damaged();
    found.findings.warnings.extend(damage_note(&damaged));
    let subject = found.part.as_ref().unwrap_or(&work);
    let text = show::show(subject, &found.findings, &roles, &args.common) + &sampling::show(&found);
    let (mut timed, operations) =
        post_training(&work.objective, work.train_images, &calibration, &found.findings);
    // What was timed on some layers says little of others.
    if join(&chosen).tensors.len() < checkpoint.config.tensors().len() {
        timed.clear();
    }
    let split = subject.validation.split();
    args.common.save(&Report {
        schema: SCHEMA.into(),
        run: TimedRun { run: clock.finish(), forecast: timed },
        checkpoint: checkpoint_info(&checkpoint),
        data: data_info(sources.of(split), split, &roles.val_origin),
        damaged,
        findings: found.findings,
        convergence: found.samples,
        sampling: found.sampling,
        forecast: operations,
    })?;
    Ok(print(&text)?)
}

/// Memory that the estimators may take, MiB.
fn room(limit: &Limit) -> f64 {
    match limit.mib() {
        Some(limit) => limit - memory::resident_mib().unwrap_or(0.0),
        None => 0.5 * memory::available_mib().unwrap_or(f64::INFINITY),
    }
}
