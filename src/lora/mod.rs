//! Training of low-rank adapters: which weights get one, the network that declares them, and how the
//! result is written. The mathematics is in [`crate::models::lora`].

pub use crate::train::LoraOptions;

use crate::checkpoint::{Checkpoint, ClassNames, NewAdapter, Provenance};
use crate::error::Result;
use crate::format::{count, number};
use crate::models::layers::{adapters, join, select};
use crate::models::lora::{self, Factors, LoraUpdate, Target, is_named};
use crate::models::{Granularity, Layer, Network, Weights};
use crate::objective::Objective;
use crate::options::Error as OptionsError;
use crate::train::recipe::Recipe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// New adapters of a model, ready to train.
pub struct Adapters {
    options: LoraOptions,
    rank: usize,
    updates: Vec<LoraUpdate>,
    /// The network with the adapters.
    pub network: Arc<Network>,
    /// Its weights at the start: those of the base, A and B.
    pub weights: Weights,
    /// Everything that is trained: the adapters and, unless it is frozen, the head.
    pub update: Layer,
    /// The head, if it is trained.
    head: Option<Layer>,
    /// Whether the head is a new one.
    new_head: bool,
}

/// The model that gets adapters.
pub struct Base<'a> {
    /// The checkpoint it comes from.
    pub checkpoint: &'a Checkpoint,
    /// The network. It may have another head than the checkpoint's.
    pub network: &'a Network,
    /// Its weights.
    pub weights: &'a Weights,
    /// Whether its head is a new one.
    pub new_head: bool,
    /// The option that names the layers.
    pub option: &'static str,
}

impl Adapters {
    /// Declares adapters on the linear layers of `layers`; `None` if the options ask for none.
    ///
    /// # Errors
    /// Layers without linear layers; a target that none of them has; a new head that is frozen; weights
    /// that peft has no adapters for, unless the result is merged.
    pub fn prepare(
        options: &LoraOptions,
        base: &Base,
        layers: &[Layer],
        seed: u64,
    ) -> Result<Option<Adapters>> {
        let updates = updates(options, base, layers)?;
        let (Some(rank), Some(updates)) = (options.lora, updates) else { return Ok(None) };
        let network = lora::adapted(base.network, &updates)?;
        let weights = lora::initial(&network, &updates, base.weights, seed)?;
        let head = network.blocks().pop().filter(|_| !options.freeze_head);
        let own = adapters(&network, Granularity::Block);
        let parts: Vec<Layer> = own.into_iter().chain(head.clone()).collect();
        Ok(Some(Adapters {
            options: options.clone(),
            rank,
            updates,
            update: join(&parts),
            weights,
            network: Arc::new(network),
            head,
            new_head: base.new_head,
        }))
    }

    /// Checks what [`Adapters::prepare`] would declare.
    ///
    /// # Errors
    /// Those of [`Adapters::prepare`].
    pub fn check(options: &LoraOptions, base: &Base, layers: &[Layer]) -> Result<()> {
        updates(options, base, layers).map(|_| ())
    }

    /// One sentence on what is trained.
    pub fn intention(&self) -> String {
        let head = match &self.head {
            Some(_) if self.new_head => "the new head is trained beside them",
            Some(_) => "the head is trained beside them",
            None => "the head is frozen",
        };
        format!(
            "{} of rank {} and scale {} on {} linear layers; {head}; {} parameters in total",
            if self.options.dora { "DoRA adapters" } else { "LoRA adapters" },
            self.rank,
            number(lora::scale(self.options.alpha(self.rank), self.rank, self.options.rslora)),
            self.updates.len(),
            count(self.parameters() as u64)
        )
    }

    /// Number of parameters that are trained.
    pub fn parameters(&self) -> usize {
        self.update.tensors.iter().map(|&i| self.weights.tensor(i).elem_count()).sum()
    }

    /// The model with adapters, and the recipe that trains them.
    pub(crate) fn of(&self, model: &Objective, recipe: &Recipe) -> (Objective, Recipe) {
        let (network, weights) = (self.network.clone(), self.weights.clone());
        let model = Objective { network, weights, ..model.clone() };
        (model, Recipe { update: self.update.clone(), ..recipe.clone() })
    }

    /// Whether the result is a whole checkpoint.
    pub fn merges(&self) -> bool {
        self.options.merge
    }

    /// The settings for the provenance of the result.
    pub fn settings(&self) -> serde_json::Value {
        let modules: Vec<String> = self.updates.iter().map(|u| u.target.module()).collect();
        serde_json::json!({
            "rank": self.rank,
            "alpha": self.options.alpha(self.rank),
            "rslora": self.options.rslora,
            "dora": self.options.dora,
            "modules": modules,
            "head": self.head.is_some(),
        })
    }

