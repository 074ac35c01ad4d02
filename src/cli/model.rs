//! What every command that opens a checkpoint takes, and how it opens it.

use super::progress::Progress;
use crate::checkpoint::{Checkpoint, Error as CheckpointError, Overrides};
use crate::data::{Interpolation, Resize};
use crate::objective::{Examples, Objective, Result as ObjectiveResult};
use crate::report::CheckpointInfo;
use candle_core::{DType, Tensor};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A checkpoint and what it does not say itself.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelArgs {
    /// Checkpoint: a .safetensors file, or a folder with model.safetensors and config.json
    #[arg(value_name = "CKPT")]
    pub checkpoint: PathBuf,
    /// Its missing settings.
    #[command(flatten)]
    pub flags: ModelFlags,
}

impl ModelArgs {
    /// Opens the checkpoint.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub fn open(&self) -> Result<Checkpoint, CheckpointError> {
        self.flags.open(&self.checkpoint)
    }
}

/// What a checkpoint may be silent about.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ModelFlags {
    /// Attention heads, if no configuration says
    #[arg(long, value_name = "N", help_heading = "Model options")]
    pub heads: Option<usize>,
    /// Patch size in pixels, to confirm what the tensors show
    #[arg(long, value_name = "P|HxW", value_parser = size, help_heading = "Model options")]
    pub patch_size: Option<[usize; 2]>,
    /// Image size in pixels, if no configuration says
    #[arg(long, value_name = "S|HxW", value_parser = size, help_heading = "Model options")]
    pub image_size: Option<[usize; 2]>,
    /// Mean of the images per channel, in units of the full scale
    #[arg(
        long,
        value_name = "M,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Model options"
    )]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of the images per channel, in units of the full scale
    #[arg(long, value_name = "S,…", value_delimiter = ',', help_heading = "Model options")]
    pub std: Option<Vec<f32>>,
    /// Resampling filter: nearest, bilinear or bicubic
    #[arg(
        long,
        value_name = "FILTER",
        value_parser = interpolation,
        help_heading = "Model options",
    )]
    pub interpolation: Option<Interpolation>,
    /// Resize before the centre crop: `squash` (to the crop itself), pixels of the short side, or
    /// height and width
    #[arg(long, value_name = "squash|N|HxW", value_parser = resize, help_heading = "Model options")]
    pub resize: Option<Resize>,
    /// Share of the resized image's side that the centre crop keeps
    #[arg(long, value_name = "SHARE", conflicts_with = "resize", help_heading = "Model options")]
    pub crop_pct: Option<f64>,
}

impl ModelFlags {
    /// Opens a checkpoint with these settings where it is silent.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub fn open(&self, checkpoint: &Path) -> Result<Checkpoint, CheckpointError> {
        let flags = self.clone();
        let overrides = Overrides {
            heads: flags.heads,
            patch_size: flags.patch_size,
            image_size: flags.image_size,
            mean: flags.mean,
            std: flags.std,
            interpolation: flags.interpolation,
            crop_pct: flags.crop_pct,
            resize: flags.resize,
        };
        Checkpoint::open(checkpoint, &overrides)
    }
}

/// The checkpoint's loss, computed in f32 or f64.
///
/// # Errors
/// The file can no longer be read in the precision asked for.
pub fn objective(checkpoint: &Checkpoint, dtype: DType) -> Result<Objective, CheckpointError> {
    let weights = match dtype {
        DType::F32 => checkpoint.weights.clone(),
        other => checkpoint.weights_as(other)?,
    };
    Ok(Objective::new(Arc::new(checkpoint.config.clone()), weights))
}

/// What a report says of a checkpoint.
pub fn checkpoint_info(checkpoint: &Checkpoint) -> CheckpointInfo {
    CheckpointInfo {
        path: checkpoint.path.display().to_string(),
        digest: checkpoint.digest.clone(),
        layout: checkpoint.layout.name().into(),
        architecture: checkpoint.architecture.clone(),
        parameters: checkpoint.weights.parameters(),
    }
}

/// Examples that move a progress line on as they are read.
pub struct Watched<'a> {
    /// What is read.
    pub examples: &'a dyn Examples,
    /// What is moved.
    pub progress: &'a Progress,
}

impl Examples for Watched<'_> {
    fn len(&self) -> usize {
        self.examples.len()
    }
    fn stage(&self) -> usize {
        self.examples.stage()
    }
    fn inputs(&self, range: Range<usize>) -> ObjectiveResult<Tensor> {
        let steps = range.len() as u64;
        let inputs = self.examples.inputs(range);
        self.progress.add(steps);
        inputs
    }
    fn prefetch(&self, indices: &[usize]) {
        self.examples.prefetch(indices);
    }
    fn labels(&self) -> &[u32] {
        self.examples.labels()
    }
}

/// `28`, or `32x28`: height first.
fn size(text: &str) -> Result<[usize; 2], String> {
    let side = |text: &str| text.trim().parse().ok().filter(|&n: &usize| n > 0);
    let pair = match text.split_once(['x', '×']) {
        Some((height, width)) => side(height).zip(side(width)),
        None => side(text).map(|n| (n, n)),
    };
    let (height, width) = pair.ok_or("expected pixels, as in 224 or 224x192 (height first)")?;
    Ok([height, width])
}

fn interpolation(text: &str) -> Result<Interpolation, String> {
    match text {
        "nearest" => Ok(Interpolation::Nearest),
        "bilinear" => Ok(Interpolation::Bilinear),
        "bicubic" => Ok(Interpolation::Bicubic),
        _ => Err("expected nearest, bilinear or bicubic".into()),
    }
}

fn resize(text: &str) -> Result<Resize, String> {
    match text.parse() {
        _ if text == "squash" => Ok(Resize::Squash),
        Ok(side) if side > 0 => Ok(Resize::ShortSide(side)),
        _ if text.contains(['x', '×']) => size(text).map(Resize::SquashTo),
        _ => Err("expected `squash`, the short side in pixels, or HxW".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_filters_and_resizes_are_read() {
        assert_eq!(size("28"), Ok([28, 28]));
        assert_eq!(size("32x28"), Ok([32, 28]));
        assert!(["", "0", "x", "28x", "-1", "28x0"].iter().all(|text| size(text).is_err()));
        assert_eq!(interpolation("bicubic"), Ok(Interpolation::Bicubic));
        assert!(interpolation("lanczos").is_err());
        assert_eq!(resize("squash"), Ok(Resize::Squash));
        assert_eq!(resize("256"), Ok(Resize::ShortSide(256)));
        assert_eq!(resize("256x240"), Ok(Resize::SquashTo([256, 240])));
        assert!(resize("0x1").is_err());
        assert!(resize("0").is_err() && resize("crop").is_err());
    }
}
