//! `planish study`: many models on many data sets and shifts, each cell computed once.

use crate::args::Common;
use crate::render::print;
use crate::render::study::{outlook, written};
use anyhow::bail;
use planish::engine::EngineOptions;
use planish::study::{Share, StudySession, Table, join};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Arguments of `planish study`.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Args {
    /// Study file (TOML)
    #[arg(value_name = "FILE", required_unless_present = "merge", conflicts_with = "merge")]
    pub file: Option<PathBuf>,
    /// Results folder [default: as in the file, or the file's name without .toml]
    ///
    /// With --shard 3/16, the default name ends in -3-of-16.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Compute only this part of the cells, such as 3/16.
    ///
    /// Each shard has a results folder of its own; --merge joins them.
    #[arg(long, value_name = "I/N", default_value_t = Share::default())]
    pub shard: Share,
    /// Join the results folders of shards into the folder OUT.
    ///
    /// Cells that are already in OUT count as one more shard.
    #[arg(
        long,
        num_args = 2..,
        value_names = ["OUT", "SHARD"],
        conflicts_with_all = ["out", "shard", "only", "dry_run"]
    )]
    pub merge: Vec<PathBuf>,
    /// With --merge: join even if some cells are missing from all folders
    #[arg(long, requires = "merge")]
    pub partial: bool,
    /// Recompute one cell and print its row (repeatable).
    ///
    /// DIGEST is the cell's digest or the beginning of it.
    #[arg(long, value_name = "DIGEST", conflicts_with = "shard")]
    pub only: Vec<String>,
    /// Print how many cells there are and how many are missing, and exit
    #[arg(long)]
    pub dry_run: bool,
    /// Number of threads [default: all]
    #[arg(long, value_name = "N", help_heading = "Common options")]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Do not print progress
    #[arg(long, help_heading = "Common options")]
    pub quiet: bool,
}

const HELP: &str = "Examples:
  planish study models.toml
  planish study models.toml --shard 1/2 --out a
  planish study models.toml --shard 2/2 --out b
  planish study --merge all a b

models.toml contains, with paths as on the command line:
  shifts = [\"corruptions:fog,contrast:1,3,5\"]
  [[model]]
  name = \"small\"
  checkpoint = \"small/\"
  attributes = { width = 64 }
  [[data]]
  name = \"fashion\"
  source = \"fashion-mnist/\"
  [[ood]]
  name = \"digits\"
  source = \"mnist/\"
  [[bench]]
  name = \"pairs\"
  methods = [\"pol\", \"pof\"]
  pairs = \"all\"
  seeds = [0, 1, 2]
  diagnose = true
  grid = { lr = [0.01, 0.1], gamma = 2, epochs = 5 }";

/// Computes the missing cells and writes the tables.
///
/// # Errors
/// The study file is invalid, or a checkpoint, data set or output cannot be used.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some((out, shards)) = args.merge.split_first() {
        return Ok(print(&written(&join(out, shards, args.partial)?))?);
    }
    let Some(file) = &args.file else { bail!("expected a study file, found none") };
    // The study file states the seed.
    let common = Common {
        threads: args.threads,
        engine: args.engine,
        quiet: args.quiet,
        ..Common::default()
    };
    let running = common.start()?;
    let terminal = common.terminal();
    let context = common.context(&running, &terminal);
    let session = StudySession::prepare(file, args.out.as_deref(), args.shard, &context)?;
    if !args.only.is_empty() && !args.dry_run {
        let tables = session.recompute(&args.only, &context)?;
        return Ok(print(&tables.iter().map(Table::jsonl).collect::<String>())?);
    }
    let line = outlook(&session.outlook()?, args.shard);
    if args.dry_run {
        return Ok(print(&line)?);
    }
    context.info(&line);
    Ok(print(&written(&session.run(&context)?))?)
}
