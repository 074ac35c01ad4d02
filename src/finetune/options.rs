//! Options of fine-tuning.

use crate::checkpoint::Load;
use crate::data::{Augment, Fitted, OnBadSample};
use crate::engine::Precision;
use crate::lora::LoraOptions;
use crate::options::{Error, as_text, check};
use crate::train::options::check_lengths;
use crate::train::{Keep, OptimizerRule, Shape};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;

/// All options of fine-tuning except the seed. These are also the flags of `finetune`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(
    feature = "cli",
    derive(clap::Args),
    command(group = clap::ArgGroup::new("model").required(true))
)]
pub struct FinetuneOptions {
    /// Architecture of a new model, such as vit_nano_patch7_28
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", group = "model"))]
    pub arch: Option<String>,
    /// Checkpoint to start from
    #[cfg_attr(feature = "cli", arg(long, value_name = "CKPT", group = "model"))]
    pub from: Option<PathBuf>,
    /// Replace the head with a new one, even if the checkpoint's head fits
    #[cfg_attr(feature = "cli", arg(long, requires = "from"))]
    pub reset_head: bool,
    /// Images: class folders (JPEG, PNG, WebP), IDX, CIFAR binary, or tensors:FILE or FOLDER
    #[cfg_attr(feature = "cli", arg(long, value_name = "D"))]
    pub data: String,
    /// What to do with an image file that cannot be decoded.
    ///
    /// `fail` stops with an error. `skip` decodes all files before the run and leaves out bad ones, with a
    /// note. A JPEG file with damaged data counts as bad for `skip`; `fail` uses it as decoded, with
    /// a note.
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_enum,
            value_name = "fail|skip",
            default_value = "fail",
            hide_possible_values = true
        )
    )]
    pub on_bad_sample: OnBadSample,
    /// Train on images A to B - 1 of the training split, in stored order
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "A..B", value_parser = crate::options::text::range
    ))]
    pub train_range: Option<Range<usize>>,
    /// Train on N images, in proportion to the classes
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub train_samples: Option<usize>,
    /// Fraction of the training split held out for validation [default: 0.1, or 0 with a split `val`]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    pub val_fraction: Option<f64>,
    /// Weights to keep: best (lowest validation loss) or last [default: best with validation images,
    /// else last]
    #[cfg_attr(feature = "cli", arg(long, value_name = "best|last"))]
    pub keep: Option<Keep>,
    /// Passes over the training images
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "N", default_value_t = Self::default().epochs,
        value_parser = crate::options::text::count, allow_negative_numbers = true
    ))]
    pub epochs: usize,
    /// Images per step
    #[cfg_attr(feature = "cli", arg(
        long, visible_alias = "batch", value_name = "N", default_value_t = Self::default().batch_size,
        value_parser = crate::options::text::count, allow_negative_numbers = true
    ))]
    pub batch_size: usize,
    /// Optimizer
    #[cfg_attr(feature = "cli", arg(long, value_name = "sgd|adamw", default_value = "sgd"))]
    pub optimizer: OptimizerName,
    /// Operands of matrix products: f32, or rounded to bf16 and accumulated in f32
    #[serde(with = "as_text")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "f32|bf16", default_value_t))]
    pub precision: Precision,
    /// Highest learning rate [default: 0.05 for sgd, 0.001 for adamw]
    #[cfg_attr(feature = "cli", arg(long, value_name = "RATE", allow_negative_numbers = true))]
    pub lr: Option<f64>,
    /// Nesterov momentum of sgd
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "M", default_value_t = Self::default().momentum, allow_negative_numbers = true
    ))]
    pub momentum: f64,
    /// Weight decay, on every tensor
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "W", default_value_t = Self::default().weight_decay,
        allow_negative_numbers = true
    ))]
    pub weight_decay: f64,
    /// Learning rate after the warm-up: cosine or linear decay to 0, or constant
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "cosine|linear|constant", default_value = "cosine")
    )]
    pub schedule: Shape,
    /// Epochs of linear warm-up
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "E", default_value_t = Self::default().warmup, allow_negative_numbers = true
    ))]
    pub warmup: f64,
    /// Clip the gradient to this norm
    #[cfg_attr(feature = "cli", arg(long, value_name = "NORM", allow_negative_numbers = true))]
    pub clip: Option<f64>,
    /// Label smoothing
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "E", default_value_t = Self::default().label_smoothing,
        allow_negative_numbers = true
    ))]
    pub label_smoothing: f64,
    /// Augmentation: `flip`, `shift=PIXELS`, `crop=MIN_AREA`, separated by commas
    #[serde(with = "as_text")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "LIST", default_value = "none"))]
    pub augment: Augment,
    /// Output: a folder, or a .safetensors file
    #[cfg_attr(feature = "cli", arg(long, value_name = "NEW"))]
    pub out: PathBuf,
    /// Overwrite an existing checkpoint
    #[cfg_attr(feature = "cli", arg(long))]
    pub force: bool,
    /// Layers whose linear layers get adapters: names or globs, comma-separated [default: all blocks]
    #[cfg_attr(feature = "cli", arg(long, value_name = "L", help_heading = "Adapter options"))]
    pub layers: Option<String>,
    /// Low-rank adapters.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub lora: LoraOptions,
    /// Settings missing from the checkpoint, or the normalisation of a new model.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub load: Load,
}

/// Names of the optimizers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum OptimizerName {
    /// Stochastic gradient descent.
    #[default]
    Sgd,
    /// Adam with decoupled weight decay.
    Adamw,
}

impl OptimizerName {
    /// Name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adamw => "adamw",
        }
    }
}

