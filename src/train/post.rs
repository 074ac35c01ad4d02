//! The post-training loop, one for all methods: mini-batches in a seeded order, a method's
//! gradient, clipping, the rate of the schedule, one step of the optimizer; at the end of each
//! epoch a look at validation images, and a guard over all of it.
//!
//! B is taken in micro-batches of the model's [`Objective::micro_batch`], whose gradients are
//! summed in order before anything is done with them: their size is a matter of memory alone.

use super::feed::Feed;
use super::guard::{Guard, Keep, Reason, Stopped};
use super::method::{Displacement, Method};
use super::optimizer::{Optimizer, Rule};
use super::schedule::{Schedule, Shape};
use super::source::Source;
use super::stepper::Stepper;
use super::{Error, Result};
use crate::data::order::Batches;
use crate::evaluate::losses;
use crate::objective::{Activations, Objective};
use crate::vector;
use crate::vit::Weights;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Settings that every method shares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples in B.
    pub batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// What the rate does after the warm-up.
    pub schedule: Shape,
    /// Epochs of linear warm-up.
    pub warmup: f64,
    /// Largest norm of the updated layers' gradient, if it is clipped.
    pub clip: Option<f64>,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Coupled weight decay.
    pub weight_decay: f64,
    /// Which weights to keep; without validation images those of the last epoch.
    pub keep: Keep,
    /// Seed of B, B′ and γ, each with a stream of its own.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch: 128,
            learning_rate: 0.01,
            schedule: Shape::Cosine,
            warmup: 0.0,
            clip: None,
            momentum: 0.9,
            weight_decay: 0.0,
            keep: Keep::Best,
            seed: 0,
        }
    }
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
    /// Before the first step: the mean loss over the validation images that are watched.
    Start(f64),
    /// After a step: the number of examples that it took.
    Step(usize),
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
    /// Validation loss at the start.
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
            perturbation: mean(self.relative, self.compared),
            perturbation_length: mean(self.length, self.perturbed),
            capped: mean(self.capped as f64, self.searched),
            eta: mean(self.eta, self.searched),
            seconds,
        }
    }
}

/// Post-trains `model` and returns the weights kept, with one line an epoch.
///
/// `validation` holds V's activations at a frozen stage. `tell` hears of the start, of each step and
/// of each epoch. A run that the guard stops is no error: the outcome says
/// so, and its weights are those of an epoch before, or of the start.
///
/// # Errors
/// Those of evaluating the model; a validation loss that is not finite from the start; a batch
/// larger than the training set; more steps than can be counted.
pub fn post_train(
    model: &Objective,
    method: &mut dyn Method,
    source: &Source,
    validation: Option<&Activations>,
    settings: &Settings,
    tell: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let start = validation.map(|examples| mean_loss(model, examples)).transpose()?;
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
            let found = match mean_loss(&run.current, examples) {
                Ok(loss) => loss,
                Err(error) if Reason::of(&error).is_some() => f64::NAN,
                Err(error) => return Err(error.into()),
            };
            line.validation_loss = Some(found).filter(|loss| loss.is_finite());
            let step = run.per_epoch;
            stopped = run.guard.epoch(found).map(|reason| Stopped { epoch, step, reason });
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
        settings: &Settings,
    ) -> Result<Self> {
        let batches = Batches::new(source.len(), settings.batch, settings.seed, "B")?;
        let per_epoch = batches.per_epoch();
        let (rate, warmup) = (settings.learning_rate, settings.warmup);
        let schedule = Schedule::over(settings.schedule, rate, warmup, settings.epochs, per_epoch)?;
        let rule = Rule::Sgd { momentum: settings.momentum, nesterov: false };
        let optimizer = Optimizer::new(rule, settings.weight_decay);
        Ok(Self {
            feed: Feed::new(batches),
            per_epoch,
            stepper: Stepper::new(optimizer, schedule, settings.clip),
            guard: Guard::new(model.config.classes, start),
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
            tell(Event::Step(batch.labels.len()));
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

fn mean_loss(model: &Objective, examples: &Activations) -> crate::objective::Result<f64> {
    let losses = losses(&model.predict(examples)?, 1.0);
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}
