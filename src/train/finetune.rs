//! Fine-tuning all weights on labelled images.

use super::feed::Feed;
use super::guard::Keep;
use super::optimizer::{Optimizer, Rule};
use super::schedule::{Schedule, Shape};
use super::stepper::Stepper;
use super::{Error, Result};
use crate::data::Augment;
use crate::data::order::Batches;
use crate::evaluate::{Estimate, Predictions, hits, losses, mean_stderr};
use crate::objective::{
    Activations, Error as ObjectiveError, Examples, Objective, Result as Evaluated,
};
use crate::pixels::Pixels;
use crate::vit::{Config, Layer, Weights, stages};
use planish_kernels::Precision;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most bytes of prepared images that are kept in memory; larger sets are prepared batch by batch.
const RESIDENT: usize = 1 << 30;

/// What fixes a run, with the images and the weights it starts from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images in a step; an epoch's last partial batch is dropped.
    pub batch: usize,
    /// The optimizer.
    pub rule: Rule,
    /// λ, see [`Rule`].
    pub weight_decay: f64,
    /// What the rate does after the warm-up.
    pub shape: Shape,
    /// Highest learning rate.
    pub rate: f64,
    /// Epochs of linear warm-up.
    pub warmup: f64,
    /// Largest norm of the gradient, if it is clipped.
    pub clip: Option<f64>,
    /// Label smoothing, in [0, 1).
    pub smoothing: f64,
    /// What may happen to a training image each time it is seen.
    pub augment: Augment,
    /// Which weights to keep.
    pub keep: Keep,
    /// How products take their operands; weights are kept, and steps made, in f32.
    pub precision: Precision,
    /// Seed of order and augmentation.
    pub seed: u64,
}

/// What one epoch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: usize,
    /// Learning rate of its last step.
    pub rate: f64,
    /// Mean loss of its batches, each before its step, augmented and smoothed as asked; nats.
    pub training_loss: f64,
    /// Loss on the validation images, nats; none without such images.
    pub validation: Option<Estimate>,
    /// Share of validation images whose label has the largest logit.
    pub validation_top1: Option<Estimate>,
}

/// What a run tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step was made on so many images, at this loss.
    Step(usize, f64),
    /// An epoch is over.
    Epoch(&'a Epoch),
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The weights kept.
    pub weights: Weights,
    /// The epoch they come from, from 1; 0 means the weights at the start.
    pub epoch: usize,
    /// Every epoch, in order.
    pub epochs: Vec<Epoch>,
}

/// Trains all weights on `train`, judging each epoch by `val`.
///
/// # Errors
/// [`Error::Diverged`] if loss or gradient are no longer finite; [`Error::Data`] for a batch
/// larger than the training set, or images that cannot be prepared.
pub fn finetune(
    config: &Arc<Config>,
    start: Weights,
    train: &Pixels,
    val: Option<&Pixels>,
    settings: &Settings,
    tell: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let batches = Batches::new(train.len(), settings.batch, settings.seed, "B")?;
    let per_epoch = batches.per_epoch();
    let (shape, warmup, epochs) = (settings.shape, settings.warmup, settings.epochs);
    let schedule = Schedule::over(shape, settings.rate, warmup, epochs, per_epoch)?;
    let all = everything(config);
    let plain = settings.augment == Augment::default();
    let loaded = if plain { resident(train)? } else { None };
    let read = |order: &mut Batches| -> Evaluated<Activations> {
        let batch = order.next().ok_or(ObjectiveError::NoExamples)?;
        match &loaded {
            Some(images) => images.select(&batch),
            None => {
                let seen = (&settings.augment, settings.seed, order.epoch());
                train.batch(&batch, (!plain).then_some(seen))
            }
        }
    };
    let mut feed = Feed::new(batches);
    let judges = match val {
        Some(val) => Some((val, resident(val)?)),
        None => None,
    };
    let mut objective = Objective::new(config.clone(), start);
    objective.smoothing = settings.smoothing;
    objective.precision = settings.precision;
    let optimizer = Optimizer::new(settings.rule, settings.weight_decay);
    let mut stepper = Stepper::new(optimizer, schedule, settings.clip);
    let mut outcome = Outcome { weights: objective.weights.clone(), epoch: 0, epochs: Vec::new() };
    let mut best = f64::INFINITY;
    for epoch in 1..=settings.epochs {
        let (mut sum, mut rate) = (0.0, settings.rate);
        for step in 1..=per_epoch {
            let examples = feed.next(&objective, read)?;
            let gradient = || objective.gradient(&examples, &all);
            let place = |what, found| Error::Diverged { epoch, step, what, found };
            let found = match feed.meanwhile(&objective, read, gradient) {
                Err(ObjectiveError::NonFinite { loss, .. }) => return Err(place("loss", loss)),
                other => other?,
            };
            sum += found.loss;
            let made = stepper.step(&mut objective.weights, &all, found.gradient)?;
            if !made.norm.is_finite() {
                return Err(place("gradient norm", made.norm));
            }
            rate = made.rate;
            tell(Event::Step(examples.len(), found.loss));
        }
        let judged = match &judges {
            Some((_, Some(images))) => Some(objective.predict(images)?),
            Some((pixels, None)) => Some(objective.predict(*pixels)?),
            None => None,
        };
        let line = Epoch {
            epoch,
            rate,
            training_loss: sum / per_epoch as f64,
            validation: judged.as_ref().map(nll),
            validation_top1: judged.as_ref().map(|p| mean_stderr(&hits(p, 1))),
        };
        let loss = line.validation.map_or(f64::INFINITY, |v| v.mean);
        if settings.keep == Keep::Last || loss < best {
            best = loss;
            (outcome.weights, outcome.epoch) = (objective.weights.clone(), epoch);
        }
        tell(Event::Epoch(&line));
        outcome.epochs.push(line);
    }
    outcome.weights = outcome.weights.on_the_cpu()?;
    Ok(outcome)
}

