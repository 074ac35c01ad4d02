//! Where the result is written: a new file, or in place of the checkpoint.

use crate::checkpoint::{Checkpoint, InPlace, Provenance, Saved, standing};
use crate::error::Result;
use crate::models::{Layer, Weights};
use crate::session::Context;
use std::path::PathBuf;

/// Where the result is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A new `.safetensors` file or folder.
    New(PathBuf),
    /// In place of the checkpoint.
    InPlace,
    /// Nowhere.
    Nowhere,
}

/// A destination, checked before any work.
pub enum Destination {
    /// A new file or folder.
    New(PathBuf),
    /// In place of the checkpoint, which is locked against other processes.
    Own(InPlace),
    /// Nothing is written.
    Nowhere,
}

impl Place {
    /// Checks, before any work, that the result can be written.
    ///
    /// # Errors
    /// Those of [`Checkpoint::check_output`] and [`Checkpoint::hold`].
    pub fn open(&self, checkpoint: &Checkpoint, context: &Context) -> Result<Destination> {
        Ok(match self {
            Place::New(out) => {
                checkpoint.check_output(out)?;
                let weights = |path: &PathBuf| path.extension().is_some_and(|e| e == "safetensors");
                if let Some(earlier) = standing(out).filter(weights) {
                    context.note(&format!(
                        "{} is an earlier result of tuning this checkpoint; it will be replaced",
                        earlier.display()
                    ));
                }
                Destination::New(out.clone())
            }
            Place::InPlace => Destination::Own(checkpoint.hold()?),
            Place::Nowhere => Destination::Nowhere,
        })
    }
}

impl Destination {
    /// Checks that there is disk space for an updated layer and for a copy of what it replaces.
    ///
    /// # Errors
    /// Too little free space.
    pub fn check_space(&self, checkpoint: &Checkpoint, update: &Layer) -> Result<()> {
        let Destination::Own(held) = self else { return Ok(()) };
        let tensors = update.tensors.iter().map(|&i| checkpoint.weights.tensor(i));
        // Assume the widest stored type, to be safe.
        let bytes: usize = tensors.map(|t| 8 * t.elem_count()).sum();
        Ok(held.check_space(bytes as u64)?)
    }

    /// Writes the result, if there is a destination.
    ///
    /// # Errors
    /// Those of [`Checkpoint::save`] and [`Checkpoint::save_over`].
    pub fn save(
        &self,
        checkpoint: &Checkpoint,
        weights: &Weights,
        provenance: &Provenance,
    ) -> Result<Option<Saved>> {
        Ok(match self {
            Destination::New(out) => Some(checkpoint.save(out, weights, provenance)?),
            Destination::Own(held) => Some(checkpoint.save_over(held, weights, provenance)?),
            Destination::Nowhere => None,
        })
    }
}
