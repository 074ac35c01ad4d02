//! `planish merge`: the parts of a study as one.

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
    /// Folder of the whole
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Folders of the parts
    #[arg(value_name = "SHARD", required = true)]
    pub shards: Vec<PathBuf>,
    /// Join what there is even if cells of the study are in none of the folders
    #[arg(long)]
    pub partial: bool,
}

/// Joins the parts and writes the tables.
///
/// # Errors
/// Parts of different studies, or not all of one, unless by `--partial`; a cell of which two parts hold different figures; files that cannot be
/// read or written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    output::check(&args.out.join(PLAN))?;
    spare(&args.out)?;
    let mut folders = args.shards.clone();
    // What is there already stays, as one more part, and nobody adds to it now.
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
