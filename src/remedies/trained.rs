//! Directions from training: the displacement of each layer in one epoch of SGD or PoL on this layer
//! alone. Only the step length is then chosen on V.

use super::Remedy;
use super::direction::Direction;
use crate::cache::{About, CacheMode, StoragePlan};
use crate::error::Result;
use crate::forecast::Operations;
use crate::models::layers::{join, select};
use crate::models::{Layer, Network, cost};
use crate::objective::{Examples, Objective};
use crate::options::{self, check};
use crate::pixels::Pixels;
use crate::session::Context;
use crate::train::options::LineOptions;
use crate::train::perturbation::StepRule;
use crate::train::recipe::{Recipe, ResolvedMethod, default_rule};
use crate::train::run::{TrainEvent, train};
use crate::train::source::Source;
use crate::train::{Keep, LoraOptions, OptimizerRule, Prefix, StopRule, TrainOptions};
use candle_core::Tensor;
use std::fmt::{Display, Formatter};

/// The settings of the epoch. All others are the defaults of post-training: batches of 128, momentum
/// 0.9, a learning rate that falls to 0 on a cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedEpoch {
    /// Highest learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Name of the layer that PoL perturbs; `None` for plain SGD.
    pub perturb: Option<String>,
}

/// The layer that `perturbed` perturbs by default, as PoF does.
const PERTURBED: &str = "head";

