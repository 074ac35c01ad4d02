//! The result of `compare`: schema `planish/comparison/1`.

use crate::compare::{ComparedModel, ModelComparison};
use crate::evaluate::Comparison;
use crate::report::sentence::sentence;
use crate::run::RunInfo;
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/comparison/1";

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparisonReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// Provenance of the report.
    pub run: RunInfo,
    /// The first model.
    pub a: ComparedModel,
    /// The second model.
    pub b: ComparedModel,
    /// Their differences.
    pub comparison: Comparison,
    /// Which differences are established, as a sentence.
    pub sentence: String,
    /// Notes.
    pub notes: Vec<String>,
}

impl ComparisonReport {
    /// The report of a comparison.
    pub fn new(run: RunInfo, found: ModelComparison) -> Self {
        let ModelComparison { a, b, comparison, notes } = found;
        let sentence = sentence(&comparison, "A", "B");
        Self { schema: SCHEMA.into(), run, a, b, comparison, sentence, notes }
    }
}
