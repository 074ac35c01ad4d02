//! `planish merge`: joins the shards of a study.

use crate::commands::study::{spare, write};
use crate::render::print;
use planish::output;
use planish::study::{CELLS, Log, Merged, PLAN, merge};
use std::path::PathBuf;

/// Arguments of `planish merge`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  planish study models.toml --shard 1/2 --out a\n  planish study \
                        models.toml --shard 2/2 --out b\n  planish merge all a b"
)]
pub struct Args {
    /// Output folder
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Folders of the shards
    #[arg(value_name = "SHARD", required = true)]
    pub shards: Vec<PathBuf>,
    /// Merge even if some cells are missing from all folders
    #[arg(long)]
    pub partial: bool,
}

/// Merges the shards and writes the tables.
///
/// # Errors
/// The shards belong to different studies; cells are missing without `--partial`; two shards
/// disagree on a cell; or a file cannot be read or written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    output::check(&args.out.join(PLAN))?;
    spare(&args.out)?;
    let mut folders = args.shards.clone();
    // Cells already in the output folder count as one more shard. The lock keeps other writers out.
    let mut held = None;
    if args.out.join(CELLS).exists() {
        held = Some(Log::open(&args.out)?);
        if !folders.contains(&args.out) {
            folders.push(args.out.clone());
        }
    }
    let merged = merge(&folders)?;
    if !args.partial {
        merged.whole()?;
    }
    let (log, _) = merged.log()?;
    let Merged { plan, entries, .. } = merged;
    output::write(&args.out.join(CELLS), log.as_bytes())?;
    output::write_json(&args.out.join(PLAN), &plan)?;
    let said = write(&args.out, &plan, &entries)?;
    drop(held);
    Ok(print(&said)?)
}
