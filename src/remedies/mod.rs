//! Moves of layers along directions that the validation images did not choose: towards the weights
//! before fine-tuning, or towards 0.
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

pub use direction::Direction;
pub use findings::{MoveForm, MoveFound, MoveGains, MovePoint, OnV, RemedyFindings};
pub use forecast::remedies_work;
pub use remedy::Remedy;

pub(crate) use search::{Move, Searched};

use search::Search;

use crate::checkpoint::Checkpoint;
use crate::data::Roles;
use crate::error::Result;
use crate::forecast::{Calibration, Need};
use crate::models::{Layer, Network};
use crate::objective::{Examples, Objective};
use crate::session::{Context, held_out, seen};

/// The directions of a checkpoint's remedies, and the layers to move.
pub struct RemedySession {
    /// One for each remedy.
    pub directions: Vec<Direction>,
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
    /// A target that cannot be read or does not belong to `tuned`.
    pub fn open(
        remedies: &[Remedy],
        tuned: &Checkpoint,
        roles: &Roles,
        layers: Vec<Layer>,
        joint: Vec<Layer>,
    ) -> Result<Self> {
        let (mut directions, mut notes) = (Vec::new(), Vec::new());
        let held = held_out(tuned).filter(|_| roles.held_out);
        for remedy in remedies {
            let direction = Direction::open(remedy, tuned)?;
            notes.extend(direction.notes.iter().cloned());
            if let (Some(held), Some(target)) = (&held, &direction.checkpoint) {
                notes.extend(seen(target, held));
            }
            directions.push(direction);
        }
        Ok(Self { directions, layers, joint, notes })
    }

    /// Time and memory of a search on so many images, at most.
    pub fn need(&self, model: &Objective, images: usize, found: &Calibration) -> Need {
        let network = &model.network;
        let held = self.held_mib(network, images);
        Need {
            seconds: found.seconds(remedies_work(network, self), images),
            mib: found.peak_mib.max(found.resident_mib + found.wave_mib + held),
        }
    }

    /// Memory held besides the passes themselves, MiB: inputs of the model as it is and of the moved one,
    /// and the next ones; moved weights.
    pub fn held_mib(&self, network: &Network, images: usize) -> f64 {
        let stages = self.layers.iter().chain(&self.joint).map(|layer| layer.first_stage);
        let widest = stages.map(|stage| network.activation_len(stage)).max().unwrap_or(0);
        let floats = 3 * images * widest + 2 * network.parameters();
        floats as f64 * 4.0 / (1 << 20) as f64
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
    pub(crate) fn search<'a>(
        &'a self,
        model: &Objective,
        validation: &dyn Examples,
        looked: usize,
        context: &Context,
    ) -> Result<Searched<'a>> {
        let progress = context.task("remedies", self.moves() as u64, "moves");
        let done = |name: &str| {
            progress.status(name);
            progress.advance(1);
        };
        // Differences of losses along a line are smaller than bf16 rounding.
        let search = Search {
            model: &model.exact(),
            directions: &self.directions,
            layers: &self.layers,
            joint: &self.joint,
            looked,
            seed: context.seed,
            done: &done,
        };
        search.run(validation)
    }

    /// Number of moves, at most.
    fn moves(&self) -> usize {
        let toward = self.directions.iter().filter(|d| d.remedy != Remedy::Decay).count();
        self.directions.len() * self.layers.len()
            + toward * (2 * self.joint.len()).saturating_sub(2)
    }
}
