//! Options of training as a user gives them: each is optional, and what is not given comes from a base.

use super::average::Average;
use super::options::TrainOptions;
use super::schedule::Shape;
use crate::data::Augment;
use crate::engine::Precision;
use crate::options::as_text;
use serde::{Deserialize, Serialize};

/// Options of training that fine-tuning and all methods of post-training share, as a user gives them.
///
/// They are flags of `finetune`, `post-train` and `bench`, and keys of a study's `grid`.
/// [`TrainArgs::over`] fills in what is not given: from the defaults or, with a preset, from a
/// publication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Training options"))]
pub struct TrainArgs {
    /// Passes over the training images [default: 5]
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "N",
        value_parser = crate::options::text::count, allow_negative_numbers = true
    ))]
    pub epochs: Option<usize>,
    /// Images in B, the batch of a step; an incomplete last batch is dropped [default: 128]
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "N",
        value_parser = crate::options::text::count, allow_negative_numbers = true
    ))]
    pub batch_size: Option<usize>,
    /// Highest learning rate [default: 0.01]
    #[cfg_attr(feature = "cli", arg(long, value_name = "RATE", allow_negative_numbers = true))]
    pub lr: Option<f64>,
    /// Learning rate after the warm-up: cosine or linear, which both decay to 0, or constant [default: cosine]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, value_name = "SHAPE", hide_possible_values = true)
    )]
    pub schedule: Option<Shape>,
    /// Epochs of linear warm-up; 0.5 is half an epoch [default: 0]
    #[cfg_attr(feature = "cli", arg(long, value_name = "EPOCHS", allow_negative_numbers = true))]
    pub warmup: Option<f64>,
    /// Momentum [default: 0.9]
    #[cfg_attr(feature = "cli", arg(long, value_name = "M", allow_negative_numbers = true))]
    pub momentum: Option<f64>,
    /// Nesterov momentum: on, or off [default: off]
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "on|off", action = clap::ArgAction::Set,
        value_parser = crate::options::text::on_off, hide_short_help = true
    ))]
    pub nesterov: Option<bool>,
    /// Weight decay [default: 0]
    #[cfg_attr(feature = "cli", arg(long, value_name = "D", allow_negative_numbers = true))]
    pub weight_decay: Option<f64>,
    /// Weight decay of norms, biases and other tensors with one dimension: on, or off [default: on]
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "on|off", action = clap::ArgAction::Set,
        value_parser = crate::options::text::on_off, hide_short_help = true
    ))]
    pub decay_all: Option<bool>,
    /// Label smoothing [default: 0]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "E", allow_negative_numbers = true, hide_short_help = true)
    )]
    pub label_smoothing: Option<f64>,
    /// Keep an average of the updated weights: `ema:DECAY` over steps, or `swa:N` over the last N
    /// epochs.
    ///
    /// Once averaging has begun, the average is evaluated on the validation images and kept.
    #[serde(with = "as_text::option")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "ema:DECAY|swa:N", hide_short_help = true))]
    pub average: Option<Average>,
    /// Clip the gradient of the updated layers to this norm
    #[cfg_attr(feature = "cli", arg(long, value_name = "NORM", allow_negative_numbers = true))]
    pub clip: Option<f64>,
    /// Augmentation of training images: `flip`, `shift=PIXELS`, `crop=MIN_AREA`, comma-separated [default: none]
    #[serde(with = "as_text::option")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "LIST"))]
    pub augment: Option<Augment>,
    /// Augmented views of each image, one per epoch in turn [default: as many as epochs]
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "N", hide_short_help = true,
        value_parser = crate::options::text::count, allow_negative_numbers = true
    ))]
    pub views: Option<usize>,
    /// Precision of matrix products in training and in frozen layers: f32, or bf16 operands with
    /// f32 accumulation. On a GPU, bf16 also stores the activations between embedding and head in
    /// bf16. Weights, diagnosis and line searches stay f32 [default: f32]
    #[serde(with = "as_text::option")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "f32|bf16", hide_short_help = true))]
    pub precision: Option<Precision>,
    /// Images per thread at a time. Gradients are summed over all of B before the step, so the step
    /// does not change; smaller values use less memory [default: by memory]
    #[cfg_attr(
        feature = "cli",
        arg(
            long, value_name = "N", conflicts_with = "accumulate", hide_short_help = true,
            value_parser = crate::options::text::count, allow_negative_numbers = true
        )
    )]
    pub micro_batch: Option<usize>,
    /// Split B into K micro-batches (gradient accumulation)
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "K", hide_short_help = true,
        value_parser = crate::options::text::count, allow_negative_numbers = true
    ))]
    pub accumulate: Option<usize>,
}

impl TrainArgs {
    /// The given options, and those of `base` for all others.
    #[must_use]
    pub fn over(&self, base: TrainOptions) -> TrainOptions {
        let given = self.clone();
        TrainOptions {
            epochs: given.epochs.unwrap_or(base.epochs),
            batch_size: given.batch_size.unwrap_or(base.batch_size),
            lr: given.lr.unwrap_or(base.lr),
            schedule: given.schedule.unwrap_or(base.schedule),
            warmup: given.warmup.unwrap_or(base.warmup),
            momentum: given.momentum.unwrap_or(base.momentum),
            nesterov: given.nesterov.unwrap_or(base.nesterov),
            weight_decay: given.weight_decay.unwrap_or(base.weight_decay),
            decay_all: given.decay_all.unwrap_or(base.decay_all),
            label_smoothing: given.label_smoothing.unwrap_or(base.label_smoothing),
            average: given.average.or(base.average),
            clip: given.clip.or(base.clip),
            augment: given.augment.unwrap_or(base.augment),
            views: given.views.or(base.views),
            precision: given.precision.unwrap_or(base.precision),
            micro_batch: given.micro_batch.or(base.micro_batch),
            accumulate: given.accumulate.or(base.accumulate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::names;

    #[test]
    fn given_options_replace_those_of_the_base() {
        assert_eq!(names::<TrainArgs>(), names::<TrainOptions>());
        let base = TrainOptions { lr: 0.5, clip: Some(1.0), ..TrainOptions::default() };
        assert_eq!(TrainArgs::default().over(base.clone()), base);
        // Each option changes its own value and no other one.
        let given = |text: &str| serde_json::from_str::<TrainArgs>(text).unwrap();
        for (text, expected) in [
            (r#"{"epochs": 7}"#, TrainOptions { epochs: 7, ..base.clone() }),
            (r#"{"batch_size": 128}"#, base.clone()),
            (r#"{"lr": 0.01}"#, TrainOptions { lr: 0.01, ..base.clone() }),
            (r#"{"nesterov": true}"#, TrainOptions { nesterov: true, ..base.clone() }),
            (r#"{"clip": 2}"#, TrainOptions { clip: Some(2.0), ..base.clone() }),
            (r#"{"augment": "flip"}"#, {
                let augment = Augment { flip: true, ..Augment::default() };
                TrainOptions { augment, ..base.clone() }
            }),
        ] {
            assert_eq!(given(text).over(base.clone()), expected, "{text}");
        }
    }
}
