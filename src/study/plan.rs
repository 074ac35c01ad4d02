//! The cells of a study, in order.

use super::settings::{CellSettings, ModelSettings};
use super::{CELLS, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/study/3";

/// File name of the plan in a study folder.
pub const PLAN: &str = "study.json";

/// What a cell measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellKind {
    /// A model on a split, shifted or not.
    Evaluation,
    /// A model on images of another kind.
    Ood,
    /// A model's layers on V.
    Diagnosis,
    /// A model after one post-training run.
    Run,
}

impl CellKind {
    /// All kinds.
    pub const ALL: [CellKind; 4] =
        [CellKind::Evaluation, CellKind::Ood, CellKind::Diagnosis, CellKind::Run];
}

/// A cell of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Its digest. Two cells share a digest if two names refer to the same model.
    pub cell: String,
    /// The model and the data set.
    pub model: ModelSettings,
    /// What it measures, with all other settings.
    pub settings: CellSettings,
    /// For a run, the cell of its control: plain SGD on the same layers and batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// For a run, the cell of its model's diagnosis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
}

impl Planned {
    /// What it measures.
    pub fn kind(&self) -> CellKind {
        self.settings.kind()
    }
}

/// All cells of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyPlan {
    /// [`SCHEMA`].
    pub schema: String,
    /// The share of cells that the folder was last used for, `3/16`; absent for all cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// The cells, in the study's order.
    pub cells: Vec<Planned>,
}

/// The version of a folder's plan, if its results are of another schema than [`SCHEMA`]. This build
/// finds neither their names nor their figures.
///
/// # Errors
/// [`Error::Io`].
pub fn earlier(folder: &Path) -> Result<Option<String>> {
    let plan = folder.join(PLAN);
    let text = match std::fs::read_to_string(&plan) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(&plan, "read the plan")(e)),
    };
    let schema = |value: Value| value.get("schema").and_then(Value::as_str).map(str::to_owned);
    let schema = serde_json::from_str(&text).ok().and_then(schema).filter(|s| s != SCHEMA);
    Ok(schema.and_then(|s| s.strip_prefix("planish/study/").map(str::to_owned)))
}

/// Renames results of an earlier schema. Returns their new path, or `None` if there are none.
///
/// # Errors
/// [`Error::Io`].
pub fn set_aside(folder: &Path) -> Result<Option<PathBuf>> {
    let log = folder.join(CELLS);
    let Some(version) = earlier(folder)?.filter(|_| log.exists()) else { return Ok(None) };
    let old = folder.join(format!("cells-of-schema-{version}.jsonl"));
    std::fs::rename(&log, &old).map_err(Error::io(&log, "rename the log"))?;
    Ok(Some(old))
}

impl StudyPlan {
    /// Reads the plan of a study's folder.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Line`] for a file of another kind or version.
    pub fn read(folder: &Path) -> Result<StudyPlan> {
        let path = folder.join(PLAN);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(Error::of_study(&path, "read the plan"))?;
        let wrong = |line, found| Error::Line {
            path: path.clone(),
            line,
            expected: format!("a study plan of schema {SCHEMA}"),
            found,
            remedy: "pass a folder written by `planish study` of this build",
        };
        let plan: StudyPlan =
            serde_json::from_str(&text).map_err(|e| wrong(e.line(), e.to_string()))?;
        match plan.schema == SCHEMA {
            true => Ok(plan),
            false => Err(wrong(1, plan.schema)),
        }
    }

    /// The first difference from another plan, in words, if any.
    pub fn differs(&self, other: &StudyPlan) -> Option<String> {
        let pairs = self.cells.iter().zip(&other.cells);
        if let Some(at) = pairs.into_iter().position(|(a, b)| a != b) {
            let named = |of: &StudyPlan| of.cells[at].cell.clone();
            return Some(format!("cell {} differs: {} and {}", at + 1, named(self), named(other)));
        }
        let (a, b) = (self.cells.len(), other.cells.len());
        (a != b).then(|| format!("one has {a} cells, the other {b}"))
    }
}

impl Default for StudyPlan {
    /// An empty plan.
    fn default() -> Self {
        Self { schema: SCHEMA.into(), shard: None, cells: Vec::new() }
    }
}
