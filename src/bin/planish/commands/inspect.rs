//! `planish inspect`: describes a checkpoint.

use crate::args::{Common, ModelArgs};
use crate::render::inspect::text;
use planish::report::Inspection;

/// Arguments of `planish inspect`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  planish inspect vit.safetensors --heads 4 --image-size 28")]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Prints the checkpoint's architecture and how it was recognised.
///
/// # Errors
/// The checkpoint is not fully determined, or the report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    let checkpoint = args.model.open()?;
    planish::output::spare(&[args.common.json_file()], &checkpoint.path, &[])?;
    let report = Inspection::new(running.finish(), &checkpoint)?;
    args.common.save(&report)?;
    Ok(args.common.print(&text(&report))?)
}
