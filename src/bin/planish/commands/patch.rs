//! `planish patch`: a patch of the tensors that changed, instead of a whole checkpoint.

use crate::render::print;
use indicatif::HumanBytes;
use planish::checkpoint::{Patch, check_writable, weights_file};
use std::path::{Path, PathBuf};

/// Options of `patch`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  planish patch diff model/ tuned/ --out head.safetensors\n  \
                        planish patch apply model/ head.safetensors --out tuned/\n  \
                        planish patch apply model/ head.safetensors --in-place")]
pub struct Args {
    /// The subcommand.
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Write a patch with the tensors that differ between A and B
    Diff {
        /// Original: a .safetensors file, or a folder with model.safetensors
        a: PathBuf,
        /// Changed checkpoint: file or folder
        b: PathBuf,
        /// Patch to write: a .safetensors file
        #[arg(long, value_name = "PATCH")]
        out: PathBuf,
    },
    /// Reconstruct B from A and the patch, byte for byte
    #[command(group(clap::ArgGroup::new("place").required(true)))]
    Apply {
        /// Original checkpoint
        #[arg(value_name = "CKPT")]
        checkpoint: PathBuf,
        /// Patch to apply
        patch: PathBuf,
        /// Result to write: a .safetensors file or a folder.
        ///
        /// A folder also gets a copy of the configuration files next to CKPT.
        #[arg(long, value_name = "NEW", group = "place")]
        out: Option<PathBuf>,
        /// Overwrite CKPT; `planish undo` restores it
        #[arg(long, group = "place")]
        in_place: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read or written, or the patch is damaged or belongs to another file.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Diff { a, b, out } => diff(a, b, out),
        Command::Apply { checkpoint, patch, out, in_place: _ } => {
            apply(checkpoint, patch, out.as_deref())
        }
    }
}

fn diff(a: &Path, b: &Path, out: &Path) -> anyhow::Result<()> {
    let (a, b) = (weights_file(a)?, weights_file(b)?);
    if out.extension().is_none_or(|e| e != "safetensors") {
        anyhow::bail!("--out {}: expected a name that ends in .safetensors", out.display())
    }
    check_place(out, &[&a, &b])?;
    let patch = Patch::between(&a, &b)?;
    patch.write(out)?;
    let names = patch.names();
    let listed = match names.len() {
        0 => "no tensor differs; the patch contains only metadata".to_string(),
        n => format!("{n} tensors, {}: {}", HumanBytes(patch.size() as u64), few(&names)),
    };
    print(&format!(
        "{}: {listed}\nfrom SHA-256 {}\nto   SHA-256 {}",
        out.display(),
        patch.from[0],
        patch.to
    ))?;
    Ok(())
}

fn apply(checkpoint: &Path, patch: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let change = Patch::read(patch)?;
    let n = change.names().len();
    let text = match out {
        Some(out) => {
            let base = weights_file(checkpoint)?;
            check_place(out, &[&base, patch])?;
            let written = change.save_applied(&base, out)?;
            let left = written == out && base.with_file_name("config.json").exists();
            let beside = match left {
                true => {
                    "; the configuration files next to CKPT are not copied: pass a folder to \
                     --out to copy them"
                }
                false => "",
            };
            format!("{}: {n} tensors patched{beside}", written.display())
        }
        None => {
            let undo = change.apply_in_place(checkpoint)?;
            format!(
                "{}: {n} tensors patched; `planish undo` restores them from {}",
                checkpoint.display(),
                undo.display()
            )
        }
    };
    print(&format!("{text}\nSHA-256 {}", change.to))?;
    Ok(())
}

/// The first few entries of a list.
fn few(names: &[&str]) -> String {
    const SHOWN: usize = 6;
    let rest = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - rest].join(", ");
    if rest > 0 { format!("{shown} and {rest} more") } else { shown }
}

/// Checks that `out` can be written and is not an input.
fn check_place(out: &Path, inputs: &[&Path]) -> anyhow::Result<()> {
    check_writable(out)?;
    let is_file = out.extension().is_some_and(|e| e == "safetensors");
    let file = if is_file { out.to_path_buf() } else { out.join("model.safetensors") };
    let real = file.canonicalize().ok();
    if real.is_some() && inputs.iter().any(|input| input.canonicalize().ok() == real) {
        anyhow::bail!("--out {}: this is an input file; choose another path", out.display())
    }
    Ok(())
}
