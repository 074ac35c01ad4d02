//! The training loop, one for fine-tuning and for every method of post-training: mini-batches in a
//! seeded order, a method's gradient, clipping, the rate of the schedule, one step of the optimizer;
//! at the end of each epoch the validation images, and a guard over all of it.
//!
//! Fine-tuning is the method SGD on all layers, with images as its source.
//!
//! B is taken in micro-batches of the model's [`Objective::micro_batch`], whose gradients are
//! summed in order before anything is done with them: their size is a matter of memory alone.

use super::feed::Feed;
use super::guard::{Guard, Keep, Reason, StopRule, Stopped};
use super::method::{Displacement, Method};
use super::optimizer::{Optimizer, Rule};
use super::schedule::{Schedule, Shape};
use super::source::Source;
use super::stepper::Stepper;
use super::{Error, Result};
use crate::data::order::Batches;
use crate::evaluate::{Estimate, hits, losses, mean_stderr};
use crate::objective::{Examples, Objective};
use crate::vector;
use crate::vit::Weights;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What fixes a run, with the model, the method and the training examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples in B. An epoch's last partial batch is dropped.
    #[serde(rename = "batch")]
    pub batch_size: usize,
    /// Highest learning rate.
    #[serde(rename = "learning_rate")]
    pub lr: f64,
    /// What the rate does after the warm-up.
    pub schedule: Shape,
    /// Epochs of linear warm-up.
    pub warmup: f64,
    /// Largest norm of the updated layers' gradient, if it is clipped.
    pub clip: Option<f64>,
    /// How a gradient moves the weights.
    #[serde(flatten)]
    pub optimizer: Rule,
    /// λ, see [`Rule`].
    pub weight_decay: f64,
    /// Which weights to keep; without validation images those of the last epoch.
    pub keep: Keep,
    /// When the run is stopped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: StopRule,
    /// Seed of B, B′ and γ, each with a stream of its own.
    pub seed: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch_size: 128,
            lr: 0.01,
            schedule: Shape::Cosine,
            warmup: 0.0,
            clip: None,
            optimizer: Rule::Sgd { momentum: 0.9, nesterov: false },
            weight_decay: 0.0,
            keep: Keep::Best,
            stop: StopRule::Exploded,
            seed: 0,
        }
    }
}

fn is_default(stop: &StopRule) -> bool {
    *stop == StopRule::default()
}

/// One epoch's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Learning rate of its last step.
    pub rate: f64,
    /// Mean loss over the epoch's batches where gradients were taken: under perturbation, if any.
    pub training_loss: f64,
    /// Mean norm of the gradients before they were clipped.
    pub gradient_norm: f64,
    /// Mean loss after the epoch over the validation images that are watched, if there are any.
    pub validation_loss: Option<f64>,
    /// Its standard error. Reports of post-training have the loss alone.
    #[serde(skip)]
    pub validation_stderr: Option<f64>,
    /// Share of these images whose label has the largest logit. Not in reports of post-training.
    #[serde(skip)]
    pub validation_top1: Option<Estimate>,
    /// Mean ‖Δw_p‖/‖w_p‖ of the steps that perturbed; nothing for a layer that was all zeros.
    pub perturbation: Option<f64>,
    /// Mean ‖Δw_p‖ of the steps that perturbed; absent in files of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perturbation_length: Option<f64>,
    /// Share of perturbations that the cap shortened; nothing for SAM, which has none.
    pub capped: Option<f64>,
    /// Mean η*; nothing for SAM.
    pub eta: Option<f64>,
    /// Seconds of the epoch's steps, without evaluation; a time, so it stays out of reports.
    #[serde(skip)]
    pub seconds: f64,
}

/// What a run tells as it goes.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Before the first step, under [`StopRule::Exploded`]: the mean loss over the validation images
    /// that are watched.
    Start(f64),
    /// After a step.
    Step {
        /// Examples in B.
        examples: usize,
        /// Mean loss over B where the gradient was taken, nats.
        loss: f64,
    },
    /// After an epoch.
    Epoch(&'a Epoch),
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The weights kept.
    pub weights: Weights,
    /// The epoch they come from, from 1; 0 means the weights at the start.
    pub epoch: usize,
    /// Validation loss at the start, where the run was judged by it.
    pub start: Option<f64>,
    /// Every finished epoch, in order.
    pub epochs: Vec<Epoch>,
    /// Where the guard stopped it, if it did.
    pub stopped: Option<Stopped>,
}

