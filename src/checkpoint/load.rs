//! Settings that a checkpoint may not state itself.

use super::Checkpoint;
use super::rules::Rules;
use crate::data::{Interpolation, Resize};
use crate::options::{Error, as_size, as_text};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Settings that a checkpoint may not state. They must agree with those it does state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Model options"))]
pub struct Load {
    /// Folder of a peft adapter (LoRA or DoRA) of the checkpoint, which is merged into its weights
    #[cfg_attr(feature = "cli", arg(long, value_name = "DIR"))]
    pub adapter: Option<PathBuf>,
    /// Attention heads, if the configuration does not state them
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", hide_short_help = true))]
    pub heads: Option<usize>,
    /// Patch size in pixels, checked against the tensors
    #[serde(with = "as_size")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "P|HxW", value_parser = crate::options::text::size, hide_short_help = true))]
    pub patch_size: Option<[usize; 2]>,
    /// Image size in pixels, if the configuration does not state it
    #[serde(with = "as_size")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "S|HxW", value_parser = crate::options::text::size, hide_short_help = true))]
    pub image_size: Option<[usize; 2]>,
    /// Mean per channel, for pixel values from 0 to 1
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "M,…",
            value_delimiter = ',',
            allow_hyphen_values = true,
            hide_short_help = true
        )
    )]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel, for pixel values from 0 to 1
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "S,…", value_delimiter = ',', hide_short_help = true)
    )]
    pub std: Option<Vec<f32>>,
    /// Resampling filter: nearest, bilinear or bicubic
    #[serde(with = "as_text::option")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILTER", hide_short_help = true))]
    pub interpolation: Option<Interpolation>,
    /// Resize before the centre crop: `squash` (to the crop size, ignoring the aspect ratio), the
    /// short side in pixels, or height and width
    #[serde(with = "as_text::option")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "squash|N|HxW", hide_short_help = true))]
    pub resize: Option<Resize>,
    /// Fraction of the resized image's side that the centre crop keeps
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "SHARE", conflicts_with = "resize", hide_short_help = true)
    )]
    pub crop_pct: Option<f64>,
    /// Which model of a file with several: `model`, `ema` (the running average of the weights), or
    /// its key
    #[cfg_attr(feature = "cli", arg(long, value_name = "model|ema|KEY", hide_short_help = true))]
    pub weights: Option<String>,
    /// Ignore tensors whose full name matches this regular expression; repeatable
    #[cfg_attr(feature = "cli", arg(long, value_name = "PATTERN", hide_short_help = true))]
    pub ignore: Vec<String>,
    /// Rename tensors whose whole name matches this regular expression, as in
    /// `backbone.(.*)=$1`; repeatable
    #[cfg_attr(feature = "cli", arg(long, value_name = "PATTERN=NAME", hide_short_help = true))]
    pub rename: Vec<String>,
}

impl Load {
    /// Rejects options that contradict each other.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub fn check(&self) -> Result<(), Error> {
        if self.resize.is_some() && self.crop_pct.is_some() {
            let text = "expected one of `resize` and `crop_pct`: both set the size before the crop";
            return Err(Error::Conflict(text.into()));
        }
        Rules::new(self).map(drop)
    }

    /// The options set here that prepare images.
    pub fn image_options(&self) -> Vec<&'static str> {
        let set = [
            ("image_size", self.image_size.is_some()),
            ("mean", self.mean.is_some()),
            ("std", self.std.is_some()),
            ("interpolation", self.interpolation.is_some()),
            ("resize", self.resize.is_some()),
            ("crop_pct", self.crop_pct.is_some()),
        ];
        set.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
    }

    /// The same without the adapter, for a checkpoint into which it was merged.
    #[must_use]
    pub fn without_adapter(&self) -> Load {
        Load { adapter: None, ..self.clone() }
    }

    /// The same without [`Load::image_options`].
    pub(super) fn without_image_options(&self) -> Load {
        Load {
            image_size: None,
            mean: None,
            std: None,
            interpolation: None,
            resize: None,
            crop_pct: None,
            ..self.clone()
        }
    }
}

impl Checkpoint {
    /// A note if images are prepared differently when the file at `path`, written from this
    /// checkpoint, is opened without this checkpoint's options.
    pub fn unstored_options_note(&self, path: &Path) -> Option<String> {
        let options = self.loaded_with.image_options();
        if options.is_empty() {
            return None;
        }
        let plain = Checkpoint::open(path, &self.options_of_saved().without_image_options());
        let same = plain.is_ok_and(|plain| {
            plain.preprocess == self.preprocess
                && plain.config.image_size() == self.config.image_size()
        });
        let options: Vec<String> = options.iter().map(|option| format!("`{option}`")).collect();
        (!same).then(|| {
            format!(
                "{}: its configuration does not contain the preprocessing of this run: set {} \
                 again when you use it, also in other programs",
                path.display(),
                options.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resize_and_crop_share_exclude_each_other() {
        let resize = Load { resize: Some(Resize::Squash), ..Load::default() };
        let share = Load { crop_pct: Some(0.9), ..Load::default() };
        assert_eq!((resize.check(), share.check()), (Ok(()), Ok(())));
        let both = Load { crop_pct: Some(0.9), ..resize };
        assert!(matches!(both.check(), Err(Error::Conflict(_))));
    }
}
