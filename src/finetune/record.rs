//! Provenance of a fine-tuned checkpoint.

use super::FinetuneSession;
use crate::checkpoint::{Provenance, Split};
use crate::data::Sample;
use serde_json::json;

/// Provenance entry of a run whose kept weights come from `epoch`.
pub(super) fn provenance(session: &FinetuneSession, epoch: usize) -> Provenance {
    let FinetuneSession { options, images, start, settings, seed, .. } = session;
    let split = Split { seed: *seed, fraction: images.fraction };
    let how = options.fitted(images.fraction, *seed);
    let sample = (how.range.is_some() || how.samples.is_some()).then(|| Sample {
        images: images.train.len(),
        digest: images.train.digest().into(),
        whole: images.whole.digest().into(),
        how: how.clone(),
    });
    let augment = options.augment;
    Provenance {
        method: "finetune".into(),
        perturb: Vec::new(),
        update: vec!["*".into()],
        seed: *seed,
        version: env!("CARGO_PKG_VERSION").into(),
        parent_digest: start.parent.as_ref().map(|parent| parent.digest.clone()),
        data_digest: Some(images.whole.digest().into()),
        split: (images.fraction > 0.0).then_some(split),
        sample,
        settings: json!({
            "trained_on": images.train.digest(),
            "train_range": how.range,
            "train_samples": how.samples,
            "epochs": settings.epochs,
            "kept_epoch": epoch,
            "batch": settings.batch_size,
            "precision": options.precision.name(),
            "optimizer": options.optimizer.name(),
            "lr": settings.lr,
            "momentum": options.momentum,
            "weight_decay": settings.weight_decay,
            "schedule": settings.schedule.name(),
            "warmup": settings.warmup,
            "clip": settings.clip,
            "label_smoothing": options.label_smoothing,
            "augment": { "flip": augment.flip, "shift": augment.shift, "crop": augment.crop },
        }),
    }
}
