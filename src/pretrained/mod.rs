//! The weights before fine-tuning, w⁰, under the parameters of the fine-tuned model, w.
//!
//! [`Pretrained::open`] reads them from a checkpoint of any layout. It may lack the head (a bare
//! backbone), have a head of other classes, or have another image size. [`interpolate`] and [`lines`]
//! move w towards w⁰.

mod fit;
mod interpolate;
mod position;

pub use fit::{Misfit, check_same, unknown_classes};
#[cfg(test)]
pub(crate) use interpolate::tests as test_weights;
pub use interpolate::{interpolate, lines};
pub use position::resized;

use crate::checkpoint::{Checkpoint, Error as CheckpointError, Load};
use crate::error::Result;
use crate::models::{Config, Weights};
use candle_core::Tensor;
use fit::{Counterpart, differing_class, fitting, other_computation, preprocessing};
use std::path::Path;

/// Weights before fine-tuning.
pub struct Pretrained {
    /// The checkpoint that they are from.
    pub checkpoint: Checkpoint,
    /// w⁰ under the parameters of the fine-tuned model; w where there is no counterpart.
    pub weights: Weights,
    /// The parameters that have a counterpart.
    pub moved: Vec<usize>,
    /// What was left out or changed, for users.
    pub notes: Vec<String>,
}

impl Pretrained {
    /// Reads the weights from which `tuned` was fine-tuned, with the options of `tuned`. An adapter does
    /// not apply. If nothing states the number of attention heads, it is that of `tuned`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open_backbone`]; [`Misfit`] with the first difference.
    pub fn open(path: &Path, tuned: &Checkpoint) -> Result<Self> {
        let (load, classes) = (tuned.loaded_with.without_adapter(), tuned.network.classes());
        let open = |load: &Load| {
            let open = |load: &Load| Checkpoint::open_backbone(path, load, classes);
            match open(load) {
                // An image size that was set for the fine-tuned model may not be that of w⁰.
                Err(CheckpointError::Contradiction { .. }) if load.image_size.is_some() => {
                    open(&Load { image_size: None, ..load.clone() })
                }
                other => other,
            }
        };
        match (open(&load), tuned.config.vit()) {
            // Tensors do not show the number of heads. Fine-tuning keeps it.
            (Err(CheckpointError::HeadsUnknown { .. }), Some(vit)) => {
                let heads = Some(vit.heads);
                let mut found = Self::of(open(&Load { heads, ..load })?, tuned)?;
                found.notes.push(format!(
                    "{}: it does not state its number of attention heads; assumed: {}, as in {}",
                    path.display(),
                    vit.heads,
                    tuned.path.display()
                ));
                Ok(found)
            }
            (other, _) => Self::of(other?, tuned),
        }
    }

    fn of(checkpoint: Checkpoint, tuned: &Checkpoint) -> Result<Self> {
        let head = tuned.network.blocks().pop().map_or(Vec::new(), |head| head.tensors);
        let path = checkpoint.path.display();
        let mut notes = Vec::new();
        let same_head = !checkpoint.headless
            && differing_class(tuned, &checkpoint).is_none()
            && checkpoint.network.classes() == tuned.network.classes();
        match (checkpoint.headless, same_head) {
            (true, _) => {
                notes.push(format!("{path}: it has no head, so the fine-tuned head stays"))
            }
            (false, false) => {
                notes.push(format!(
                    "{path}: its head has other classes, so the fine-tuned head stays"
                ));
            }
            (false, true) => notes.extend(unknown_classes(tuned, &checkpoint)),
        }
        if comparable(&tuned.config) != comparable(&checkpoint.config) {
            // Name the first tensor that differs, if there is one.
            fitting(tuned, &checkpoint, |i, _| kept(!same_head && head.contains(&i)))?;
            return Err(other_computation(tuned, &checkpoint).into());
        }
        // Another crop or filter does not matter, but weights for another normalisation do.
        let moments =
            |c: &Checkpoint| c.preprocess.as_ref().map(|p| (p.mean.clone(), p.std.clone()));
        if let (Some(own), Some(other)) = (moments(tuned), moments(&checkpoint))
            && own != other
        {
            return Err(preprocessing(tuned, &checkpoint).into());
        }
        let position = position(&checkpoint, tuned)?;
        if let Some((_, resized)) = &position {
            let [from, to] = [&checkpoint, tuned].map(|c| c.config.image_size());
            notes.push(format!(
                "{path}: its position embedding, for images of {}×{}, is resized to {} positions for \
                 {}×{}",
                from[0],
                from[1],
                resized.dim(1)?,
                to[0],
                to[1]
            ));
        }
        let found = fitting(tuned, &checkpoint, |i, _| match &position {
            Some((at, resized)) if *at == i => Counterpart::Changed(resized.clone()),
            _ => kept(!same_head && head.contains(&i)),
        })?;
        let moved = found.iter().map(|(i, _)| *i).collect();
        Ok(Self { weights: tuned.weights.with(&found), checkpoint, moved, notes })
    }
}

fn kept(left_out: bool) -> Counterpart {
    if left_out { Counterpart::None } else { Counterpart::Own }
}

/// The configuration without what may differ: the classes, and the image size where weights for one
/// size serve for another.
fn comparable(config: &Config) -> Config {
    let mut config = config.clone().with_classes(1);
    match &mut config {
        Config::Vit(vit) => vit.image_size = vit.patch_size,
        Config::ConvNext(convnext) => convnext.image_size = [0; 2],
        // Its MLPs over tokens are made for one number of patches.
        Config::Mixer(_) => {}
    }
    config
}

/// The index of the position embedding, and w⁰'s for the image size of `tuned`; `None` if both have
/// one grid of patches.
fn position(pretrained: &Checkpoint, tuned: &Checkpoint) -> Result<Option<(usize, Tensor)>> {
    let (Some(from), Some(to)) = (pretrained.config.vit(), tuned.config.vit()) else {
        return Ok(None);
    };
    let name = "pos_embed";
    match (tuned.weights.index(name), pretrained.weights.get(name)) {
        (Some(i), Some(embedding)) if from.stored_grid() != to.stored_grid() => {
            Ok(Some((i, resized(embedding, from, to)?)))
        }
        _ => Ok(None),
    }
}
