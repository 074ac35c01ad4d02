//! The checkpoint argument, and settings that a checkpoint may not contain.

use planish::checkpoint::{Checkpoint, Error as CheckpointError, Load};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A checkpoint, and settings that it may not contain.
#[derive(clap::Args, Clone, Debug, Serialize, Deserialize)]
pub struct ModelArgs {
    /// Checkpoint: a file (.safetensors, .pth, .npz …), a folder, or a model in the Hugging Face cache.
    ///
    /// A folder may also contain config.json, which describes the model.
    #[arg(value_name = "CKPT")]
    pub checkpoint: PathBuf,
    /// Settings that the checkpoint does not contain.
    #[command(flatten)]
    pub load: Load,
}

impl ModelArgs {
    /// Opens the checkpoint.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub fn open(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open(&self.checkpoint, &self.load)
    }
}
