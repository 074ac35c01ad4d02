//! Where the result goes: a new file, or the checkpoint's own place.

use crate::checkpoint::{Checkpoint, InPlace, Provenance, Saved, standing};
use crate::error::Result;
use crate::session::Context;
use crate::vit::{Layer, Weights};
use std::path::PathBuf;

/// Where the result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A new `.safetensors` file or folder.
    New(PathBuf),
    /// The checkpoint's own place.
    InPlace,
    /// Nowhere.
    Nowhere,
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
    /// Makes sure that there is room for an updated layer, and for what it replaces.
    ///
    /// # Errors
    /// Too little free space.
    pub fn check_space(&self, checkpoint: &Checkpoint, update: &Layer) -> Result<()> {
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
    ) -> Result<Option<Saved>> {
        Ok(match self {
            Destination::New(out) => Some(checkpoint.save(out, weights, provenance)?),
            Destination::Own(held) => Some(checkpoint.save_over(held, weights, provenance)?),
            Destination::Nowhere => None,
        })
    }
}
