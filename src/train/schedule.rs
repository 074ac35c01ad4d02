//! Learning rates over a run.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Shape {
    /// η/2 · (1 + cos(π t / T)): from η down to 0 (Loshchilov and Hutter, ICLR 2017).
    Cosine,
    /// η throughout.
    Constant,
    /// η (1 − t / T): from η down to 0.
    Linear,
}

impl Shape {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Cosine => "cosine",
            Shape::Constant => "constant",
            Shape::Linear => "linear",
        }
    }
}

/// A learning rate for each step of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The shape.
    pub shape: Shape,
    /// η, the highest rate.
    pub rate: f64,
    /// Steps over which the rate first rises linearly to η.
    pub warmup: usize,
    /// Steps of the whole run, including the warm-up.
    pub steps: usize,
}

impl Schedule {
    /// The schedule of a run of `epochs` epochs with `per_epoch` steps each. The first `warmup`
    /// epochs, which may be fractional, are the warm-up.
    ///
    /// # Errors
    /// [`Error::TooLong`] for more steps than can be counted.
    pub fn over(
        shape: Shape,
        rate: f64,
        warmup: f64,
        epochs: usize,
        per_epoch: usize,
    ) -> Result<Self> {
        let steps =
            per_epoch.checked_mul(epochs).ok_or(Error::TooLong { epochs, steps: per_epoch })?;
        // A product beyond the range of integers saturates: the warm-up then never ends.
        let warmup = (warmup * per_epoch as f64).round() as usize;
        Ok(Self { shape, rate, warmup, steps })
    }

    /// The rate of step `step`, from 0. During warm-up it is η (step + 1) / warmup. After it, t
    /// counts from 0 and T is the number of remaining steps, so that 0 would be reached one step
    /// after the end.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.rate * (step + 1) as f64 / self.warmup as f64;
        }
        let length = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let part = ((step - self.warmup) as f64 / length).min(1.0);
        match self.shape {
            Shape::Constant => self.rate,
            Shape::Linear => self.rate * (1.0 - part),
            // libm's cosine is the same on every machine.
            Shape::Cosine => 0.5 * self.rate * (1.0 + libm::cos(PI * part)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_then_fall_along_a_cosine() {
        let schedule = Schedule { shape: Shape::Cosine, rate: 0.4, warmup: 4, steps: 10 };
        let near = |step: usize, expected: f64| {
            assert!((schedule.rate(step) - expected).abs() < 1e-12, "{step}");
        };
        [(0, 0.1), (1, 0.2), (3, 0.4), (4, 0.4), (6, 0.3), (7, 0.2), (8, 0.1), (10, 0.0)]
            .into_iter()
            .for_each(|(step, rate)| near(step, rate));
        near(100, 0.0);
    }

    #[test]
    fn rates_fall_linearly_after_a_warm_up_in_epochs() {
        let schedule = Schedule::over(Shape::Linear, 0.4, 0.5, 2, 4).unwrap();
        assert_eq!((schedule.warmup, schedule.steps), (2, 8));
        for (step, rate) in [(0, 0.2), (1, 0.4), (2, 0.4), (5, 0.2), (8, 0.0), (9, 0.0)] {
            assert!((schedule.rate(step) - rate).abs() < 1e-12, "{step}");
        }
        let endless = Schedule::over(Shape::Cosine, 0.1, 0.0, usize::MAX, 2);
        assert!(matches!(endless, Err(Error::TooLong { steps: 2, .. })));
    }

    #[test]
    fn constant_rates_and_empty_runs() {
        let constant = Schedule { shape: Shape::Constant, rate: 0.1, warmup: 0, steps: 5 };
        assert!((0..5).all(|step| constant.rate(step) == 0.1));
        let none = Schedule { shape: Shape::Cosine, rate: 0.1, warmup: 0, steps: 0 };
        assert_eq!((none.rate(0), none.rate(1)), (0.1, 0.0));
        let all = Schedule { shape: Shape::Cosine, rate: 0.25, warmup: 3, steps: 3 };
        assert_eq!(all.rate(2), 0.25);
    }
}
