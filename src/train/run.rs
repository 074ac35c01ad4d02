//! The training loop of fine-tuning and of all post-training methods. A step draws a mini-batch B in a
//! seeded order, computes the method's gradient, clips it, and takes one step of the optimizer at the
//! scheduled learning rate. The validation images are evaluated at the end of each epoch. A guard stops
//! a run that diverges.
//!
//! Fine-tuning is the method SGD on all layers, with the images as source.
//!
//! B is split into micro-batches of [`Objective::micro_batch`]. Their gradients are summed in order
//! before clipping and the step, so their size only affects memory use.

use super::average::{Average, Averager};
use super::feed::Feed;
use super::groups::{Grouping, Groups};
use super::guard::{Guard, Keep, Reason, StopRule, Stopped};
use super::l2_sp::{L2Sp, Penalty};
use super::method::{Displacement, Method};
use super::optimizer::OptimizerRule;
use super::schedule::{Schedule, Shape};
use super::source::Source;
use super::stepper::Stepper;
use super::{Error, Result};
use crate::data::order::Batches;
use crate::evaluate::{Estimate, hits, losses, mean_stderr};
use crate::models::{Layer, Weights};
use crate::objective::{Examples, Objective};
use crate::vector;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Settings of a run. With the model, the method and the examples, they determine the result.
///
/// Reports list them under the names of the options. Aliases are names in reports of earlier versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples in B. An epoch's last partial batch is dropped.
    #[serde(alias = "batch")]
    pub batch_size: usize,
    /// Highest learning rate.
    #[serde(alias = "learning_rate")]
    pub lr: f64,
    /// Shape of the schedule after the warm-up.
    pub schedule: Shape,
    /// Epochs of linear warm-up.
    pub warmup: f64,
    /// Maximum norm of the updated layers' gradient; `None` does not clip.
    pub clip: Option<f64>,
    /// Update rule.
    #[serde(flatten)]
    pub optimizer: OptimizerRule,
    /// λ; see [`OptimizerRule`].
    pub weight_decay: f64,
    /// Label smoothing of the training loss.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub label_smoothing: f64,
    /// Learning rates and weight decays that differ between tensors.
    #[serde(flatten)]
    pub grouping: Grouping,
    /// Penalty on the distance from the initial weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_sp: Option<L2Sp>,
    /// Average of the weights that is evaluated and kept instead of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<Average>,
    /// Which weights to keep. Without validation images, the last epoch's.
    pub keep: Keep,
    /// When the run is stopped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: StopRule,
    /// Seed of B, B′ and γ, each with its own stream.
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
            optimizer: OptimizerRule::Sgd { momentum: 0.9, nesterov: false },
            weight_decay: 0.0,
            label_smoothing: 0.0,
            grouping: Grouping::default(),
            l2_sp: None,
            average: None,
            keep: Keep::Best,
            stop: StopRule::Exploded,
            seed: 0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
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
    #[serde(alias = "rate")]
    pub lr: f64,
    /// Mean loss of the epoch's batches at the point where the gradient is taken, so with any
    /// perturbation and label smoothing, without the penalty of L2-SP.
    pub training_loss: f64,
    /// Mean norm of the gradients before clipping, with that of L2-SP.
    pub gradient_norm: f64,
    /// Mean validation loss after the epoch, if there are validation images.
    pub validation_loss: Option<f64>,
    /// Its standard error. Not in reports of post-training.
    #[serde(skip)]
    pub validation_stderr: Option<f64>,
    /// Validation accuracy (top-1). Not in reports of post-training.
    #[serde(skip)]
    pub validation_top1: Option<Estimate>,
    /// Mean ‖Δw_p‖/‖w_p‖ of steps that perturb; `None` if w_p = 0 or no step perturbs.
    pub perturbation: Option<f64>,
    /// Mean ‖Δw_p‖ of steps that perturb; absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perturbation_length: Option<f64>,
    /// Fraction of perturbations shortened by the cap; `None` without a cap.
    pub capped: Option<f64>,
    /// Fraction of steps of PoL and PoF that do not perturb, because the loss of B′ has no minimum within
    /// reach; `None` with a cap instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<f64>,
    /// Mean η* of steps that perturb; `None` for SAM.
    pub eta: Option<f64>,
    /// Mean share of the updated layer's weights that a step updates; `None` if each step updates all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<f64>,
    /// Seconds for the epoch's steps, without evaluation. Reports leave out times.
    #[serde(skip)]
    pub seconds: f64,
}

