//! Where the result goes: a new file, or the checkpoint's own place.

use crate::common::Common;
use planish::checkpoint::{Checkpoint, InPlace, Provenance, Saved, standing};
use planish::vit::{Layer, Weights};
use std::path::PathBuf;

/// Where the result goes.
#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub struct Place {
    /// Where the result goes: a .safetensors file or a folder
    #[arg(long, value_name = "NEW")]
    out: Option<PathBuf>,
    /// Replace CKPT itself; `planish undo CKPT` puts it back, byte for byte
    #[arg(long, conflicts_with = "out")]
    in_place: bool,
    /// Print plan and forecast, and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// A place that is known to take the result.
pub enum Destination {
    /// A new file or folder.
    New(PathBuf),
    /// The checkpoint's own, held against other processes.
    Own(InPlace),
    /// None: nothing is to be written.
    Nowhere,
}

impl Place {
    /// Makes sure, before any work, that the result can be written there.
    ///
    /// # Errors
    /// Those of [`Checkpoint::check_output`] and [`Checkpoint::hold`].
    pub fn open(&self, checkpoint: &Checkpoint, common: &Common) -> anyhow::Result<Destination> {
        if let Some(out) = &self.out {
            checkpoint.check_output(out)?;
            let weights = |path: &PathBuf| path.extension().is_some_and(|e| e == "safetensors");
            if let Some(earlier) = standing(out).filter(weights) {
                common.say(&format!(
                    "note: {} is an earlier result of tuning this checkpoint; it will be replaced",
                    earlier.display()
                ));
            }
            return Ok(Destination::New(out.clone()));
        }
        Ok(if self.in_place { Destination::Own(checkpoint.hold()?) } else { Destination::Nowhere })
    }
}

impl Destination {
    /// Makes sure that there is room for an updated layer, and for what it replaces.
    ///
    /// # Errors
    /// Too little free space.
    pub fn check_space(&self, checkpoint: &Checkpoint, update: &Layer) -> anyhow::Result<()> {
        let Destination::Own(held) = self else { return Ok(()) };
        let tensors = update.tensors.iter().map(|&i| checkpoint.weights.tensor(i));
        // Of the widest stored type, to be on the safe side.
        let bytes: usize = tensors.map(|t| 8 * t.elem_count()).sum();
        Ok(held.check_space(bytes as u64)?)
    }

    /// Writes the result; nothing where it is to go nowhere.
    ///
    /// # Errors
    /// Those of [`Checkpoint::save`] and [`Checkpoint::save_over`].
    pub fn save(
        &self,
        checkpoint: &Checkpoint,
        weights: &Weights,
        provenance: &Provenance,
    ) -> anyhow::Result<Option<Saved>> {
        Ok(match self {
            Destination::New(out) => Some(checkpoint.save(out, weights, provenance)?),
            Destination::Own(held) => Some(checkpoint.save_over(held, weights, provenance)?),
            Destination::Nowhere => None,
        })
    }
}