impl Default for FinetuneOptions {
    fn default() -> Self {
        Self {
            arch: None,
            from: None,
            reset_head: false,
            load: Load::default(),
            data: String::new(),
            on_bad_sample: OnBadSample::Fail,
            train_range: None,
            train_samples: None,
            val_fraction: None,
            keep: None,
            epochs: 10,
            batch_size: 128,
            optimizer: OptimizerName::Sgd,
            precision: Precision::F32,
            lr: None,
            momentum: 0.9,
            weight_decay: 0.0,
            schedule: Shape::Cosine,
            warmup: 0.0,
            clip: None,
            label_smoothing: 0.0,
            augment: Augment::default(),
            layers: None,
            lora: LoraOptions::default(),
            out: PathBuf::new(),
            force: false,
        }
    }
}

impl FinetuneOptions {
    /// Rejects values out of range and options that have no effect.
    ///
    /// # Errors
    /// The first invalid option.
    pub fn check(&self) -> Result<(), Error> {
        if self.arch.is_some() == self.from.is_some() {
            let text = "expected one of `arch`, for a new model, and `from`, for a checkpoint";
            return Err(Error::Conflict(text.into()));
        }
        if self.reset_head && self.from.is_none() {
            let (option, applies_to) = ("reset_head".into(), "a checkpoint (`from`)".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        for (option, given) in
            [("adapter", self.load.adapter.is_some()), ("lora", self.lora.lora.is_some())]
        {
            if given && self.from.is_none() {
                let applies_to = "a checkpoint (`from`)".into();
                return Err(Error::NoEffect { option: option.into(), applies_to });
            }
        }
        self.lora.check()?;
        if self.layers.is_some() && self.lora.lora.is_none() {
            let (option, applies_to) = ("layers".into(), "adapters (`lora`)".into());
            return Err(Error::NoEffect { option, applies_to });
        }
        if let Some(range) = self.train_range.as_ref().filter(|range| range.is_empty()) {
            let found = format!("{}..{}", range.start, range.end);
            return Err(Error::value("train_range", "A..B with A less than B", found));
        }
        self.load.check()?;
        check_lengths(self.epochs, self.batch_size, self.warmup)?;
        self.lr.map_or(Ok(()), |lr| check::positive("lr", lr))?;
        check::share("momentum", self.momentum)?;
        check::not_negative("weight_decay", self.weight_decay)?;
        check::share("label_smoothing", self.label_smoothing)?;
        self.val_fraction.map_or(Ok(()), |fraction| check::share("val_fraction", fraction))?;
        self.clip.map_or(Ok(()), |norm| check::positive("clip", norm))
    }

    /// The optimizer.
    pub fn rule(&self) -> OptimizerRule {
        match self.optimizer {
            OptimizerName::Sgd => {
                OptimizerRule::Sgd { momentum: self.momentum, nesterov: self.momentum > 0.0 }
            }
            OptimizerName::Adamw => OptimizerRule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        }
    }

    /// The highest learning rate.
    pub fn rate(&self) -> f64 {
        self.lr.unwrap_or(match self.optimizer {
            OptimizerName::Sgd => 0.05,
            OptimizerName::Adamw => 0.001,
        })
    }

    /// How the training images are taken from the training split if `fraction` of it is held out.
    pub fn fitted(&self, fraction: f64, seed: u64) -> Fitted {
        Fitted {
            seed,
            fraction,
            range: self.train_range.as_ref().map(|range| [range.start, range.end]),
            samples: self.train_samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> FinetuneOptions {
        FinetuneOptions { arch: Some("vit_nano_patch7_28".into()), ..Default::default() }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert_eq!(options().check(), Ok(()));
        let refused = |options: FinetuneOptions, option: &str| {
            let error = options.check().unwrap_err();
            assert!(matches!(&error, Error::Value { option: o, .. } if o == option), "{error}");
        };
        refused(FinetuneOptions { lr: Some(0.0), ..options() }, "lr");
        refused(FinetuneOptions { momentum: 1.0, ..options() }, "momentum");
        refused(FinetuneOptions { weight_decay: -1.0, ..options() }, "weight_decay");
        refused(FinetuneOptions { warmup: f64::NAN, ..options() }, "warmup");
        refused(FinetuneOptions { epochs: 2, warmup: 2.5, ..options() }, "warmup");
        refused(FinetuneOptions { epochs: 0, ..options() }, "epochs");
        refused(FinetuneOptions { batch_size: 0, ..options() }, "batch_size");
        refused(FinetuneOptions { label_smoothing: 1.0, ..options() }, "label_smoothing");
        refused(FinetuneOptions { val_fraction: Some(1.0), ..options() }, "val_fraction");
        refused(FinetuneOptions { clip: Some(0.0), ..options() }, "clip");
        refused(FinetuneOptions { train_range: Some(5..5), ..options() }, "train_range");
        let fresh = FinetuneOptions { reset_head: true, ..options() };
        assert!(matches!(fresh.check(), Err(Error::NoEffect { .. })));
        let both = FinetuneOptions { from: Some("vit".into()), ..options() };
        for start in [both, FinetuneOptions::default()] {
            assert!(matches!(start.check(), Err(Error::Conflict(_))));
        }
    }

    #[test]
    fn options_round_trip_through_json() {
        let options = FinetuneOptions {
            train_range: Some(0..9),
            optimizer: OptimizerName::Adamw,
            precision: Precision::Bf16,
            augment: Augment { flip: true, shift: 2, crop: None },
            ..options()
        };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<FinetuneOptions>(&text).unwrap(), options, "{text}");
    }
}
