//! `planish selftest`: checks the numerical accuracy of planish on the user's model.

use super::demo;
use crate::args::Common;
use crate::render::selftest::text;
use anyhow::bail;
use planish::checkpoint::{Checkpoint, Load};
use planish::report::Selftest;
use planish::selftest::{SelftestOptions, selftest};
use planish::session::checkpoint_info;
use std::path::PathBuf;

/// Options of `selftest`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without --data, the inputs are noise. Without CKPT, the embedded model is \
                  tested.\n\nExamples:\n  planish selftest\n  planish selftest \
                  vit/ --data cifar-100/"
)]
pub struct Args {
    /// Checkpoint: a file or a folder [default: the embedded model]
    #[arg(value_name = "CKPT")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    model: Load,
    #[command(flatten)]
    options: SelftestOptions,
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
///
/// # Errors
/// The model cannot be run, or a check fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    let carried;
    let path = match &args.checkpoint {
        Some(path) => path,
        None => {
            carried = demo::carried_model()?;
            &carried.path().join("model")
        }
    };
    let checkpoint = Checkpoint::open(path, &args.model)?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let found = selftest(&args.options, &checkpoint, &context)?;
    let report = Selftest::new(clock.finish(), checkpoint_info(&checkpoint), found);
    args.common.save(&report)?;
    args.common.print(&text(&report))?;
    match report.passed {
        true => Ok(()),
        false => bail!(
            "{} of {} checks failed: results of planish on this model are not reliable; please \
             report this table",
            report.checks.iter().filter(|check| !check.passed).count(),
            report.checks.len()
        ),
    }
}
