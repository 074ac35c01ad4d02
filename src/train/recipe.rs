//! A method with its layers and settings, before it meets any data.

use super::method::Method;
use super::perturbation::{Perturber, Rule};
use super::pof::Pof;
use super::pol::Pol;
use super::sgd::Sgd;
use crate::objective::Result;
use crate::vit::{Config, Layer};

/// The methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Perturb p, update u.
    Pol,
    /// Perturb the head, update all else.
    Pof,
    /// Update u, perturb nothing.
    Sgd,
}

impl Kind {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pol => "pol",
            Kind::Pof => "pof",
            Kind::Sgd => "sgd",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The method.
    pub kind: Kind,
    /// What is updated.
    pub update: Layer,
    /// What is perturbed; nothing for SGD.
    pub perturb: Option<Layer>,
    /// Γ.
    pub gamma_max: f64,
    /// Examples in B′.
    pub perturbation_batch: usize,
    /// How η* is found.
    pub rule: Rule,
}

/// How η* is found unless the user says: where a point of the line costs a forward pass of much of
/// the network, by one Hessian-vector product, else by search.
pub fn default_rule(config: &Config, perturb: &Layer) -> Rule {
    // The last block begins at stage 2L − 1.
    if perturb.first_stage + 1 < 2 * config.depth { Rule::Newton } else { Rule::Search }
}

impl Recipe {
    /// The lowest stage that is touched; all below is frozen.
    pub fn first_stage(&self) -> usize {
        let perturbed = self.perturb.as_ref().map_or(usize::MAX, |p| p.first_stage);
        self.update.first_stage.min(perturbed)
    }

    /// The method, ready to draw from `examples` training examples.
    ///
    /// # Errors
    /// A batch B′ of 0, or larger than the training set.
    pub fn method(&self, examples: usize, seed: u64) -> Result<Box<dyn Method>> {
        let update = self.update.clone();
        let Some(perturb) = &self.perturb else { return Ok(Box::new(Sgd { update })) };
        let perturber = Perturber::new(
            perturb.clone(),
            self.gamma_max,
            self.rule,
            examples,
            self.perturbation_batch.min(examples),
            seed,
        )?;
        Ok(match self.kind {
            Kind::Pof => Box::new(Pof { features: update, perturber }),
            Kind::Pol | Kind::Sgd => Box::new(Pol { update, perturber }),
        })
    }
}
