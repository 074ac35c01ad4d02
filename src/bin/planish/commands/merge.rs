//! `planish merge`: WiSE-FT, LiNeS, model soups and Model Stock.

use crate::args::Common;
use crate::render::merge::text;
use anyhow::Context;
use clap::ArgGroup;
use planish::checkpoint::{Checkpoint, Load};
use planish::data::DataOptions;
use planish::merge::{MergeOptions, MergeSession};
use planish::output;
use planish::post_train::Place;
use planish::report::Merging;
use std::path::PathBuf;

/// Options of `merge`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("place").required(true),
    after_help = "Examples:\n  planish merge tuned/ --pretrained vit/ --method wise --data images/ \
                  --out merged/\n  planish merge a/ b/ c/ --method greedy --data images/ --out soup/\n\n\
                  `planish study --merge` joins the shards of a study."
)]
pub struct Args {
    /// Checkpoints of one architecture; the result has the format of the first
    #[arg(value_name = "CKPT", required = true)]
    pub checkpoints: Vec<PathBuf>,
    /// Options of merging.
    #[command(flatten)]
    pub options: MergeOptions,
    /// Write the merged checkpoint to this .safetensors file or folder
    #[arg(long, value_name = "NEW", group = "place", help_heading = "Merging options")]
    pub out: Option<PathBuf>,
    /// Measure only; write no checkpoint
    #[arg(long, group = "place", help_heading = "Merging options")]
    pub dry_run: bool,
    /// Settings that the checkpoints do not contain.
    #[command(flatten)]
    pub load: Load,
    /// The images.
    #[command(flatten)]
    pub data: DataOptions,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The checkpoints cannot be merged, or the result cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    let options = &args.options;
    options.check(args.checkpoints.len())?;
    let open = |path: &PathBuf| Checkpoint::open(path, &args.load);
    let checkpoints = args.checkpoints.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    for checkpoint in &checkpoints {
        output::spare(
            &[args.common.json_file(), args.out.as_deref()],
            &checkpoint.path,
            &args.data.files(),
        )?;
    }
    let place = args.out.clone().map_or(Place::Nowhere, Place::New);
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let session = MergeSession::prepare(options, checkpoints, &args.data, &place, &context)?;
    let found = session.run(&context)?;
    let report = Merging::new(clock.finish(), &session, found);
    let saved = args.common.save(&report);
    args.common.print(&text(&report, &args.common.untold(&report.notes, &session.roles.notes)))?;
    saved.with_context(|| match &report.output {
        Some(file) => format!("{} was written", file.path),
        None => "nothing was written".into(),
    })
}
