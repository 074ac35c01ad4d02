//! When training is stopped, and which weights are kept.
//!
//! A run is stopped as soon as a step's loss or gradient is not finite. Under
//! [`StopRule::Exploded`] it is also stopped when a loss has exploded. A loss has exploded if it
//! exceeds max(3 L₀, ln C + 1), where L₀ is the loss at the start and C the number of classes.
//! Uniform guessing has loss ln C, so a loss one nat above that is worse than guessing. If the loss
//! is high from the start, as with noisy labels, it may still triple.
//!
//! Both the training and the validation loss are checked. The training loss is the mean of the last
//! [`WINDOW`] steps, at the point where the method computes its gradient; its L₀ is the first
//! step's loss. The validation loss is checked at the end of each epoch.

use crate::objective::Error as Unevaluated;
use crate::predictions::Error as Unscored;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;

/// Steps averaged for the training loss, since single batches are noisy.
pub const WINDOW: usize = 20;

/// Which weights a run returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Keep {
    /// the epoch with the lowest validation loss
    Best,
    /// the last epoch
    Last,
}

/// When a run is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopRule {
    /// When a number is not finite, or a loss has exploded. For models that are good at the start.
    #[default]
    Exploded,
    /// Only when a number is not finite. A new model may have a high loss that falls again.
    NotFinite,
}

/// Why a run was stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// `training loss`, `gradient norm`, `weights' norm` or `validation loss`.
    pub what: String,
    /// The value; `None` if it is not finite.
    pub found: Option<f64>,
    /// The limit; `None` if any finite number is allowed.
    pub limit: Option<f64>,
}

/// Where and why a run was stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Step in the epoch, from 1.
    pub step: usize,
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Reason { what, found, limit } = &self.reason;
        write!(f, "training was stopped in epoch {}, step {}: the {what}", self.epoch, self.step)?;
        match (found, limit) {
            (Some(found), Some(limit)) => write!(f, " is {found:.4}, above the limit {limit:.4}"),
            _ => write!(f, " is not a finite number"),
        }
    }
}

impl Reason {
    /// A value that is not a finite number.
    pub fn not_finite(what: &str) -> Self {
        Self { what: what.into(), found: None, limit: None }
    }

    /// The reason contained in an error, if it says that a loss or a logit is not finite.
    pub fn of(error: &Unevaluated) -> Option<Self> {
        match error {
            Unevaluated::NonFinite { .. }
            | Unevaluated::Predictions(Unscored::NotFinite { .. }) => {
                Some(Self::not_finite("training loss"))
            }
            _ => None,
        }
    }
}

/// The limits for one run's losses.
#[derive(Clone, Debug)]
pub struct Guard {
    rule: StopRule,
    guessing: f64,
    training_limit: Option<f64>,
    validation_limit: Option<f64>,
    recent: VecDeque<f64>,
}

impl Guard {
    /// A guard for a model with `classes` classes. `validation` is the validation loss at the
    /// start, if there are validation images.
    pub fn new(rule: StopRule, classes: usize, validation: Option<f64>) -> Self {
        let guessing = libm::log(classes.max(1) as f64);
        Self {
            rule,
            guessing,
            training_limit: None,
            validation_limit: validation.map(|loss| limit(loss, guessing)),
            recent: VecDeque::with_capacity(WINDOW),
        }
    }

    /// Checks a step by its loss and gradient norm. The mean of the latest losses is checked once
    /// there are [`WINDOW`] of them, or when an epoch ends.
    pub fn step(&mut self, loss: f64, norm: f64, ends_epoch: bool) -> Option<Reason> {
        for (what, value) in [("training loss", loss), ("gradient norm", norm)] {
            if !value.is_finite() {
                return Some(Reason::not_finite(what));
            }
        }
        if self.rule == StopRule::NotFinite {
            return None;
        }
        let most = *self.training_limit.get_or_insert(limit(loss, self.guessing));
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(loss);
        let mean = self.recent.iter().sum::<f64>() / self.recent.len() as f64;
        let full = self.recent.len() == WINDOW;
        ((full || ends_epoch) && mean > most).then(|| exploded("training loss", mean, most))
    }

