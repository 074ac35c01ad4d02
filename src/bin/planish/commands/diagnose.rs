//! `planish diagnose`: ΔL and κ of each layer, and a plan.

use crate::args::{Common, Limit, ModelArgs};
use crate::render::remedies::text as remedies_text;
use crate::render::{diagnosis, print, sampling};
use anyhow::bail;
use planish::data::{DataOptions, Role, require};
use planish::diagnose::sampling::{SampledFindings, measure, sizes};
use planish::diagnose::session::DiagnoseSession;
use planish::diagnose::{DiagnoseOptions, MeasureOptions, post_training};
use planish::forecast::{Expected, Need, Part};
use planish::format::duration;
use planish::memory;
use planish::models::layers::join;
use planish::objective::{Examples, Objective};
use planish::output::spare;
use planish::report::diagnosis::{DiagnosisReport, SCHEMA, TimedDiagnosis};
use planish::report::dry_run::DryRun;
use planish::session::bad_samples::damage_note;
use planish::session::{Data, checkpoint_info, data_info};
use serde::{Deserialize, Serialize};

/// Options of `diagnose`.
#[derive(clap::Args, Clone, Debug, Serialize, Deserialize)]
#[command(after_help = "Example:\n  planish diagnose model/ --data fashion-mnist/ --samples 2000 \
                        --json diagnosis.json")]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub data: DataOptions,
    /// What to measure.
    #[command(flatten)]
    pub options: DiagnoseOptions,
    /// Print the forecast and exit
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub limit: Limit,
    #[command(flatten)]
    pub common: Common,
}

impl Args {
    /// A diagnosis with default options.
    pub fn new(model: ModelArgs, data: DataOptions, common: Common) -> Self {
        let (options, limit) = (DiagnoseOptions::default(), Limit::default());
        Self { model, data, options, dry_run: false, limit, common }
    }
}

/// Runs the command.
///
/// # Errors
/// The model cannot be measured, or the report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    args.options.check()?;
    let clock = args.common.start()?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let checkpoint = args.model.open()?;
    spare(&[args.common.json.as_deref()], &checkpoint.path, &args.data.files())?;
    let data = Data::open(&args.data, &checkpoint)?;
    let roles = data.roles(&checkpoint, args.common.seed)?;
    args.common.say_notes(&roles.notes);
    let options = &args.options;
    let (chosen, unmerged) = options.layers_of(&checkpoint)?;
    let remedies = options.remedies_of(&checkpoint, &roles, (&chosen, unmerged.is_some()))?;
    let v = require(Role::Val, roles.val.as_ref())?;
    let most = options.samples.unwrap_or(usize::MAX).min(v.len());
    if most == 1 {
        bail!(
            "cross-fitting needs at least two validation images, found one; add images or raise \
             --samples"
        )
    }
    let sizes = sizes(most, options.convergence, options.until_stderr.is_some());
    let mut work = DiagnoseSession::new(&checkpoint, &roles, Some(most), &context)?;
    if let Some((network, weights)) = unmerged {
        work = work.at(Objective::new(network.into(), weights, context.engine));
    }
    let calibration = work.calibrate(&chosen, args.limit.mib())?;
    let measured = options.measured(room(&args.limit), args.common.seed);
    let whole = work.need_with(&chosen, &measured, &calibration);
    let times = sizes.iter().sum::<usize>() as f64 / most.max(1) as f64;
    let searching = remedies.as_ref().map(|r| r.need(&work.objective, most, &calibration));
    let need = Need { seconds: times * whole.seconds, ..whole }
        .then(searching.unwrap_or_default())
        .after(clock.seconds());
    if let Some(limit) = args.limit.mib().filter(|limit| need.mib > *limit) {
        bail!(
            "--memory: the diagnosis needs about {:.0} MiB, the limit is {limit:.0} MiB; omit \
             --spectrum or --density, choose a finer --granularity, or raise the limit",
            need.mib
        )
    }
    let plain = MeasureOptions::default();
    let line = format!(
        "diagnose: {} layers on {} images, {} {} and {}",
        chosen.len(),
        work.validation.len(),
        if measured == plain && sizes.len() == 1 && remedies.is_none() {
            "about"
        } else {
            "at most"
        },
        duration(need.seconds),
        context.engine.memory_forecast(need.mib, 0)
    );
    if args.dry_run {
        let device_peak_mib = context.engine.expected_mib(0);
        let mut parts = vec![Part::new("diagnosis", need)];
        if let Some(searching) = searching {
            parts[0].seconds -= searching.seconds;
            parts.push(Part::new("remedies", searching));
        }
        let expected = Expected { device_peak_mib, ..Expected::of(parts) };
        let info = checkpoint_info(&checkpoint);
        args.common.save(&DryRun::new(clock.finish(), info, &roles.notes, expected))?;
        return Ok(print(&line)?);
    }
    args.common.say(&line);
    if options.convergence && sizes.len() == 1 {
        args.common.say("note: too few images for --convergence");
    }
    let part = |n| work.with_images(&checkpoint, &roles, n, &context);
    let mut found: SampledFindings =
        measure(&work, &part, &sizes, options.until_stderr, |session, full| {
            let few;
            let how = if full {
                &measured
            } else {
                few = measured.only_top();
                &few
            };
            session.measure(&chosen, how, &context)
        })?;
    let damaged = data.damaged();
    found.findings.warnings.extend(damage_note(&damaged));
    let session = found.part.as_ref().unwrap_or(&work);
    let remedies = match &remedies {
        Some(remedies) => {
            Some(remedies.measure(&session.objective, &session.validation, &context)?)
        }
        None => None,
    };
    let text = diagnosis::show(session, &found.findings, &roles, &args.common)
        + &remedies.as_ref().map_or(String::new(), remedies_text)
        + &sampling::show(&found);
    let (mut timed, operations) =
        post_training(&work.objective, work.train_images, &calibration, &found.findings);
    // Timings of some layers do not predict those of others.
    if join(&chosen).tensors.len() < checkpoint.network.params().len() {
        timed.clear();
    }
    let split = session.validation.split();
    args.common.save(&DiagnosisReport {
        schema: SCHEMA.into(),
        run: TimedDiagnosis { run: clock.finish(), forecast: timed },
        checkpoint: checkpoint_info(&checkpoint),
        data: data_info(data.of(split), split, &roles.val_origin),
        damaged,
        findings: found.findings,
        convergence: found.samples,
        sampling: found.sampling,
        remedies,
        forecast: operations,
    })?;
    Ok(print(&text)?)
}

/// Memory available to the estimators, MiB.
fn room(limit: &Limit) -> f64 {
    match limit.mib() {
        Some(limit) => limit - memory::resident_mib().unwrap_or(0.0),
        None => 0.5 * memory::available_mib().unwrap_or(f64::INFINITY),
    }
}
