//! Resumes a matrix of shifts from an existing report. The matrix is reused if model, images and
//! clean figures are the same. Otherwise it is an error, so that no results are overwritten.

use crate::checkpoint::Checkpoint;
use crate::report::{EVALUATION, Evaluation};
use crate::shift::Shifts;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The file contains a matrix that would be overwritten.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: the file contains {cells} corrupted cells whose {what} is {found}, expected {expected}; \
     they would be lost: choose another file for `json`, or delete this one", .path.display()
)]
pub struct Occupied {
    /// The file.
    pub path: PathBuf,
    /// Number of cells in it.
    pub cells: usize,
    /// What differs.
    pub what: &'static str,
    /// Its value in the file.
    pub found: String,
    /// Its value in this run.
    pub expected: String,
}

/// An earlier report with a matrix.
#[derive(Debug)]
pub struct EarlierEvaluation {
    path: PathBuf,
    report: Evaluation,
    shifts: Shifts,
}

impl EarlierEvaluation {
    /// Opens the report file, for an evaluation of `checkpoint` with this seed. `None` if it is not a
    /// regular file or contains no matrix.
    ///
    /// # Errors
    /// The matrix has a schema that this build cannot read, or belongs to another model, seed or
    /// version of planish.
    pub fn open(
        path: Option<&Path>,
        checkpoint: &Checkpoint,
        seed: u64,
    ) -> Result<Option<EarlierEvaluation>, Occupied> {
        // Reading from a pipe or a terminal would block.
        let Some(path) = path.filter(|path| path.is_file()) else { return Ok(None) };
        let read = || -> Option<Value> { serde_json::from_slice(&std::fs::read(path).ok()?).ok() };
        let Some(value) = read() else { return Ok(None) };
        let cells = value["shifts"]["cells"].as_array().map_or(0, Vec::len);
        if cells == 0 {
            return Ok(None);
        }
        let schema = value["schema"].as_str().unwrap_or("none").to_owned();
        let known = serde_json::from_value::<Evaluation>(value).ok();
        match known.filter(|report| report.schema == EVALUATION) {
            Some(mut report) => {
                let Some(shifts) = report.shifts.take() else { return Ok(None) };
                let earlier = EarlierEvaluation { path: path.into(), report, shifts };
                earlier.same_model(&checkpoint.digest, seed, env!("CARGO_PKG_VERSION"))?;
                Ok(Some(earlier))
            }
            None => Err(Occupied {
                path: path.into(),
                cells,
                what: "schema",
                found: schema,
                expected: EVALUATION.into(),
            }),
        }
    }

    /// Compares what is known before the evaluation: the model, the seed and the planish version.
    ///
    /// # Errors
    /// [`Occupied`].
    fn same_model(&self, checkpoint: &str, seed: u64, version: &str) -> Result<(), Occupied> {
        let old = &self.report;
        self.same("checkpoint's SHA-256", &old.checkpoint.digest, checkpoint)?;
        self.same("seed", &old.run.seed.to_string(), &seed.to_string())?;
        self.same("planish version", &old.run.version, version)
    }

    /// The matrix, if it belongs to the current evaluation. `origin` is the source of corrupted
    /// images, if any are requested.
    ///
    /// # Errors
    /// [`Occupied`].
    pub fn shifts(self, now: &Evaluation, origin: Option<&str>) -> Result<Shifts, Occupied> {
        let old = &self.report;
        self.same_model(&now.checkpoint.digest, now.run.seed, &now.run.version)?;
        self.same("images' SHA-256", &old.data.digest, &now.data.digest)?;
        self.same("precision", &old.precision, &now.precision)?;
        self.same("temperature's origin", &old.temperature_origin, &now.temperature_origin)?;
        if let Some(origin) = origin {
            self.same("settings", &self.shifts.settings, origin)?;
        }
        // Parsing may change the last bit of a number, so both sides are compared after parsing.
        // These figures are the only evidence of a different preprocessing.
        let text = serde_json::to_string(&now.figures).unwrap_or_default();
        if serde_json::from_str(&text).ok().as_ref() != Some(&old.figures) {
            let told = |nll: f64| format!("{nll} (NLL)");
            let (found, expected) = (told(old.figures.nll), told(now.figures.nll));
            return Err(self.occupied("figures on clean images", found, expected));
        }
        Ok(self.shifts)
    }

    fn same(&self, what: &'static str, found: &str, expected: &str) -> Result<(), Occupied> {
        match found == expected {
            true => Ok(()),
            false => Err(self.occupied(what, found.into(), expected.into())),
        }
    }

    fn occupied(&self, what: &'static str, found: String, expected: String) -> Occupied {
        let (path, cells) = (self.path.clone(), self.shifts.cells.len());
        Occupied { path, cells, what, found, expected }
    }
}