    /// The weights of the plain network with the adapters merged.
    ///
    /// # Errors
    /// Weights that are not those of the adapted network.
    pub fn merged(&self, base: &Network, weights: &Weights) -> Result<Weights> {
        Ok(lora::merged(base, &self.updates, weights)?)
    }

    /// Writes the adapters and the trained head as peft's adapter folder; returns the weights file.
    ///
    /// # Errors
    /// Those of [`Checkpoint::save_adapter`].
    pub fn save(
        &self,
        checkpoint: &Checkpoint,
        out: &Path,
        weights: &Weights,
        class_names: ClassNames,
        provenance: &Provenance,
    ) -> Result<PathBuf> {
        let numbers = self
            .updates
            .iter()
            .map(|update| Ok((update.target.clone(), lora::factors(update, weights)?)));
        let updates: Vec<(Target, Factors)> = numbers.collect::<Result<_>>()?;
        let tensors = self.head.iter().flat_map(|head| &head.tensors);
        let head = tensors.map(|&i| (weights.names()[i].clone(), weights.tensor(i).clone()));
        let new = NewAdapter {
            rank: self.rank,
            alpha: self.options.alpha(self.rank),
            rank_stabilised: self.options.rslora,
            magnitude: self.options.dora,
            updates,
            whole: head.collect(),
            class_names,
        };
        Ok(checkpoint.save_adapter(out, &new, provenance)?)
    }
}

/// Whether a layer, list or glob has linear layers that adapters can be declared on.
///
/// # Errors
/// No such layer.
pub fn can_adapt(network: &Network, layers: &str) -> Result<bool> {
    let chosen = join(&select(network, layers)?);
    Ok(lora::linear_layers(network).iter().any(|i| chosen.tensors.contains(i)))
}

/// The adapters that the options declare on these layers; `None` if they declare none.
fn updates(
    options: &LoraOptions,
    base: &Base,
    layers: &[Layer],
) -> Result<Option<Vec<LoraUpdate>>> {
    let Some(rank) = options.lora else { return Ok(None) };
    let conflict = |text: &str| Err(OptionsError::Conflict(text.into()).into());
    if options.freeze_head && base.new_head {
        return conflict(
            "`freeze_head` would leave the new head at its random values: omit `freeze_head`",
        );
    }
    if base.checkpoint.adapter().is_some() && !options.merge {
        return conflict(
            "a new adapter on top of another one (`adapter`) fits no checkpoint file: set \
             `merge` to write a whole checkpoint",
        );
    }
    let targets = targets(options, base, layers)?;
    let scale = lora::scale(options.alpha(rank), rank, options.rslora);
    let update = |target| LoraUpdate { target, rank, scale, magnitude: options.dora };
    let updates: Vec<LoraUpdate> = targets.into_iter().map(update).collect();
    if !options.merge {
        base.checkpoint.check_adapter(&updates)?;
    }
    Ok(Some(updates))
}

/// The targets of the adapters, in the network's order.
fn targets(options: &LoraOptions, base: &Base, layers: &[Layer]) -> Result<Vec<Target>> {
    let chosen = join(layers);
    let linear: Vec<&str> = lora::linear_layers(base.network)
        .into_iter()
        .filter(|i| chosen.tensors.contains(i))
        .map(|i| base.network.params()[i].name.as_str())
        .collect();
    let parts: Vec<(Target, Vec<String>)> =
        linear.iter().flat_map(|weight| base.checkpoint.adapter_targets(weight)).collect();
    if parts.is_empty() {
        let expected =
            "layers that contain linear layers, such as block.0 (the head is trained whole)";
        return Err(OptionsError::value(base.option, expected, chosen.name).into());
    }
    let Some(wanted) = &options.targets else {
        return Ok(parts.into_iter().map(|(target, _)| target).collect());
    };
    let is = |names: &[String], wanted: &str| names.iter().any(|name| is_named(name, wanted));
    let wanted: Vec<&str> = wanted.iter().map(|name| name.trim()).collect();
    if let Some(strange) = wanted.iter().find(|w| !parts.iter().any(|(_, names)| is(names, w))) {
        let mut known: Vec<&str> =
            parts.iter().flat_map(|(_, names)| names).map(|name| last(name)).collect();
        known.sort_unstable();
        known.dedup();
        let expected = format!("linear layers of {}: {}", chosen.name, known.join(", "));
        return Err(OptionsError::value("targets", expected, strange).into());
    }
    let matching = parts.into_iter().filter(|(_, names)| wanted.iter().any(|w| is(names, w)));
    Ok(matching.map(|(target, _)| target).collect())
}

/// The last part of a module's name.
fn last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}
