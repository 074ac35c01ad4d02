//! Moves of layers along directions that the validation images did not choose: towards the weights
//! before fine-tuning, towards 0, or along the displacement of one epoch of training.
//!
//! For w_ℓ + α (w⁰_ℓ − w_ℓ), only the scalar α is fitted on V, so gains on V and on new images nearly
//! agree, and the measured move *is* the tuned model. Each layer is moved alone. All layers are moved
//! together by one α (WiSE-FT) and by LiNeS' schedule, and so is every prefix and suffix of layers.
//!
//! α is the best of two points and of one that a parabola through them predicts, by the NLL after a
//! temperature. [`RemedySession`] opens the directions and measures all moves.

mod direction;
mod figures;
mod findings;
mod forecast;
mod grid;
mod remedy;
mod search;
mod trained;

pub use direction::Direction;
pub use findings::{MoveForm, MoveFound, MoveGains, MovePoint, OnV, RemedyFindings};
pub use forecast::remedies_work;
pub use remedy::Remedy;
pub use trained::TrainedEpoch;

pub(crate) use search::{Move, Searched};

use search::Search;

use crate::checkpoint::Checkpoint;
use crate::data::{Role, Roles, require};
use crate::error::Result;
use crate::forecast::{Calibration, Need, Operations};
use crate::models::{Layer, Network, Weights};
use crate::objective::{Examples, Objective};
use crate::pixels::Pixels;
use crate::session::{Context, held_out, pixels, seen};
use std::sync::Arc;

/// The directions of a checkpoint's remedies, and the layers to move.
pub struct RemedySession {
    /// One for each remedy that needs no training.
    pub directions: Vec<Arc<Direction>>,
    /// The epochs whose displacements are directions, found anew at the weights of each search.
    pub epochs: Vec<TrainedEpoch>,
    /// The images they are trained on.
    pub training: Option<Pixels>,
    /// The layers to move alone.
    pub layers: Vec<Layer>,
    /// The layers to move together, from input to output; empty for no joint moves.
    pub joint: Vec<Layer>,
    /// What was left out, and whether a target has seen images of V.
    pub notes: Vec<String>,
}

