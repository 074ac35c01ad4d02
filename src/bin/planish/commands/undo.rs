//! `planish undo`: put back what tuning in place replaced.

use crate::render::print;
use planish::checkpoint::undo;
use std::path::PathBuf;

/// Options of `undo`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The undo file beside the checkpoint leads back to its state before the first \
                  tuning in place, byte for byte, and is removed.\n\nExample:\n  planish undo model/"
)]
pub struct Args {
    /// Checkpoint that was tuned in place: a .safetensors file, or a folder with
    /// model.safetensors
    #[arg(value_name = "CKPT")]
    checkpoint: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// There is nothing to undo, or the file cannot be replaced.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let undone = undo(&args.checkpoint)?;
    let path = undone.path.display();
    let text = match undone.tensors.len() {
        0 => format!("{path} was already as before its tuning; the undo file is removed"),
        n => format!("{path} is as before its tuning: {n} tensors put back"),
    };
    print(&format!("{text}\nSHA-256 {}", undone.digest))?;
    Ok(())
}
