//! Provenance of a fine-tuned checkpoint.

use super::{FinetuneSession, OptimizerName, SamVariant};
use crate::checkpoint::{Provenance, RecordedSplit, StepSettings};
use crate::data::Sample;
use crate::error::Result;
use crate::lora::Adapters;
use crate::train::{AscentArgs, L2Sp, MethodArgs, TrainOptions};
use serde::Serialize;

/// Provenance entry of a run whose kept weights come from `epoch`.
///
/// # Errors
/// Settings that JSON cannot represent.
pub(super) fn provenance(session: &FinetuneSession, epoch: usize) -> Result<Provenance> {
    let FinetuneSession { options, train_options, images, start, seed, .. } = session;
    let split = RecordedSplit { seed: *seed, fraction: images.fraction };
    let how = options.fitted(images.fraction, *seed);
    let sample = (how.range.is_some() || how.samples.is_some()).then(|| Sample {
        images: images.train.len(),
        digest: images.train.digest().into(),
        whole: images.whole.digest().into(),
        how: how.clone(),
    });
    Ok(Provenance {
        method: "finetune".into(),
        perturb: Vec::new(),
        update: vec![start.adapters.as_ref().map_or("*".into(), |a| a.update.name.clone())],
        seed: *seed,
        version: env!("CARGO_PKG_VERSION").into(),
        parent_digest: start.parent.as_ref().map(|parent| parent.digest.clone()),
        data_digest: Some(images.whole.digest().into()),
        split: (images.fraction > 0.0).then_some(split),
        sample,
        settings: StepSettings::of(
            &RecordedSettings {
                trained_on: images.train.digest(),
                train_range: how.range,
                train_samples: how.samples,
                optimizer: options.optimizer,
                train: train_options,
                head_first: options.head_first,
                sam_last: options.sam_last,
                late: options.late()?.map(|late| Late {
                    sam_variant: options.sam_variant,
                    ascent: MethodArgs::from(&late).ascent,
                }),
                l2_sp: options.l2_sp,
                layer_decay: options.layer_decay,
                auto_rgn: options.auto_rgn,
                kept_epoch: epoch,
                lora: start.adapters.as_ref().map(Adapters::settings),
            },
            None,
        )?,
    })
}

/// The settings that reports and checkpoints list, each under the name of its option.
#[derive(Serialize)]
struct RecordedSettings<'a> {
    trained_on: &'a str,
    train_range: Option<[usize; 2]>,
    train_samples: Option<usize>,
    optimizer: OptimizerName,
    #[serde(flatten)]
    train: &'a TrainOptions,
    head_first: usize,
    sam_last: usize,
    #[serde(flatten)]
    late: Option<Late>,
    l2_sp: Option<L2Sp>,
    layer_decay: Option<f64>,
    auto_rgn: bool,
    kept_epoch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    lora: Option<serde_json::Value>,
}

/// Settings of the last epochs.
#[derive(Serialize)]
struct Late {
    sam_variant: SamVariant,
    #[serde(flatten)]
    ascent: AscentArgs,
}
