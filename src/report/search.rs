//! A search in which no recipe helped: schema `planish/search/1`.

use crate::checkpoint::CheckpointInfo;
use crate::post_train::search::RecipeSearch;
use crate::run::RunInfo;
use serde::{Deserialize, Serialize};

/// Identifier and version of the schema of [`FruitlessSearch`].
pub const FRUITLESS_SEARCH: &str = "planish/search/1";

/// Result of `post-train --search` if no recipe lowers the loss, so that nothing was trained.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FruitlessSearch {
    /// [`FRUITLESS_SEARCH`].
    pub schema: String,
    /// Provenance of the report.
    pub run: RunInfo,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// What was tried.
    pub search: RecipeSearch,
}
