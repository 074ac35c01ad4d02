//! A late phase: one method for the first steps of a run, another for the rest.
//!
//! SAM in the last few epochs alone gives nearly the result of SAM throughout (Zhou, Wang, Mao, Li, Yan,
//! "Sharpness-aware minimization efficiently selects flatter minima late in training", ICLR 2025).

use super::method::{Method, Step};
use super::sam::Sam;
use super::sgd::Sgd;
use super::source::Source;
use crate::models::Layer;
use crate::objective::{Activations, Objective, Result};

/// Plain gradients first, then those of SAM. The optimizer and its state are the same throughout.
pub struct LateSam {
    /// The first steps.
    pub first: Sgd,
    /// The steps after them, on the same layers.
    pub last: Sam,
    /// Number of first steps that remain.
    pub remaining: usize,
}

impl Method for LateSam {
    fn name(&self) -> &'static str {
        self.last.name()
    }

    fn updated(&self) -> &Layer {
        self.first.updated()
    }

    fn step(&mut self, model: &Objective, source: &Source, batch: &Activations) -> Result<Step> {
        if self.remaining > 0 {
            self.remaining -= 1;
            return self.first.step(model, source, batch);
        }
        self.last.step(model, source, batch)
    }
}