/// Sums over one epoch.
#[derive(Default)]
struct Sums {
    steps: usize,
    loss: f64,
    norm: f64,
    perturbed: usize,
    length: f64,
    /// Perturbations of weights that are not all 0.
    compared: usize,
    relative: f64,
    searched: usize,
    capped: usize,
    eta: f64,
}

impl Sums {
    fn add(&mut self, loss: f64, norm: f64, displacement: Option<Displacement>) {
        self.steps += 1;
        self.loss += loss;
        self.norm += norm;
        let Some(displacement) = displacement else { return };
        self.perturbed += 1;
        self.length += displacement.length();
        if let Some(relative) = displacement.relative() {
            self.compared += 1;
            self.relative += relative;
        }
        if let Displacement::Descent(p) = displacement {
            self.searched += 1;
            self.capped += usize::from(p.capped);
            self.eta += p.eta;
        }
    }

    fn epoch(&self, epoch: usize, rate: f64, seconds: f64) -> Epoch {
        let mean = |sum: f64, n: usize| (n > 0).then(|| sum / n as f64);
        Epoch {
            epoch,
            rate,
            training_loss: self.loss / self.steps.max(1) as f64,
            gradient_norm: self.norm / self.steps.max(1) as f64,
            validation_loss: None,
            validation_stderr: None,
            validation_top1: None,
            perturbation: mean(self.relative, self.compared),
            perturbation_length: mean(self.length, self.perturbed),
            capped: mean(self.capped as f64, self.searched),
            eta: mean(self.eta, self.searched),
            seconds,
        }
    }
}

impl Outcome {
    /// The outcome, unless the run was stopped before any epoch ended well.
    ///
    /// # Errors
    /// [`Error::Diverged`].
    pub fn trained(self) -> Result<Self> {
        match self.stopped {
            Some(stopped) if self.epoch == 0 => Err(Error::Diverged(stopped)),
            _ => Ok(self),
        }
    }
}

/// Trains `model` and returns the weights kept, with one line an epoch.
///
/// `validation` holds the validation images, or their activations at a frozen stage. `tell` receives
/// an event at the start, for each step and for each epoch. A run that the guard stops is no error:
/// the outcome says so, and its weights are those of an epoch before, or of the start.
///
/// # Errors
/// Those of evaluating the model; a validation loss that is not finite from the start; a batch
/// larger than the training set; more steps than can be counted.
pub fn train(
    model: &Objective,
    method: &mut dyn Method,
    source: &Source,
    validation: Option<&dyn Examples>,
    settings: &TrainSettings,
    tell: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    // An explosion is measured against the start.
    let watched = validation.filter(|_| settings.stop == StopRule::Exploded);
    let start = watched.map(|examples| judge(model, examples)).transpose()?.map(|v| v.loss.mean);
    start.into_iter().for_each(|loss| tell(Event::Start(loss)));
    let mut run = Run::new(model, source, start, settings)?;
    let mut best = f64::INFINITY;
    let mut outcome = Outcome {
        weights: model.weights.clone(),
        epoch: 0,
        start,
        epochs: Vec::new(),
        stopped: None,
    };
    for epoch in 1..=settings.epochs {
        let (mut line, mut stopped) = match run.epoch(epoch, method, source, tell)? {
            Ok(line) => (line, None),
            Err(stopped) => {
                outcome.stopped = Some(stopped);
                break;
            }
        };
        if let Some(examples) = validation {
            let found = match judge(&run.current, examples) {
                Ok(found) => Some(found).filter(|found| found.loss.mean.is_finite()),
                Err(error) if Reason::of(&error).is_some() => None,
                Err(error) => return Err(error.into()),
            };
            line.validation_loss = found.map(|found| found.loss.mean);
            line.validation_stderr = found.and_then(|found| found.loss.stderr);
            line.validation_top1 = found.map(|found| found.top1);
            let (loss, step) = (line.validation_loss.unwrap_or(f64::NAN), run.per_epoch);
            stopped = run.guard.epoch(loss).map(|reason| Stopped { epoch, step, reason });
        }
        let loss = line.validation_loss.filter(|_| settings.keep == Keep::Best);
        if stopped.is_none() && loss.is_none_or(|loss| loss < best) {
            best = loss.unwrap_or(best);
            (outcome.weights, outcome.epoch) = (run.current.weights.clone(), epoch);
        }
        tell(Event::Epoch(&line));
        outcome.epochs.push(line);
        outcome.stopped = stopped;
        if outcome.stopped.is_some() {
            break;
        }
    }
    outcome.weights = outcome.weights.on_the_cpu()?;
    Ok(outcome)
}