impl RemedySession {
    /// Opens the directions for a checkpoint.
    ///
    /// # Errors
    /// A target that cannot be read or does not belong to `tuned`; no training images for an epoch.
    pub fn open(
        remedies: &[Remedy],
        tuned: &Checkpoint,
        roles: &Roles,
        layers: Vec<Layer>,
        joint: Vec<Layer>,
    ) -> Result<Self> {
        let (mut directions, mut epochs, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let held = held_out(tuned).filter(|_| roles.held_out);
        for remedy in remedies {
            let direction = match remedy {
                Remedy::Toward(path) => Direction::toward(path, tuned)?,
                Remedy::Decay => Direction::decay(tuned)?,
                Remedy::Train(epoch) => {
                    epoch.check_layers(&layers)?;
                    epochs.push(epoch.clone());
                    continue;
                }
            };
            notes.extend(direction.notes.iter().cloned());
            let made_from = |target: &Checkpoint| {
                let parent = Some(tuned.digest.as_str());
                target.history.iter().any(|step| step.parent_digest.as_deref() == parent)
            };
            if let Some(target) = direction.checkpoint.as_ref().filter(|target| made_from(target)) {
                notes.push(format!(
                    "{} was made from {}: the two may be swapped",
                    target.path.display(),
                    tuned.path.display()
                ));
            }
            if let (Some(held), Some(target)) = (&held, &direction.checkpoint) {
                notes.extend(seen(target, held));
            }
            directions.push(Arc::new(direction));
        }
        let training = match epochs.is_empty() {
            true => None,
            false => Some(pixels(tuned, require(Role::Train, roles.train.as_ref())?)?),
        };
        let session = Self { directions, epochs, training, layers, joint, notes };
        // A layer to perturb that does not exist is an error now.
        session.training_work(&tuned.network)?;
        Ok(session)
    }

    /// Time and memory of a search on so many images, at most.
    pub fn need(&self, model: &Objective, images: usize, found: &Calibration) -> Need {
        let network = &model.network;
        let held = self.held_mib(network, images);
        let trained = self.training.as_ref().map_or(0, Examples::len);
        // `open` has resolved the layers.
        let epochs = self.training_work(network).unwrap_or_default();
        let seconds = found.seconds(remedies_work(network, self), images);
        Need {
            seconds: seconds + found.seconds(epochs, trained),
            mib: found.peak_mib.max(found.resident_mib + found.wave_mib + held),
        }
    }

    /// Operations of all epochs, per training image.
    ///
    /// # Errors
    /// A layer to perturb that does not exist.
    pub(crate) fn training_work(&self, network: &Network) -> Result<Operations> {
        let mut gradient = 0.0;
        for epoch in &self.epochs {
            gradient += epoch.work(network, &self.layers)?.gradient;
        }
        Ok(Operations { gradient, ..Operations::default() })
    }

    /// Memory held besides the passes themselves, MiB: inputs of the model as it is, of the moved one, and
    /// the next ones; moved weights, and the f64 numbers of the tensor that is moved; logits.
    pub fn held_mib(&self, network: &Network, images: usize) -> f64 {
        let stages = || self.layers.iter().chain(&self.joint).map(|layer| layer.first_stage);
        let len = |stage: Option<usize>| stage.map_or(0, |stage| network.activation_len(stage));
        let lowest = stages().min();
        let above = stages().filter(|stage| Some(*stage) > lowest);
        let inner = above.map(|stage| network.activation_len(stage)).max().unwrap_or(0);
        let joint = if self.moved_together() > 0 { self.joint.len() } else { 0 };
        // With joint moves also the next ones, and one of another size that the allocator keeps.
        let inputs = len(lowest) + if joint > 1 { 3 } else { 1 } * inner;
        // A direction of an epoch has its own weights.
        let weights = self.moved_len(network) + self.epochs.len() * network.parameters();
        // Of all prefixes at two α; of a move's three points, whole and in halves; of the start.
        let logits = (2 * joint + 2 * 3 + 1) * images * network.classes();
        let tensors = network.params().iter().map(|p| p.shape.iter().product::<usize>());
        // w, w⁰, their difference, and its multiple.
        let doubles = logits + 4 * tensors.max().unwrap_or(0);
        (4 * (images * inputs + weights) + 8 * doubles) as f64 / (1 << 20) as f64
    }

    /// Numbers in the weights of the largest move.
    pub(crate) fn moved_len(&self, network: &Network) -> usize {
        let params = network.params();
        let len = |i: &usize| params[*i].shape.iter().product::<usize>();
        let layer = |layer: &Layer| layer.tensors.iter().map(len).sum();
        match self.moved_together() {
            0 => self.layers.iter().map(layer).max().unwrap_or(0),
            _ => network.parameters(),
        }
    }

    /// Number of directions that layers are moved together along.
    fn moved_together(&self) -> usize {
        self.directions.iter().filter(|d| d.remedy.moves_together()).count()
    }

    /// Measures all moves on V.
    ///
    /// # Errors
    /// A model that cannot be evaluated; a V that cannot be halved.
    pub fn measure(
        &self,
        model: &Objective,
        validation: &dyn Examples,
        context: &Context,
    ) -> Result<RemedyFindings> {
        let mut found = self.search(model, validation, 0, context)?.found;
        found.notes.splice(0..0, self.notes.iter().cloned());
        Ok(found)
    }

    /// The same from any weights, after `looked` moves that were looked at before on these images.
    pub(crate) fn search(
        &self,
        model: &Objective,
        validation: &dyn Examples,
        looked: usize,
        context: &Context,
    ) -> Result<Searched> {
        let (mut directions, mut notes) = (self.directions.clone(), Vec::new());
        if let Some(training) = &self.training {
            for epoch in &self.epochs {
                let direction = epoch.direction(model, &self.layers, training, context)?;
                notes.extend(direction.notes.iter().cloned());
                directions.push(Arc::new(direction));
            }
        }
        let total = self.count(&directions, &model.weights)?;
        let progress = context.task("remedies", total as u64, "moves");
        let done = |name: &str| {
            progress.status(name);
            progress.advance(1);
        };
        // Differences of losses along a line are smaller than bf16 rounding.
        let search = Search {
            model: &model.exact(),
            directions: &directions,
            layers: &self.layers,
            joint: &self.joint,
            looked,
            seed: context.seed,
            done: &done,
        };
        let mut out = search.run(validation)?;
        out.found.notes.splice(0..0, notes);
        Ok(out)
    }

    /// Number of moves along these directions.
    fn count(&self, directions: &[Arc<Direction>], weights: &Weights) -> Result<usize> {
        let mut moves = 0;
        for direction in directions {
            moves += direction.parts(weights, &self.layers)?.len();
            if direction.remedy.moves_together() {
                let joint = direction.parts(weights, &self.joint)?.len();
                moves += (2 * joint).saturating_sub(2);
            }
        }
        Ok(moves)
    }

    /// Number of moves, at most.
    pub(crate) fn moves(&self) -> usize {
        (self.directions.len() + self.epochs.len()) * self.layers.len()
            + self.moved_together() * (2 * self.joint.len()).saturating_sub(2)
    }
}
