//! The outcome of a fix.

use crate::data::DamagedFile;
use crate::evaluate::{Bound, Estimate, Summary};
use crate::post_train::result::{BeforeAfter, Output};
use crate::remedies::{MoveFound, OnV, RemedyFindings};
use serde::{Deserialize, Serialize};

/// One move that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FixStep {
    /// The move as it was found. Its gains are over the model before this step.
    #[serde(rename = "move")]
    pub found: MoveFound,
    /// The α that was applied: the best on V among the neighbours of the one found.
    pub alpha: f64,
    /// Number of moves evaluated so far, in this round and all earlier ones.
    pub looks: usize,
    /// The model after this step, on V.
    pub after: OnV,
}

/// Why a fix ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// No move was eligible.
    NothingEligible,
    /// Another round would not have fitted into `budget`.
    Budget,
    /// The maximum number of moves was applied.
    Steps,
}

/// A standard method, fitted on the same V.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// `temperature`, `WiSE-FT` or `LiNeS`.
    pub name: String,
    /// The share of the fine-tuned change that is kept, α of `merge`; `None` for the temperature alone.
    pub alpha: Option<f64>,
    /// On V, with the temperature fitted on V.
    pub validation: OnV,
    /// On test, with that temperature.
    pub test: Option<Summary>,
    /// Paired difference on test of the NLL at the temperature fitted on V, this baseline − the fix:
    /// above 0 if the fix is better.
    pub behind: Option<Estimate>,
}

/// The result of a fix.
pub struct Fixed {
    /// The checkpoint as given, on V.
    pub start: OnV,
    /// The moves that were applied, in order.
    pub steps: Vec<FixStep>,
    /// The rounds of measurements: one before each step, and the one that ended the search.
    pub looks: Vec<RemedyFindings>,
    /// Number of images of V in each round.
    pub searched_on: usize,
    /// Why it ended.
    pub stop: Stop,
    /// The temperature that was folded into the head, after all moves.
    pub temperature: f64,
    /// Why it is not a minimum of the loss, if it is not one.
    pub temperature_bound: Option<Bound>,
    /// The file that was written.
    pub output: Option<Output>,
    /// On V, which chose everything.
    pub validation: BeforeAfter,
    /// On test.
    pub test: Option<BeforeAfter>,
    /// Standard methods on the same images.
    pub baselines: Vec<Baseline>,
    /// Damaged image files that were used as decoded.
    pub damaged: Vec<DamagedFile>,
    /// Notes for the user.
    pub notes: Vec<String>,
}
