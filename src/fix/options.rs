//! Options of a fix.

use crate::options::{Error, Limit, check};
use crate::remedies::Remedy;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Options of a fix. These are also the flags of `fix`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Fixing options"))]
pub struct FixOptions {
    /// Weights before fine-tuning, towards which layers are moved: a checkpoint with any head, or a
    /// backbone without one. Its position embedding is resized to the image size
    #[cfg_attr(feature = "cli", arg(long, value_name = "CKPT0"))]
    pub pretrained: Option<PathBuf>,
    /// Also try moves along one epoch of training of each layer: train (SGD) or perturbed (PoL),
    /// with settings as in train:lr=0.03.
    ///
    /// The step length is chosen on V. Each round trains every layer from the current weights.
    #[cfg_attr(feature = "cli", arg(long, value_name = "train,perturbed", value_delimiter = ','))]
    pub also: Vec<Remedy>,
    /// Time limit of the whole command, as in 90s, 10m or 2h [default: no limit].
    ///
    /// The search measures all moves, applies the best and repeats. If one round would exceed the
    /// budget, it uses fewer images of V. A round starts only if the round and
    /// the final measurements are expected to finish in time.
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "TIME", value_parser = crate::options::text::seconds)
    )]
    pub budget: Option<f64>,
    /// Memory limit.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub limit: Limit,
}

impl FixOptions {
    /// Rejects values out of range.
    ///
    /// # Errors
    /// The first invalid option.
    pub fn check(&self) -> Result<(), Error> {
        if let Some(remedy) = self.also.iter().find(|r| !matches!(r, Remedy::Train(_))) {
            return Err(Error::value("also", "train or perturbed", remedy));
        }
        self.budget.map_or(Ok(()), |seconds| check::positive("budget", seconds))
    }

    /// The directions that layers are moved along.
    pub fn remedies(&self) -> Vec<Remedy> {
        let toward = self.pretrained.iter().cloned().map(Remedy::Toward);
        toward.chain([Remedy::Decay]).chain(self.also.iter().cloned()).collect()
    }
}