impl TrainedEpoch {
    /// `train` or `perturbed`.
    pub fn name(&self) -> &'static str {
        if self.perturb.is_some() { "perturbed" } else { "train" }
    }

    /// Reads the text form; `None` if the text begins with another name.
    pub(super) fn parse(text: &str) -> Option<std::result::Result<Self, String>> {
        let mut parts = text.split(':');
        let perturb = match parts.next()? {
            "train" => None,
            "perturbed" => Some(PERTURBED.to_owned()),
            _ => return None,
        };
        let TrainOptions { lr, weight_decay, .. } = TrainOptions::default();
        let mut out = Self { lr, weight_decay, perturb };
        let read = parts.try_for_each(|part| out.set(part));
        Some(read.map(|()| out))
    }

    /// Sets one option from `key=value`.
    fn set(&mut self, part: &str) -> std::result::Result<(), String> {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let number = || value.parse::<f64>().map_err(|_| format!("\"{part}\": expected a number"));
        let told = |error: options::Error| error.to_string();
        match (key, &mut self.perturb) {
            ("lr", _) => {
                self.lr = number()?;
                check::positive("lr", self.lr).map_err(told)
            }
            ("weight-decay", _) => {
                self.weight_decay = number()?;
                check::not_negative("weight_decay", self.weight_decay).map_err(told)
            }
            ("perturb", Some(layer)) if !value.is_empty() => {
                value.clone_into(layer);
                Ok(())
            }
            (_, None) => Err(format!("\"{part}\": `train` takes `lr` and `weight-decay`")),
            (_, Some(_)) => {
                Err(format!("\"{part}\": `perturbed` takes `perturb`, `lr` and `weight-decay`"))
            }
        }
    }

    /// The method that trains a layer.
    fn recipe(&self, network: &Network, update: &Layer) -> Result<Recipe> {
        let line = LineOptions::default();
        let perturb = match &self.perturb {
            Some(name) => Some(join(&select(network, name)?)),
            None => None,
        };
        Ok(Recipe {
            method: match perturb {
                Some(_) => ResolvedMethod::Pol,
                None => ResolvedMethod::Sgd,
            },
            update: update.clone(),
            gamma: line.gamma,
            perturb_batch: line.perturb_batch,
            perturb_replacement: line.perturb_replacement,
            no_minimum: line.no_minimum,
            rule: perturb.as_ref().map_or(StepRule::Search, |p| default_rule(network, p)),
            rho: 0.0,
            lora: LoraOptions::default(),
            perturb,
        })
    }

    /// Rejects layers that share tensors: each would overwrite the other's displacement.
    ///
    /// # Errors
    /// Two layers with a common tensor.
    pub(super) fn check_layers(&self, layers: &[Layer]) -> Result<()> {
        let mut tensors: Vec<usize> = layers.iter().flat_map(|l| l.tensors.clone()).collect();
        tensors.sort_unstable();
        match tensors.windows(2).any(|pair| pair[0] == pair[1]) {
            true => {
                let text = format!("{self}: the layers share tensors; name layers that do not");
                Err(options::Error::Conflict(text).into())
            }
            false => Ok(()),
        }
    }

    /// Operations of the epochs of these layers, per training image.
    pub(super) fn work(&self, network: &Network, layers: &[Layer]) -> Result<Operations> {
        let mut gradient = 0.0;
        for layer in layers {
            let recipe = self.recipe(network, layer)?;
            let batch = TrainOptions::default().batch_size;
            // B′ passes the frozen layers too.
            let ratio = recipe.perturb.as_ref().map_or(0.0, |_| recipe.perturb_batch as f64);
            let frozen = cost::forward(network, 0..recipe.first_stage());
            gradient += (1.0 + ratio / batch as f64) * frozen + recipe.work(network, batch);
        }
        Ok(Operations { gradient, ..Operations::default() })
    }

    /// Trains each layer for one epoch, always from the weights of `model`. A layer whose training
    /// diverges is left out, with a note.
    ///
    /// # Errors
    /// A layer to perturb that does not exist; unreadable images; those of evaluating the model.
    pub(super) fn direction(
        &self,
        model: &Objective,
        layers: &[Layer],
        images: &Pixels,
        context: &Context,
    ) -> Result<Direction> {
        let (network, remedy) = (&model.network, Remedy::Train(self.clone()));
        let mut tensors: Vec<usize> = layers.iter().flat_map(|l| l.tensors.clone()).collect();
        tensors.sort_unstable();
        let (usual, _) = TrainOptions::default().fitted_to(images.len());
        let train_options =
            TrainOptions { epochs: 1, lr: self.lr, weight_decay: self.weight_decay, ..usual };
        let optimizer = OptimizerRule::Sgd { momentum: train_options.momentum, nesterov: false };
        let settings =
            train_options.settings(optimizer, Keep::Last, StopRule::Exploded, context.seed);
        let total = images.len().saturating_mul(layers.len());
        let task = context.task(self.name(), total as u64, "images");
        let (mut target, mut notes) = (model.weights.clone(), Vec::new());
        for layer in layers {
            task.status(&layer.name);
            let mut recipe = self.recipe(network, layer)?;
            recipe.perturb_batch = recipe.perturb_batch.min(images.len());
            let views: Vec<&dyn Examples> = vec![images];
            let prefix = Prefix::new(model, views, recipe.first_stage(), false);
            // One epoch does not repay the memory or the file for frozen activations.
            let plan = StoragePlan::without_files(CacheMode::Off, 0);
            let source = Source::open(prefix, &plan, &|_| About::default(), &mut |_| {})?;
            let mut method = recipe.build(network, images.len(), settings.seed)?;
            let mut tell = |event: TrainEvent| {
                if let TrainEvent::Step { examples, .. } = event {
                    task.advance(examples as u64);
                }
            };
            let outcome = train(model, &mut *method, &source, None, &settings, &mut tell)?;
            if let Some(stopped) = outcome.stopped {
                let name = &layer.name;
                notes.push(format!("{remedy}: {name} is left out: {stopped}"));
                tensors.retain(|i| !layer.tensors.contains(i));
                continue;
            }
            let moved: Vec<(usize, Tensor)> =
                layer.tensors.iter().map(|&i| (i, outcome.weights.tensor(i).clone())).collect();
            target = target.with(&moved);
        }
        Ok(Direction { remedy, target, tensors, checkpoint: None, notes })
    }
}

impl Display for TrainedEpoch {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let usual = TrainOptions::default();
        write!(f, "{}", self.name())?;
        if let Some(perturb) = self.perturb.as_ref().filter(|name| *name != PERTURBED) {
            write!(f, ":perturb={perturb}")?;
        }
        if self.lr != usual.lr {
            write!(f, ":lr={}", self.lr)?;
        }
        if self.weight_decay != usual.weight_decay {
            write!(f, ":weight-decay={}", self.weight_decay)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let read = |text| TrainedEpoch::parse(text).unwrap();
        let found = read("perturbed:lr=0.3:perturb=norm:weight-decay=0.01").unwrap();
        let perturb = Some("norm".to_owned());
        assert_eq!(found, TrainedEpoch { lr: 0.3, weight_decay: 0.01, perturb });
        assert_eq!(read("train").unwrap().to_string(), "train");
        assert!(TrainedEpoch::parse("decay").is_none());
        for wrong in ["train:lr", "train:lr=0", "train:lr=x", "train:perturb=head", "train:rate=1"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
