//! `planish study --merge`: joins the shards of a study.

use crate::commands::study::{spare, write};
use crate::render::print;
use planish::output;
use planish::study::{CELLS, Log, Merged, PLAN, StudyPlan, merge};
use std::path::{Path, PathBuf};

/// Merges shards into the folder `out` and writes the tables.
///
/// # Errors
/// The shards belong to different studies; cells are missing and the result is not to be `partial`;
/// two shards disagree on a cell; or a file cannot be read or written.
pub fn join(out: &Path, shards: &[PathBuf], partial: bool) -> anyhow::Result<()> {
    output::check(&out.join(PLAN))?;
    spare(out)?;
    let mut folders = shards.to_vec();
    // Cells already in the output folder count as one more shard. The lock keeps other writers out.
    let mut held = None;
    if out.join(CELLS).exists() {
        if out.join(PLAN).exists() {
            // Names a folder of an earlier version.
            StudyPlan::read(out)?;
        }
        held = Some(Log::open(out)?);
        if !folders.iter().any(|folder| folder == out) {
            folders.push(out.to_path_buf());
        }
    }
    let merged = merge(&folders)?;
    if !partial {
        merged.whole()?;
    }
    let (log, _) = merged.log()?;
    let Merged { plan, entries, .. } = merged;
    output::write(&out.join(CELLS), log.as_bytes())?;
    output::write_json(&out.join(PLAN), &plan)?;
    let said = write(out, &plan, &entries)?;
    drop(held);
    Ok(print(&said)?)
}
