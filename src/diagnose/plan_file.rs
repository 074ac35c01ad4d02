//! Reads the plan from a diagnosis report.

use super::findings::Plan;
use crate::checkpoint::Checkpoint;
use crate::data::{Preprocess, ValOrigin};
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
    checkpoint: PlanModel,
    data: PlanData,
    plan: Option<Plan>,
}

#[derive(Deserialize)]
struct PlanModel {
    digest: String,
    /// Not in reports of older versions.
    preprocessing: Option<Preprocess>,
}

#[derive(Deserialize)]
struct PlanData {
    kind: String,
    /// The text of a [`ValOrigin`].
    origin: String,
}

/// The plan in a report on this checkpoint; `None` if no layer was eligible.
///
/// # Errors
/// [`Error`].
pub fn read_plan(
    path: &Path,
    checkpoint: &Checkpoint,
    val_origin: &ValOrigin,
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
    let (now, prepared) = (&checkpoint.preprocess, report.checkpoint.preprocessing);
    if prepared.is_some() && prepared != *now && report.data.kind != "tensors" {
        let words = |p: &Option<Preprocess>| p.as_ref().map_or("none".into(), ToString::to_string);
        let (expected, found) = (words(&prepared), words(now));
        return Err(Error::OtherPreprocessing { path: path.into(), expected, found });
    }
    // A text that does not parse is of an earlier version, and none of these.
    let half_of_test = |of: &ValOrigin| matches!(of, ValOrigin::HalfOfTest { .. });
    let planned = report.data.origin.parse().ok().filter(half_of_test);
    if let Some(planned) = planned.filter(|planned| planned != val_origin) {
        let (planned, now) = (planned.to_string(), val_origin.to_string());
        return Err(Error::OtherValidation { path: path.into(), planned, now });
    }
    Ok(report.plan)
}
