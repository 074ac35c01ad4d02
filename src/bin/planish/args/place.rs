//! Where a command writes its checkpoint.

use clap::ArgGroup;
use planish::post_train::Place;
use std::path::PathBuf;

/// A new checkpoint, the input in place, or nothing.
#[derive(clap::Args, Clone, Debug)]
#[command(
    next_help_heading = "Output options",
    group = ArgGroup::new("place").required(true)
)]
pub struct PlaceArgs {
    /// Write the new checkpoint to this .safetensors file or folder
    #[arg(long, value_name = "NEW", group = "place")]
    pub out: Option<PathBuf>,
    /// Overwrite CKPT; `planish undo CKPT` restores it, byte for byte
    #[arg(long, group = "place")]
    pub in_place: bool,
    /// Measure only; write no checkpoint
    #[arg(long, group = "place")]
    pub dry_run: bool,
}

impl PlaceArgs {
    /// The place.
    pub fn place(&self) -> Place {
        match &self.out {
            Some(out) => Place::New(out.clone()),
            None if self.in_place => Place::InPlace,
            None => Place::Nowhere,
        }
    }
}