/// All tensors as one layer.
fn everything(config: &Config) -> Layer {
    Layer {
        name: "*".into(),
        tensors: (0..config.tensors().len()).collect(),
        first_stage: 0,
        last_stage: stages(config) - 1,
    }
}

fn nll(predictions: &Predictions) -> Estimate {
    mean_stderr(&losses(predictions, 1.0))
}

/// The images in memory, if they fit there.
fn resident(pixels: &Pixels) -> Result<Option<Activations>> {
    let bytes = pixels.bytes().is_some_and(|bytes| bytes <= RESIDENT);
    Ok(if bytes { Some(pixels.load()?) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{CropOffset, Interpolation, Preprocess, Resize, Split};
    use crate::vit::arch;

    /// Two classes, told apart by brightness, on a model of two narrow blocks.
    fn run(settings: &Settings) -> Result<Outcome> {
        let mut config = arch::named("vit_nano_patch7_14", 2, 1).unwrap();
        (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 2, 2, 16);
        let labels: Vec<u32> = (0..20).map(|i| i % 2).collect();
        let bright = |i: usize| (150 * (i / 196 % 2) + i * 37 % 90) as u8;
        let levels: Vec<u8> = (0..20 * 196).map(bright).collect();
        let split = Split::from_levels("train", levels, [1, 14, 14], labels).unwrap();
        let preprocess = Preprocess {
            image_size: [14, 14],
            channels: 1,
            resize: Resize::Squash,
            crop_offset: CropOffset::HalfToEven,
            interpolation: Interpolation::Bilinear,
            mean: vec![0.5],
            std: vec![0.25],
        };
        let pixels = Pixels::new(&split, Some(&preprocess), &config).unwrap();
        let weights = Weights::random(&config, 1).unwrap();
        finetune(&Arc::new(config), weights, &pixels, Some(&pixels), settings, &mut |_| ())
    }

    fn settings() -> Settings {
        Settings {
            epochs: 12,
            batch: 8,
            rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            weight_decay: 0.0,
            shape: Shape::Cosine,
            rate: 0.01,
            warmup: 1.0,
            clip: Some(1.0),
            smoothing: 0.0,
            augment: Augment { flip: true, shift: 1, crop: None },
            keep: Keep::Best,
            precision: Precision::F32,
            seed: 0,
        }
    }

    #[test]
    fn classes_are_learnt_and_the_best_epoch_is_kept() {
        let outcome = run(&settings()).unwrap();
        let losses: Vec<f64> =
            outcome.epochs.iter().map(|e| e.validation.map_or(f64::NAN, |v| v.mean)).collect();
        assert_eq!(losses.len(), 12);
        // Guessing costs ln 2; a third of that is learnt beyond doubt.
        assert!(losses[11] < 2f64.ln() / 3.0 && losses[0] > 0.4, "{losses:?}");
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(losses[outcome.epoch - 1], least);
    }

    #[test]
    fn one_seed_gives_one_result_and_the_seed_matters() {
        let short = Settings { epochs: 2, keep: Keep::Last, ..settings() };
        let head = |settings: &Settings| -> Vec<f32> {
            let outcome = run(settings).unwrap();
            assert_eq!(outcome.epoch, 2);
            let head = outcome.weights.get("head.weight").unwrap();
            head.flatten_all().unwrap().to_vec1().unwrap()
        };
        let once = head(&short);
        assert_eq!(once, head(&short));
        assert_ne!(once, head(&Settings { seed: 1, ..short }));
    }

    #[test]
    fn a_run_that_diverges_is_stopped() {
        let wild = Settings {
            rate: 1e30,
            rule: Rule::Sgd { momentum: 0.9, nesterov: true },
            warmup: 0.0,
            clip: None,
            ..settings()
        };
        assert!(matches!(run(&wild), Err(Error::Diverged { .. })));
        let large = Settings { batch: 21, ..settings() };
        assert!(matches!(run(&large), Err(Error::Data(_))));
    }
}
