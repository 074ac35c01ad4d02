//! The post-training loop: mini-batches in a seeded order, a method's gradient, one step of the
//! optimizer.

use super::method::Method;
use super::optimizer::{Optimizer, Rule};
use super::schedule::{Schedule, Shape};
use super::source::Source;
use super::{Error, Result};
use crate::data::order::Batches;
use crate::evaluate::losses;
use crate::objective::{Activations, Objective};
use crate::vit::Weights;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Settings that every method shares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples in B.
    pub batch: usize,
    /// Learning rate at the start; a cosine takes it to 0, without warm-up.
    pub learning_rate: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Coupled weight decay.
    pub weight_decay: f64,
    /// Seed of B, B′ and γ, each with a stream of its own.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch: 128,
            learning_rate: 0.01,
            momentum: 0.9,
            weight_decay: 0.0,
            seed: 0,
        }
    }
}

/// One epoch's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean loss over the epoch's batches where gradients were taken: under perturbation, if any.
    pub training_loss: f64,
    /// Mean loss after the epoch over the validation images that are watched, if there are any.
    pub validation_loss: Option<f64>,
    /// Mean ‖Δw_p‖/‖w_p‖.
    pub perturbation: Option<f64>,
    /// Share of perturbations that the cap shortened.
    pub capped: Option<f64>,
    /// Mean η*.
    pub eta: Option<f64>,
    /// Seconds of the epoch's steps, without evaluation; a time, so it stays out of reports.
    #[serde(skip)]
    pub seconds: f64,
}

/// Sums over one epoch.
#[derive(Default)]
struct Sums {
    steps: usize,
    loss: f64,
    perturbed: usize,
    relative: f64,
    capped: usize,
    eta: f64,
}

/// Post-trains `model` and returns its weights with one line an epoch.
///
/// `validation` holds V's activations at a frozen stage. `after` hears of each step (with the
/// number of examples) and of each epoch.
///
/// # Errors
/// Those of evaluating the model, a non-finite loss above all; a batch larger than the training
/// set.
pub fn post_train(
    model: &Objective,
    method: &mut dyn Method,
    source: &Source,
    validation: Option<&Activations>,
    settings: &Settings,
    after: &mut dyn FnMut(usize, Option<&Epoch>),
) -> Result<(Weights, Vec<Epoch>)> {
    let mut batches = Batches::new(source.len(), settings.batch, settings.seed, "B")?;
    let steps = batches.per_epoch();
    let schedule = Schedule {
        shape: Shape::Cosine,
        rate: settings.learning_rate,
        warmup: 0,
        steps: settings.epochs * steps,
    };
    let rule = Rule::Sgd { momentum: settings.momentum, nesterov: false };
    let mut optimizer = Optimizer::new(rule, settings.weight_decay);
    let mut current = model.clone();
    let mut log = Vec::new();
    for epoch in 0..settings.epochs {
        let mut sums = Sums::default();
        let clock = Instant::now();
        for step in 0..steps {
            let indices = batches.next().ok_or(crate::objective::Error::NoExamples)?;
            let batch = source.batch(&indices)?;
            let found = method.step(&current, source, &batch)?;
            if !found.loss.is_finite() {
                return Err(Error::Diverged {
                    epoch: epoch + 1,
                    step: step + 1,
                    what: "loss",
                    found: found.loss,
                });
            }
            sums.steps += 1;
            sums.loss += found.loss;
            if let Some(p) = found.perturbation {
                sums.perturbed += 1;
                sums.relative += p.relative;
                sums.capped += usize::from(p.capped);
                sums.eta += p.eta;
            }
            let layer = method.updated();
            let weights: Vec<Tensor> =
                layer.tensors.iter().map(|&i| current.weights.tensor(i).clone()).collect();
            let rate = schedule.rate(epoch * steps + step);
            let new = optimizer.step(&weights, &found.gradient, rate)?;
            for (&i, tensor) in layer.tensors.iter().zip(new) {
                current.weights.set(i, tensor);
            }
            after(indices.len(), None);
        }
        let seconds = clock.elapsed().as_secs_f64();
        let validation_loss = match validation {
            Some(examples) => {
                let losses = losses(&current.predict(examples)?, 1.0);
                Some(losses.iter().sum::<f64>() / losses.len() as f64)
            }
            None => None,
        };
        let of = |sum: f64| (sums.perturbed > 0).then(|| sum / sums.perturbed as f64);
        let line = Epoch {
            epoch: epoch + 1,
            training_loss: sums.loss / sums.steps.max(1) as f64,
            validation_loss,
            perturbation: of(sums.relative),
            capped: of(sums.capped as f64),
            eta: of(sums.eta),
            seconds,
        };
        after(0, Some(&line));
        log.push(line);
    }
    Ok((current.weights, log))
}
