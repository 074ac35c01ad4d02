//! `planish undo`: restore a checkpoint that was tuned in place.

use crate::render::print;
use planish::checkpoint::undo;
use std::path::PathBuf;

/// Options of `undo`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Restores the checkpoint to its state before the first in-place tuning, byte for \
                  byte, and removes the undo file next to it.\n\nExample:\n  planish undo model/"
)]
pub struct Args {
    /// Checkpoint that was tuned in place: a file or a folder
    #[arg(value_name = "CKPT")]
    checkpoint: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// There is no undo file, or the checkpoint cannot be replaced.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let undone = undo(&args.checkpoint)?;
    let path = undone.path.display();
    let text = match undone.tensors.len() {
        0 => format!("{path} was already in its original state; the undo file is removed"),
        n => format!("{path} is restored: {n} tensors replaced"),
    };
    print(&format!("{text}\nSHA-256 {}", undone.digest))?;
    Ok(())
}
