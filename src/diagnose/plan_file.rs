//! Reads the plan from a diagnosis report.

use super::findings::Plan;
use crate::checkpoint::Checkpoint;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Identifier and version of a diagnosis report's schema.
pub const SCHEMA: &str = "planish/diagnosis/1";

/// Why a report gives no plan for a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(
        "cannot read the plan {}: {source}; pass a JSON report of `planish diagnose`", .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not a diagnosis report.
    #[error(
        "`plan` {}: expected a report of schema {SCHEMA}, found {found}; pass a JSON report of \
         `planish diagnose`",
        .path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// The diagnosis is for another checkpoint.
    #[error(
        "{}: the plan was made for checkpoint {expected}, this one is {found}; diagnose this one",
        .path.display()
    )]
    OtherCheckpoint {
        /// The file.
        path: PathBuf,
        /// SHA-256 in the report.
        expected: String,
        /// SHA-256 of the checkpoint.
        found: String,
    },
    /// The diagnosis prepared its images in another way.
    #[error(
        "{}: the plan was made with other preprocessing ({expected}) than is set now ({found}); use the \
         same options, or diagnose again",
        .path.display()
    )]
    OtherPreprocessing {
        /// The file.
        path: PathBuf,
        /// The report's preprocessing.
        expected: String,
        /// The preprocessing now.
        found: String,
    },
    /// Images that were used to choose the plan would be scored as test images.
    #[error(
        "{}: the plan was made on {planned}, and V is now {now}: test would include some of the \
         plan's images; use that report's `seed`, or diagnose again",
        .path.display()
    )]
    OtherValidation {
        /// The file.
        path: PathBuf,
        /// V of the report.
        planned: String,
        /// V now.
        now: String,
    },
}

/// The parts of a report that are read.
#[derive(Deserialize)]
struct Report {
    checkpoint: Model,
    data: Data,
    plan: Option<Plan>,
}

#[derive(Deserialize)]
struct Model {
    digest: String,
    /// Not in reports of older versions.
    preprocessing: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    kind: String,
    origin: String,
}

/// The plan in a report on this checkpoint; `None` if no layer was eligible.
///
/// # Errors
/// [`Error`].
pub fn read_plan(
    path: &Path,
    checkpoint: &Checkpoint,
    val_origin: &str,
) -> Result<Option<Plan>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Read { path: path.into(), source })?;
    let other = |found: String| Error::Schema { path: path.into(), found };
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| other(format!("no JSON ({e})")))?;
    let schema = value["schema"].as_str().unwrap_or("JSON without a schema").to_owned();
    if schema != SCHEMA {
        return Err(other(schema));
    }
    let report: Report = serde_json::from_value(value)
        .map_err(|e| other(format!("that schema with other contents ({e})")))?;
    if report.checkpoint.digest != checkpoint.digest {
        let (expected, found) = (report.checkpoint.digest, checkpoint.digest.clone());
        return Err(Error::OtherCheckpoint { path: path.into(), expected, found });
    }
    let now = checkpoint.preprocess.as_ref().map(ToString::to_string);
    let prepared = report.checkpoint.preprocessing.filter(|_| report.data.kind != "tensors");
    if let Some(expected) = prepared
        && now.as_ref() != Some(&expected)
    {
        let found = now.unwrap_or_else(|| "none".into());
        return Err(Error::OtherPreprocessing { path: path.into(), expected, found });
    }
    let planned = report.data.origin;
    if planned.starts_with("half of test") && planned != val_origin {
        return Err(Error::OtherValidation { path: path.into(), planned, now: val_origin.into() });
    }
    Ok(report.plan)
}