    /// Checks an epoch by its validation loss.
    pub fn epoch(&self, validation: f64) -> Option<Reason> {
        if !validation.is_finite() {
            return Some(Reason::not_finite("validation loss"));
        }
        let most = self.validation_limit.filter(|_| self.rule == StopRule::Exploded)?;
        (validation > most).then(|| exploded("validation loss", validation, most))
    }
}

fn limit(start: f64, guessing: f64) -> f64 {
    (3.0 * start).max(guessing + 1.0)
}

fn exploded(what: &str, found: f64, limit: f64) -> Reason {
    Reason { what: what.into(), found: Some(found), limit: Some(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_up_to_the_limit_are_accepted() {
        // ln 10 + 1 is 3.3026; three times 1.5 is more.
        for (start, most) in [(0.1, 3.302585), (1.5, 4.5)] {
            let mut guard = Guard::new(StopRule::Exploded, 10, Some(start));
            assert_eq!(guard.step(start, 1.0, false), None);
            assert_eq!(guard.epoch(most - 1e-6), None);
            let reason = guard.epoch(most + 1e-6).unwrap();
            assert!((reason.limit.unwrap() - most).abs() < 1e-6);
            assert_eq!(reason.what, "validation loss");
        }
        assert_eq!(Guard::new(StopRule::Exploded, 10, None).epoch(1e9), None);
    }

    #[test]
    fn only_repeated_high_losses_stop_training() {
        let mut guard = Guard::new(StopRule::Exploded, 10, None);
        guard.step(0.1, 1.0, false);
        // The mean of 20 losses exceeds 3.3026 when seven of them are 10 and thirteen 0.1.
        let bad = (0..20).position(|_| guard.step(10.0, 1.0, false).is_some());
        assert_eq!(bad, Some(18), "the window is full at the nineteenth step");
        let mut guard = Guard::new(StopRule::Exploded, 10, None);
        (0..40).for_each(|_| assert_eq!(guard.step(0.1, 1.0, true), None));
        let bad = (1..20).find(|_| guard.step(10.0, 1.0, false).is_some());
        assert_eq!(bad, Some(7));
        // A short epoch is judged by the losses it has.
        let mut guard = Guard::new(StopRule::Exploded, 10, None);
        assert_eq!(guard.step(0.1, 1.0, false), None);
        assert!(guard.step(10.0, 1.0, true).is_some());
    }

    #[test]
    fn a_new_model_may_have_any_finite_loss() {
        let mut guard = Guard::new(StopRule::NotFinite, 10, Some(0.1));
        (0..40).for_each(|i| assert_eq!(guard.step(f64::from(i), 1.0, true), None));
        assert_eq!(guard.epoch(1e9), None);
        assert_eq!(guard.epoch(f64::NAN), Some(Reason::not_finite("validation loss")));
        assert_eq!(guard.step(f64::NAN, 1.0, false), Some(Reason::not_finite("training loss")));
    }

    #[test]
    fn non_finite_values_stop_at_once() {
        let mut guard = Guard::new(StopRule::Exploded, 10, Some(0.1));
        assert_eq!(guard.step(f64::NAN, 1.0, false), Some(Reason::not_finite("training loss")));
        let norm = guard.step(0.1, f64::INFINITY, false);
        assert_eq!(norm, Some(Reason::not_finite("gradient norm")));
        assert_eq!(guard.epoch(f64::NAN), Some(Reason::not_finite("validation loss")));
        let stopped = Stopped { epoch: 2, step: 7, reason: Reason::not_finite("training loss") };
        let expected = "in epoch 2, step 7: the training loss is not a finite number";
        assert!(stopped.to_string().contains(expected), "{stopped}");
    }
}