/// What goes from step to step.
struct Run {
    feed: Feed,
    per_epoch: usize,
    stepper: Stepper,
    guard: Guard,
    current: Objective,
}

impl Run {
    fn new(
        model: &Objective,
        source: &Source,
        start: Option<f64>,
        settings: &TrainSettings,
    ) -> Result<Self> {
        let batches = Batches::new(source.len(), settings.batch_size, settings.seed, "B")?;
        let per_epoch = batches.per_epoch();
        let (rate, warmup) = (settings.lr, settings.warmup);
        let schedule = Schedule::over(settings.schedule, rate, warmup, settings.epochs, per_epoch)?;
        let optimizer = Optimizer::new(settings.optimizer, settings.weight_decay);
        Ok(Self {
            feed: Feed::new(batches),
            per_epoch,
            stepper: Stepper::new(optimizer, schedule, settings.clip),
            guard: Guard::new(settings.stop, model.config.classes, start),
            current: model.clone(),
        })
    }

    /// The steps of one epoch, or where the guard stopped them.
    fn epoch(
        &mut self,
        epoch: usize,
        method: &mut dyn Method,
        source: &Source,
        tell: &mut dyn FnMut(Event),
    ) -> Result<std::result::Result<Epoch, Stopped>> {
        let (mut sums, mut rate) = (Sums::default(), 0.0);
        let clock = Instant::now();
        for step in 1..=self.per_epoch {
            let stop = |reason| Ok(Err(Stopped { epoch, step, reason }));
            let read = |order: &mut Batches| source.next(order);
            let batch = self.feed.next(&self.current, read)?;
            let mut step_on = || method.step(&self.current, source, &batch);
            let found = match source.is_read() {
                true => self.feed.meanwhile(&self.current, read, &mut step_on),
                false => step_on(),
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => match Reason::of(&error) {
                    Some(reason) => return stop(reason),
                    None => return Err(Error::Objective(error)),
                },
            };
            let layer = method.updated();
            let made = self.stepper.step(&mut self.current.weights, layer, found.gradient)?;
            rate = made.rate;
            if let Some(reason) = self.guard.step(found.loss, made.norm, step == self.per_epoch) {
                return stop(reason);
            }
            sums.add(found.loss, made.norm, found.perturbation);
            tell(Event::Step { examples: batch.labels.len(), loss: found.loss });
        }
        // The last step's own loss and gradient were sound, and where it led may not be.
        let updated = self.current.weights_of(method.updated())?;
        if !vector::norm(&updated)?.is_finite() {
            let reason = Reason::not_finite("weights' norm");
            return Ok(Err(Stopped { epoch, step: self.per_epoch, reason }));
        }
        Ok(Ok(sums.epoch(epoch, rate, clock.elapsed().as_secs_f64())))
    }
}

/// How a model does on validation images.
#[derive(Clone, Copy)]
struct Judged {
    loss: Estimate,
    top1: Estimate,
}

