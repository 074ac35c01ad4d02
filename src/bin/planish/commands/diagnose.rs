//! `planish diagnose`: ΔL and κ of each layer, and a plan.

use crate::args::{Common, Limit, ModelArgs};
use crate::render::diagnosis;
use planish::data::DataOptions;
use planish::diagnose::{DiagnoseOptions, DiagnoseSession};
use planish::format::duration;
use planish::output;
use planish::report::diagnosis::DiagnosisReport;
use planish::report::dry_run::DryRun;
use planish::session::checkpoint_info;
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
    output::spare(&[args.common.json_file()], &checkpoint.path, &args.data.files())?;
    let session =
        DiagnoseSession::prepare(&args.options, checkpoint, &args.data, args.limit, &context)?;
    let expected = session.outlook(clock.seconds(), &context);
    let line = format!(
        "diagnose: {} layers on {} images, {} {} and {}",
        session.layers.len(),
        session.images(),
        if session.may_stop_early() { "at most" } else { "about" },
        duration(expected.seconds),
        context.engine.memory_forecast(expected.peak_mib, 0)
    );
    let notes = &session.roles.notes;
    if args.dry_run {
        let info = checkpoint_info(&session.checkpoint);
        args.common.save(&DryRun::new(clock.finish(), info, notes, expected))?;
        return Ok(args.common.print(&line)?);
    }
    context.info(&line);
    let found = session.run(&context)?;
    let report = DiagnosisReport::new(clock.finish(), &session, found);
    args.common.save(&report)?;
    Ok(args.common.print(&diagnosis::text(&report, &args.common.untold(notes, notes)))?)
}
