//! Where the result is written: a new file, or in place of the checkpoint.

use crate::checkpoint::{
    Checkpoint, Error as CheckpointError, InPlace, Provenance, SavedCheckpoint,
    check_adapter_output, standing, standing_adapter,
};
use crate::error::{Error, Result};
use crate::lora::LoraOptions;
use crate::models::{Layer, Weights};
use crate::options::Error as OptionsError;
use crate::session::Context;
use std::path::{Path, PathBuf};

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
    /// Checks, before any work, that the result of a step with this method can be written.
    ///
    /// # Errors
    /// Those of [`Checkpoint::check_output`] and [`Checkpoint::hold`].
    pub fn open(
        &self,
        checkpoint: &Checkpoint,
        method: &str,
        context: &Context,
    ) -> Result<Destination> {
        Ok(match self {
            Place::New(out) => {
                checkpoint.check_output(out, method)?;
                let weights = |path: &PathBuf| path.extension().is_some_and(|e| e == "safetensors");
                if let Some(earlier) = standing(out).filter(weights) {
                    context.note(&format!(
                        "{} is an earlier result of this command on this checkpoint; it will be replaced",
                        earlier.display()
                    ));
                }
                Destination::New(out.clone())
            }
            Place::InPlace => Destination::Own(checkpoint.hold()?),
            Place::Nowhere => Destination::Nowhere,
        })
    }

    /// Refuses a new file that is one of the checkpoints that are read.
    ///
    /// # Errors
    /// [`CheckpointError::Output`].
    pub fn spare_inputs<'a>(&self, mut inputs: impl Iterator<Item = &'a Path>) -> Result<()> {
        let Place::New(out) = self else { return Ok(()) };
        let Some(standing) = standing(out).and_then(|path| path.canonicalize().ok()) else {
            return Ok(());
        };
        match inputs.any(|input| input.canonicalize().is_ok_and(|input| input == standing)) {
            false => Ok(()),
            true => Err(CheckpointError::Output {
                path: out.clone(),
                reason: "it is one of the checkpoints that are read, which are never overwritten"
                    .into(),
            }
            .into()),
        }
    }

    /// Checks, before any work, that adapters can be written here.
    ///
    /// # Errors
    /// An adapter in place of a checkpoint; an existing adapter; a file instead of a folder.
    pub fn check_adapters(&self, options: &LoraOptions) -> Result<()> {
        match self {
            _ if options.writes_checkpoint() => Ok(()),
            Place::Nowhere => Ok(()),
            Place::InPlace => {
                let text = "`in_place` replaces the whole checkpoint, and `lora` writes an adapter: \
                            set `merge`, or write the adapter to a folder (`out`)";
                Err(OptionsError::Conflict(text.into()).into())
            }
            Place::New(out) => {
                check_adapter_output(out)?;
                match standing_adapter(out) {
                    None => Ok(()),
                    Some(_) => {
                        let reason = "it already holds an adapter, which is never overwritten";
                        let (path, reason) = (out.clone(), reason.into());
                        Err(CheckpointError::Output { path, reason }.into())
                    }
                }
            }
        }
    }
}

/// The weights of a written file, as any program reads them.
///
/// # Errors
/// The file cannot be read.
pub fn read_back(checkpoint: &Checkpoint, saved: &SavedCheckpoint) -> Result<Weights> {
    let path = saved.path.display();
    let again = Checkpoint::open(&saved.path, checkpoint.options_of_saved());
    let context = || format!("{path} was written but cannot be read back");
    Ok(again.map_err(|e| Error::from(e).context(context()))?.weights)
}

impl Destination {
    /// Whether anything is written.
    pub fn writes(&self) -> bool {
        !matches!(self, Destination::Nowhere)
    }

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
    ) -> Result<Option<SavedCheckpoint>> {
        Ok(match self {
            Destination::New(out) => Some(checkpoint.save(out, weights, provenance)?),
            Destination::Own(held) => Some(checkpoint.save_over(held, weights, provenance)?),
            Destination::Nowhere => None,
        })
    }
}
