//! What a study wants, in its order.

use super::{CELLS, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/study/2";

/// Name of the plan's file in a study's folder.
pub const PLAN: &str = "study.json";

/// What a cell measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A model on a split, as it is or shifted.
    Evaluation,
    /// A model on images of another kind.
    Ood,
    /// A model's layers on V.
    Diagnosis,
    /// A model after one post-training.
    Run,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Evaluation, Kind::Ood, Kind::Diagnosis, Kind::Run];
}

/// A cell that a study wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Its digest. Two cells may have one, where two names stand for the same model.
    pub cell: String,
    /// What it measures.
    pub kind: Kind,
    /// Of a run, the cell of its control: plain SGD on the same layers and batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Of a run, the cell of the diagnosis of its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
    /// Every setting, column by column.
    pub settings: Map<String, Value>,
}

/// All cells of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: String,
    /// The part of the cells that the folder was last asked for, `3/16`; nothing where it is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// The cells, in the study's order.
    pub cells: Vec<Planned>,
}

/// Moves the results of an earlier schema out of the way: their cells have names that this build does
/// not find. Returns where they are now; nothing if the folder has none.
///
/// # Errors
/// [`Error::Io`].
pub fn set_aside(folder: &Path) -> Result<Option<PathBuf>> {
    let (plan, log) = (folder.join(PLAN), folder.join(CELLS));
    let text = match std::fs::read_to_string(&plan) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(&plan, "read the plan")(e)),
    };
    let schema = |value: Value| value.get("schema").and_then(Value::as_str).map(str::to_owned);
    let schema = serde_json::from_str(&text).ok().and_then(schema);
    let Some(version) = schema.as_deref().and_then(|s| s.strip_prefix("planish/study/")) else {
        return Ok(None);
    };
    if schema.as_deref() == Some(SCHEMA) || !log.exists() {
        return Ok(None);
    }
    let old = folder.join(format!("cells-of-schema-{version}.jsonl"));
    std::fs::rename(&log, &old).map_err(Error::io(&log, "rename the log"))?;
    Ok(Some(old))
}

impl Plan {
    /// Reads the plan of a study's folder.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Line`] for a file of another kind or version.
    pub fn read(folder: &Path) -> Result<Plan> {
        let path = folder.join(PLAN);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(Error::of_study(&path, "read the plan"))?;
        let wrong = |line, found| Error::Line {
            path: path.clone(),
            line,
            expected: format!("a study's plan of schema {SCHEMA}"),
            found,
            remedy: "pass a folder that this build's `planish study` wrote",
        };
        let plan: Plan = serde_json::from_str(&text).map_err(|e| wrong(e.line(), e.to_string()))?;
        match plan.schema == SCHEMA {
            true => Ok(plan),
            false => Err(wrong(1, plan.schema)),
        }
    }

    /// The first difference to another plan in words, if there is one.
    pub fn differs(&self, other: &Plan) -> Option<String> {
        let pairs = self.cells.iter().zip(&other.cells);
        if let Some(at) = pairs.into_iter().position(|(a, b)| a != b) {
            let named = |of: &Plan| of.cells[at].cell.clone();
            return Some(format!("cell {} is {} and {}", at + 1, named(self), named(other)));
        }
        let (a, b) = (self.cells.len(), other.cells.len());
        (a != b).then(|| format!("one has {a} cells, the other {b}"))
    }
}

impl Default for Plan {
    /// No cells.
    fn default() -> Self {
        Self { schema: SCHEMA.into(), shard: None, cells: Vec::new() }
    }
}