/// Progress of a run.
#[derive(Clone, Copy, Debug)]
pub enum TrainEvent<'a> {
    /// Before the first step, under [`StopRule::Exploded`]: the mean validation loss.
    Start(f64),
    /// After a step.
    Step {
        /// Examples in B.
        examples: usize,
        /// Mean loss of B at the point where the gradient is taken, in nats.
        loss: f64,
    },
    /// After an epoch.
    Epoch(&'a Epoch),
}

/// Result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The weights kept.
    pub weights: Weights,
    /// Their epoch, from 1; 0 means the initial weights.
    pub epoch: usize,
    /// Initial validation loss, under [`StopRule::Exploded`].
    pub start: Option<f64>,
    /// All finished epochs, in order.
    pub epochs: Vec<Epoch>,
    /// Where and why the guard stopped the run, if it did.
    pub stopped: Option<Stopped>,
}

impl Outcome {
    /// Median seconds per epoch, steps only; 0 without a finished epoch.
    pub fn seconds_per_epoch(&self) -> f64 {
        let mut seconds: Vec<f64> = self.epochs.iter().map(|epoch| epoch.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Sums over one epoch.
#[derive(Default)]
struct Sums {
    steps: usize,
    loss: f64,
    norm: f64,
    perturbed: usize,
    length: f64,
    /// Perturbations of non-zero weights.
    compared: usize,
    relative: f64,
    searched: usize,
    eta: f64,
    /// Steps that update a part of the layer, and the sum of their shares.
    parts: usize,
    active: f64,
    /// Perturbations under a cap, and those that it shortened.
    capped: [usize; 2],
    /// Perturbations that may be rejected, and those that were.
    rejected: [usize; 2],
}

impl Sums {
    fn add(
        &mut self,
        loss: f64,
        norm: f64,
        displacement: Option<Displacement>,
        active: Option<f64>,
    ) {
        self.steps += 1;
        self.parts += usize::from(active.is_some());
        self.active += active.unwrap_or(0.0);
        self.loss += loss;
        self.norm += norm;
        let Some(displacement) = displacement else { return };
        if let Displacement::Descent(p) = displacement {
            for (share, was) in [(&mut self.capped, p.capped()), (&mut self.rejected, p.rejected())]
            {
                share[0] += usize::from(was.is_some());
                share[1] += usize::from(was == Some(true));
            }
            if p.rejected() == Some(true) {
                return;
            }
            self.searched += 1;
            self.eta += p.eta;
        }
        self.perturbed += 1;
        self.length += displacement.length();
        if let Some(relative) = displacement.relative() {
            self.compared += 1;
            self.relative += relative;
        }
    }

    fn epoch(&self, epoch: usize, lr: f64, seconds: f64) -> Epoch {
        let mean = |sum: f64, n: usize| (n > 0).then(|| sum / n as f64);
        let share = |[of, n]: [usize; 2]| mean(n as f64, of);
        Epoch {
            epoch,
            lr,
            training_loss: self.loss / self.steps.max(1) as f64,
            gradient_norm: self.norm / self.steps.max(1) as f64,
            validation_loss: None,
            validation_stderr: None,
            validation_top1: None,
            perturbation: mean(self.relative, self.compared),
            perturbation_length: mean(self.length, self.perturbed),
            capped: share(self.capped),
            rejected: share(self.rejected),
            eta: mean(self.eta, self.searched),
            active: mean(self.active, self.parts),
            seconds,
        }
    }
}

impl Outcome {
    /// Returns the outcome, or an error if the run was stopped before an epoch could be kept.
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

/// Trains `model` and returns the kept weights and the figures of each epoch.
///
/// `validation` holds the validation images, or their activations at a frozen stage. `tell` receives
/// an event at the start, for each step and for each epoch. If the guard stops the run, the result is
/// `Ok`: [`Outcome::stopped`] gives the reason, and the weights are those of an earlier epoch or the
/// initial ones.
///
/// # Errors
/// Those of evaluating the model; an initial validation loss that is not finite; a batch larger than
/// the training set; more steps than fit in a `usize`.
pub fn train(
    model: &Objective,
    method: &mut dyn Method,
    source: &Source,
    validation: Option<&dyn Examples>,
    settings: &TrainSettings,
    tell: &mut dyn FnMut(TrainEvent),
) -> Result<Outcome> {
    // Explosion is measured relative to the initial loss.
    let watched = validation.filter(|_| settings.stop == StopRule::Exploded);
    let start = watched.map(|examples| judge(model, examples)).transpose()?.map(|v| v.loss.mean);
    start.into_iter().for_each(|loss| tell(TrainEvent::Start(loss)));
    let mut run = Run::new(model, method, source, start, settings)?;
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
        let (candidate, is_candidate) = run.candidate(method.updated());
        if let Some(examples) = validation {
            let found = match judge(&candidate, examples) {
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
        if stopped.is_none() && is_candidate && loss.is_none_or(|loss| loss < best) {
            best = loss.unwrap_or(best);
            (outcome.weights, outcome.epoch) = (candidate.weights, epoch);
        }
        tell(TrainEvent::Epoch(&line));
        outcome.epochs.push(line);
        outcome.stopped = stopped;
        if outcome.stopped.is_some() {
            break;
        }
    }
    outcome.weights = outcome.weights.on_the_cpu()?;
    Ok(outcome)
}

/// State carried from step to step.
struct Run {
    feed: Feed,
    per_epoch: usize,
    stepper: Stepper,
    guard: Guard,
    penalty: Option<Penalty>,
    averager: Option<Averager>,
    current: Objective,
}

impl Run {
    fn new(
        model: &Objective,
        method: &dyn Method,
        source: &Source,
        start: Option<f64>,
        settings: &TrainSettings,
    ) -> Result<Self> {
        let batches = Batches::new(source.len(), settings.batch_size, settings.seed, "B")?;
        let per_epoch = batches.per_epoch();
        let (rate, warmup) = (settings.lr, settings.warmup);
        let schedule = Schedule::over(settings.schedule, rate, warmup, settings.epochs, per_epoch)?;
        let (network, rule, update) = (&model.network, settings.optimizer, method.updated());
        let groups = Groups::new(network, update, settings.grouping, rule, settings.weight_decay);
        let groups = if method.updates_parts() { groups.apart() } else { groups };
        let penalty = settings.l2_sp.map(|l2_sp| Penalty::new(l2_sp, model, update)).transpose()?;
        Ok(Self {
            feed: Feed::new(batches),
            per_epoch,
            stepper: Stepper::new(groups, schedule, settings.clip, per_epoch),
            guard: Guard::new(settings.stop, model.network.classes(), start),
            penalty,
            averager: settings.average.map(|of| Averager::new(of, settings.epochs)),
            current: model.clone(),
        })
    }

    /// The model that is evaluated after an epoch, and whether it may be kept: before an average has
    /// begun, it may not.
    fn candidate(&self, update: &Layer) -> (Objective, bool) {
        let mut candidate = self.current.clone();
        let Some(averager) = &self.averager else { return (candidate, true) };
        let Some(mean) = averager.mean() else { return (candidate, false) };
        for (&i, tensor) in update.tensors.iter().zip(mean) {
            candidate.weights.set(i, tensor.clone());
        }
        (candidate, true)
    }

    /// Runs one epoch. Returns where the guard stopped it, if it did.
    fn epoch(
        &mut self,
        epoch: usize,
        method: &mut dyn Method,
        source: &Source,
        tell: &mut dyn FnMut(TrainEvent),
    ) -> Result<std::result::Result<Epoch, Stopped>> {
        let (mut sums, mut rate) = (Sums::default(), 0.0);
        let clock = Instant::now();
        for step in 1..=self.per_epoch {
            let stop = |reason| Ok(Err(Stopped { epoch, step, reason }));
            let read = |order: &mut Batches| source.next(order);
            let batch = self.feed.next(&self.current, read)?;
            let mut step_on = || method.step(&self.current, source, &batch);
            let found = match source.is_read() {
                true => self.feed.overlap(&self.current, read, &mut step_on),
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
            let part = found.part.as_deref();
            let active =
                part.map(|_| share_of(&found.gradient, &self.current, layer)).transpose()?;
            let gradient = match &self.penalty {
                Some(penalty) if part.is_none() => {
                    penalty.add_to(found.gradient, &self.current.weights_of(layer)?)?
                }
                _ => found.gradient,
            };
            let made = self.stepper.step_part(&mut self.current, layer, part, gradient)?;
            if let Some(averager) = &mut self.averager {
                averager.step(&self.current.weights_of(layer)?)?;
            }
            rate = made.rate;
            if let Some(reason) = self.guard.step(found.loss, made.norm, step == self.per_epoch) {
                return stop(reason);
            }
            sums.add(found.loss, made.norm, found.perturbation, active);
            tell(TrainEvent::Step { examples: batch.labels.len(), loss: found.loss });
        }
        // The last step had a finite loss and gradient, but its result may not be finite.
        let updated = self.current.weights_of(method.updated())?;
        if !vector::norm(&updated)?.is_finite() {
            let reason = Reason::not_finite("weights' norm");
            return Ok(Err(Stopped { epoch, step: self.per_epoch, reason }));
        }
        if let Some(averager) = &mut self.averager {
            averager.epoch(epoch, &updated)?;
        }
        Ok(Ok(sums.epoch(epoch, rate, clock.elapsed().as_secs_f64())))
    }
}

/// Share of a layer's weights that this gradient is about.
fn share_of(
    gradient: &[Tensor],
    model: &Objective,
    layer: &Layer,
) -> crate::objective::Result<f64> {
    let count = |tensors: &[Tensor]| tensors.iter().map(Tensor::elem_count).sum::<usize>() as f64;
    Ok(count(gradient) / count(&model.weights_of(layer)?))
}

/// Validation loss and accuracy.
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
    use crate::engine::Engine;
    use crate::models::arch;
    use crate::models::layers::everything;
    use crate::pixels::Pixels;
    use crate::train::sgd::Sgd;
    use serde_json::json;
    use std::sync::Arc;

    /// Fine-tunes a model with two narrow blocks on two classes that differ in brightness.
    fn run(settings: &TrainSettings, augment: Augment) -> Result<Outcome> {
        let mut config = arch::vit("vit_nano_patch7_14", 2, 1).unwrap();
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
        let network = config.network().unwrap();
        let pixels = Pixels::new(&split, Some(&preprocess), &network).unwrap();
        let weights = Weights::random(&network, 1).unwrap();
        let mut sgd = Sgd { update: everything(&network) };
        let model = Objective::new(Arc::new(network), weights, &Engine::cpu());
        let source = Source::images(&pixels, augment, None, settings.seed).unwrap();
        train(&model, &mut sgd, &source, Some(&pixels), settings, &mut |_| ())
    }

    fn settings() -> TrainSettings {
        TrainSettings {
            epochs: 12,
            batch_size: 8,
            optimizer: OptimizerRule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            lr: 0.01,
            warmup: 1.0,
            clip: Some(1.0),
            stop: StopRule::NotFinite,
            ..TrainSettings::default()
        }
    }

    fn augmentation() -> Augment {
        Augment { flip: true, shift: 1, crop: None }
    }

    #[test]
    fn classes_are_learnt_and_the_best_epoch_is_kept() {
        let outcome = run(&settings(), augmentation()).unwrap();
        let losses: Vec<f64> =
            outcome.epochs.iter().map(|e| e.validation_loss.unwrap_or(f64::NAN)).collect();
        assert_eq!(losses.len(), 12);
        // Guessing has loss ln 2. A third of that cannot be chance.
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
        let once = head(&short, augmentation());
        assert_eq!(once, head(&short, augmentation()));
        assert_ne!(once, head(&short, Augment::default()));
        assert_ne!(once, head(&TrainSettings { seed: 1, ..short }, augmentation()));
    }

    #[test]
    fn a_run_that_diverges_is_stopped() {
        let diverging = TrainSettings {
            lr: 1e30,
            optimizer: OptimizerRule::Sgd { momentum: 0.9, nesterov: true },
            warmup: 0.0,
            clip: None,
            ..settings()
        };
        let outcome = run(&diverging, augmentation()).unwrap();
        assert!(outcome.stopped.is_some() && outcome.epoch == 0);
        // After a finite epoch, its weights are the result.
        let later = Outcome { epoch: 3, ..outcome.clone() };
        assert_eq!(later.trained().unwrap().epoch, 3);
        let error = outcome.trained().unwrap_err();
        assert!(matches!(error, Error::Diverged(_)));
        assert!(error.to_string().contains("lower `lr`"), "{error}");
        let large = TrainSettings { batch_size: 21, ..settings() };
        assert!(matches!(run(&large, augmentation()), Err(Error::Data(_))));
    }

    /// Reports and study cells depend on these keys.
    #[test]
    fn settings_are_written_under_the_names_of_the_options() {
        let written = serde_json::to_value(TrainSettings::default()).unwrap();
        let expected = json!({
            "epochs": 5, "batch_size": 128, "lr": 0.01, "schedule": "cosine", "warmup": 0.0,
            "clip": null, "momentum": 0.9, "weight_decay": 0.0, "keep": "best", "seed": 0,
        });
        assert_eq!(written, expected);
        for settings in [TrainSettings::default(), settings()] {
            let text = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<TrainSettings>(&text).unwrap(), settings, "{text}");
        }
        // Names of earlier versions.
        let mut earlier = expected.as_object().unwrap().clone();
        for (name, earlier_name) in [("batch_size", "batch"), ("lr", "learning_rate")] {
            let value = earlier.remove(name).unwrap();
            earlier.insert(earlier_name.into(), value);
        }
        let read: TrainSettings = serde_json::from_value(earlier.into()).unwrap();
        assert_eq!(read, TrainSettings::default());
    }
}
