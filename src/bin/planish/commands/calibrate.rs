//! `planish calibrate`: fold a temperature, or a structured scaling, into the head.

use crate::args::{Common, ModelArgs};
use crate::render::calibrate::text;
use crate::render::print;
use anyhow::Context;
use clap::ArgGroup;
use planish::calibrate::{CalibrateOptions, CalibrateSession};
use planish::data::DataOptions;
use planish::output;
use planish::post_train::Place;
use planish::report::Calibration;
use std::path::PathBuf;

/// Options of `calibrate`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("place").required(true),
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
    /// Write the calibrated checkpoint to this .safetensors file or folder
    #[arg(long, value_name = "NEW", group = "place", help_heading = "Calibration options")]
    pub out: Option<PathBuf>,
    /// Overwrite CKPT; `planish undo CKPT` restores it, byte for byte
    #[arg(long, group = "place", help_heading = "Calibration options")]
    pub in_place: bool,
    /// Measure only; write no checkpoint
    #[arg(long, group = "place", help_heading = "Calibration options")]
    pub dry_run: bool,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

impl Args {
    fn place(&self) -> Place {
        match &self.out {
            Some(out) => Place::New(out.clone()),
            None if self.in_place => Place::InPlace,
            None => Place::Nowhere,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The model cannot be calibrated, or the result cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    args.options.check()?;
    let checkpoint = args.model.open()?;
    let outputs = [args.common.json.as_deref(), args.out.as_deref()];
    output::spare(&outputs, &checkpoint.path, &args.data.files())?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let session =
        CalibrateSession::prepare(&args.options, checkpoint, &args.data, &args.place(), &context)?;
    let found = session.run(&context)?;
    let report = Calibration::new(clock.finish(), &session, found);
    let saved = args.common.save(&report);
    print(&text(&report, &args.common.untold(&report.notes, &session.roles.notes)))?;
    saved.with_context(|| match &report.output {
        Some(file) => format!("{} was written", file.path),
        None => "nothing was written".into(),
    })
}