fn judge(model: &Objective, examples: &dyn Examples) -> crate::objective::Result<Judged> {
    let found = model.predict(examples)?;
    let (losses, hits) = (losses(&found, 1.0), hits(&found, 1));
    Ok(Judged { loss: mean_stderr(&losses), top1: mean_stderr(&hits) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Augment, CropOffset, Interpolation, Preprocess, Resize, Split};
    use crate::pixels::Pixels;
    use crate::train::sgd::Sgd;
    use crate::vit::arch;
    use crate::vit::layers::everything;
    use serde_json::json;
    use std::sync::Arc;

    /// Fine-tunes a model of two narrow blocks on two classes, told apart by brightness.
    fn run(settings: &TrainSettings, augment: Augment) -> Result<Outcome> {
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
        let mut sgd = Sgd { update: everything(&config) };
        let model = Objective::new(Arc::new(config), weights);
        let source = Source::images(&pixels, augment, settings.seed).unwrap();
        train(&model, &mut sgd, &source, Some(&pixels), settings, &mut |_| ())
    }

    fn settings() -> TrainSettings {
        TrainSettings {
            epochs: 12,
            batch_size: 8,
            optimizer: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            lr: 0.01,
            warmup: 1.0,
            clip: Some(1.0),
            stop: StopRule::NotFinite,
            ..TrainSettings::default()
        }
    }

    fn moved() -> Augment {
        Augment { flip: true, shift: 1, crop: None }
    }

    #[test]
    fn classes_are_learnt_and_the_best_epoch_is_kept() {
        let outcome = run(&settings(), moved()).unwrap();
        let losses: Vec<f64> =
            outcome.epochs.iter().map(|e| e.validation_loss.unwrap_or(f64::NAN)).collect();
        assert_eq!(losses.len(), 12);
        // Guessing costs ln 2; a third of that is learnt beyond doubt.
        assert!(losses[11] < 2f64.ln() / 3.0 && losses[0] > 0.4, "{losses:?}");
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(losses[outcome.epoch - 1], least);
        let last = outcome.epochs.last().unwrap();
        assert!(last.validation_top1.unwrap().mean > 0.9 && last.validation_stderr.is_some());
    }

    #[test]
    fn one_seed_gives_one_result_and_the_seed_matters() {
        let short = TrainSettings { epochs: 2, keep: Keep::Last, ..settings() };
        let head = |settings: &TrainSettings, augment| -> Vec<f32> {
            let outcome = run(settings, augment).unwrap();
            assert_eq!(outcome.epoch, 2);
            let head = outcome.weights.get("head.weight").unwrap();
            head.flatten_all().unwrap().to_vec1().unwrap()
        };
        let once = head(&short, moved());
        assert_eq!(once, head(&short, moved()));
        assert_ne!(once, head(&short, Augment::default()));
        assert_ne!(once, head(&TrainSettings { seed: 1, ..short }, moved()));
    }

    #[test]
    fn a_run_that_diverges_is_stopped() {
        let wild = TrainSettings {
            lr: 1e30,
            optimizer: Rule::Sgd { momentum: 0.9, nesterov: true },
            warmup: 0.0,
            clip: None,
            ..settings()
        };
        let outcome = run(&wild, moved()).unwrap();
        assert!(outcome.stopped.is_some() && outcome.epoch == 0);
        let error = outcome.trained().unwrap_err();
        assert!(matches!(error, Error::Diverged(_)));
        assert!(error.to_string().contains("lower `lr`"), "{error}");
        let large = TrainSettings { batch_size: 21, ..settings() };
        assert!(matches!(run(&large, moved()), Err(Error::Data(_))));
    }

    /// Reports and the names of study cells have these keys.
    #[test]
    fn settings_are_written_under_their_names_in_reports() {
        let written = serde_json::to_value(TrainSettings::default()).unwrap();
        let expected = json!({
            "epochs": 5, "batch": 128, "learning_rate": 0.01, "schedule": "cosine", "warmup": 0.0,
            "clip": null, "momentum": 0.9, "weight_decay": 0.0, "keep": "best", "seed": 0,
        });
        assert_eq!(written, expected);
        for settings in [TrainSettings::default(), settings()] {
            let text = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<TrainSettings>(&text).unwrap(), settings, "{text}");
        }
    }
}
