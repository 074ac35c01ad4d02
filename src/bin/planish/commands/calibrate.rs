//! `planish calibrate`: fold a temperature, or a structured scaling, into the head.

use crate::args::{Common, ModelArgs, PlaceArgs};
use crate::render::calibrate::text;
use anyhow::Context;
use planish::calibrate::{CalibrateOptions, CalibrateSession};
use planish::data::DataOptions;
use planish::output;
use planish::report::CalibrationReport;

/// Options of `calibrate`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  planish calibrate model/ --data fashion-mnist/ --out calibrated/\n  \
                  planish calibrate model/ --data fashion-mnist/ --conformal 0.1 --in-place"
)]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub data: DataOptions,
    /// Options of calibration.
    #[command(flatten)]
    pub options: CalibrateOptions,
    /// Where the result is written.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The model cannot be calibrated, or the result cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    args.options.check()?;
    let checkpoint = args.model.open()?;
    let outputs = [args.common.json_file(), args.place.out.as_deref()];
    output::spare(&outputs, &checkpoint.path, &args.data.files())?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let session = CalibrateSession::prepare(
        &args.options,
        checkpoint,
        &args.data,
        &args.place.place(),
        &context,
    )?;
    let found = session.run(&context)?;
    let report = CalibrationReport::new(clock.finish(), &session, found);
    let saved = args.common.save(&report);
    args.common.print(&text(&report, &args.common.untold(&report.notes, &session.roles.notes)))?;
    saved.with_context(|| match &report.output {
        Some(file) => format!("{} was written", file.path),
        None => "nothing was written".into(),
    })
}
