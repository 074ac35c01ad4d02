//! Averages of the weights over training: EMA and SWA, of the updated layer alone.
//!
//! - EMA: after every step, w̄ ← d w̄ + (1 − d) w. The first step sets w̄ = w, as
//!   `torch.optim.swa_utils.AveragedModel` with `get_ema_avg_fn(d)`.
//! - SWA (Izmailov et al., UAI 2018): the mean of the weights at the ends of the last N epochs.
//!
//! Once averaging has begun, the average is evaluated and kept after an epoch; training continues from the
//! weights themselves. Epochs before it are not kept.

use super::Result;
use crate::options::as_text;
use crate::vector;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// What is averaged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Average {
    /// Exponential moving average over steps, with decay d.
    Ema(f64),
    /// Mean over the last N epochs.
    Swa(usize),
}

impl Display for Average {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        match self {
            Average::Ema(decay) => write!(f, "ema:{decay}"),
            Average::Swa(epochs) => write!(f, "swa:{epochs}"),
        }
    }
}

impl FromStr for Average {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = match text.split_once(':') {
            Some(("ema", decay)) => decay
                .parse()
                .ok()
                .filter(|decay: &f64| (0.0..1.0).contains(decay))
                .map(Average::Ema),
            Some(("swa", epochs)) => {
                epochs.parse().ok().filter(|&epochs: &usize| epochs > 0).map(Average::Swa)
            }
            _ => None,
        };
        found.ok_or_else(|| {
            "expected ema:DECAY with a decay from 0 to less than 1, or swa:EPOCHS, as in ema:0.999 or \
             swa:5"
                .into()
        })
    }
}

impl Serialize for Average {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        as_text::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Average {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        as_text::deserialize(from)
    }
}

/// An average in progress.
#[derive(Debug)]
pub struct Averager {
    of: Average,
    epochs: usize,
    taken: usize,
    mean: Vec<Tensor>,
}

impl Averager {
    /// An average over a run of this many epochs, before its first step.
    pub fn new(of: Average, epochs: usize) -> Self {
        Self { of, epochs, taken: 0, mean: Vec::new() }
    }

    /// After a step.
    ///
    /// # Errors
    /// Tensors that do not fit those of the first step.
    pub fn step(&mut self, weights: &[Tensor]) -> Result<()> {
        match self.of {
            Average::Ema(decay) => self.take(weights, 1.0 - decay),
            Average::Swa(_) => Ok(()),
        }
    }

    /// After an epoch, from 1.
    ///
    /// # Errors
    /// Tensors that do not fit those of earlier epochs.
    pub fn epoch(&mut self, epoch: usize, weights: &[Tensor]) -> Result<()> {
        match self.of {
            Average::Swa(last) if epoch + last > self.epochs => {
                self.take(weights, 1.0 / (self.taken + 1) as f64)
            }
            _ => Ok(()),
        }
    }

    /// The average, once it has begun.
    pub fn mean(&self) -> Option<&[Tensor]> {
        (self.taken > 0).then_some(&self.mean[..])
    }

    /// w̄ ← w̄ + share (w − w̄).
    fn take(&mut self, weights: &[Tensor], share: f64) -> Result<()> {
        self.mean = match self.taken {
            0 => weights.to_vec(),
            _ => {
                let away = vector::add_scaled(weights, -1.0, &self.mean)?;
                vector::add_scaled(&self.mean, share, &away)?
            }
        };
        self.taken += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn of(values: &[f64]) -> Vec<Tensor> {
        vec![Tensor::new(values, &Device::Cpu).unwrap()]
    }

    fn mean(averager: &Averager) -> Vec<f64> {
        averager.mean().unwrap()[0].to_vec1().unwrap()
    }

    /// `AveragedModel(…, avg_fn=get_ema_avg_fn(0.9))` of torch 2.7 on the weights 1, 2, 4.
    #[test]
    fn an_ema_starts_at_the_first_step() {
        let mut averager = Averager::new(Average::Ema(0.9), 1);
        assert!(averager.mean().is_none());
        for (weight, expected) in [(1.0, 1.0), (2.0, 1.1), (4.0, 1.39)] {
            averager.step(&of(&[weight])).unwrap();
            averager.epoch(1, &of(&[100.0])).unwrap();
            assert!((mean(&averager)[0] - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn swa_is_the_mean_of_the_last_epochs() {
        let mut averager = Averager::new(Average::Swa(3), 5);
        for epoch in 1..=5 {
            averager.step(&of(&[100.0])).unwrap();
            averager.epoch(epoch, &of(&[(epoch * epoch) as f64])).unwrap();
            assert_eq!(averager.mean().is_some(), epoch > 2);
        }
        assert!((mean(&averager)[0] - (9.0 + 16.0 + 25.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn texts_are_read_and_written() {
        for text in ["ema:0.999", "swa:5"] {
            assert_eq!(text.parse::<Average>().unwrap().to_string(), text);
        }
        for text in ["ema", "ema:1", "ema:x", "swa:0", "swa:1.5", "mean:3", ""] {
            assert!(text.parse::<Average>().unwrap_err().contains("ema:0.999"), "{text}");
        }
    }
}
