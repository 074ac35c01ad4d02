//! Reads one of the models of a comparison.

use super::{CompareOptions, ComparedModel, Error};
use crate::checkpoint::{Checkpoint, CheckpointInfo};
use crate::data::DataOptions;
use crate::error::Result;
use crate::evaluate::{Bound, PredictionsInfo};
use crate::post_train::POST_TRAINING;
use crate::session::evaluate::{EVALUATION, evaluate};
use crate::session::saved::{self, Error as SavedError, SavedLogits};
use crate::session::{Context, checkpoint_info};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Reads or evaluates a model.
pub(super) fn read(
    path: &Path,
    options: &CompareOptions,
    context: &Context,
    notes: &mut Vec<String>,
) -> Result<(ComparedModel, SavedLogits)> {
    let of = |checkpoint, data_digest| ComparedModel {
        path: path.display().to_string(),
        checkpoint,
        data_digest,
    };
    let is_report = path.extension().is_some_and(|e| e == "json");
    if (is_report || saved::is_saved(path)) && options.load.adapter.is_some() {
        return Err(Error::NoBase { path: path.into() }.into());
    }
    if is_report {
        let NamedLogits { predictions, checkpoint, data_digest, temperature } = report(path)?;
        notes.extend(temperature.map(temperature_note));
        let file = beside(path, Path::new(&predictions.path));
        let saved = saved::read(&file, Some((path, &predictions.digest)))?;
        return Ok((of(Some(checkpoint), data_digest), saved));
    }
    if saved::is_saved(path) {
        return Ok((of(None, None), saved::read(path, None)?));
    }
    let checkpoint = Checkpoint::open(path, &options.load)?;
    let Some(data) = options.data.clone() else {
        return Err(Error::NoData { path: path.into() }.into());
    };
    let data = DataOptions { data, val_data: options.val_data.clone(), ..DataOptions::default() };
    let (split, precision) = (options.split.as_deref(), options.precision);
    let found = evaluate(&checkpoint, &data, split, precision, context)?;
    notes.extend(found.warnings);
    notes.extend(found.temperatures.bound().map(temperature_note));
    let temperatures = (0..found.predictions.images()).map(|i| found.temperatures.at(i)).collect();
    let model = of(Some(checkpoint_info(&checkpoint)), Some(found.data.digest));
    Ok((model, SavedLogits { predictions: found.predictions, temperatures, tempered: true }))
}

fn temperature_note(bound: Bound) -> String {
    format!("temperature: {}", bound.note())
}

/// What a report refers to.
struct NamedLogits {
    predictions: PredictionsInfo,
    checkpoint: CheckpointInfo,
    data_digest: Option<String>,
    temperature: Option<Bound>,
}

/// The parts of a report of `eval` that are read.
#[derive(Deserialize)]
struct OfEvaluation {
    checkpoint: CheckpointInfo,
    predictions: Option<PredictionsInfo>,
    data: ReportedImages,
    figures: Figures,
}

/// The parts of a report of `post-train` that are read.
#[derive(Deserialize)]
struct OfPostTraining {
    checkpoint: CheckpointInfo,
    predictions: Option<PredictionsInfo>,
    test: Option<Test>,
}

#[derive(Deserialize)]
struct Test {
    data: ReportedImages,
    after: Figures,
}

#[derive(Deserialize)]
struct ReportedImages {
    digest: String,
}

#[derive(Deserialize)]
struct Figures {
    temperature_bound: Option<Bound>,
}

fn report(path: &Path) -> Result<NamedLogits> {
    let bytes =
        std::fs::read(path).map_err(|source| SavedError::Read { path: path.into(), source })?;
    let other = |found: String| Error::Schema { path: path.into(), found };
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| other(format!("invalid JSON ({e})")))?;
    let damaged =
        |e: serde_json::Error| other(format!("that schema with unexpected contents ({e})"));
    let schema = value["schema"].as_str().unwrap_or("none").to_owned();
    let (predictions, checkpoint, data_digest, temperature) = match schema.as_str() {
        EVALUATION => {
            let OfEvaluation { checkpoint, predictions, data, figures } =
                serde_json::from_value(value).map_err(damaged)?;
            (predictions, checkpoint, Some(data.digest), figures.temperature_bound)
        }
        POST_TRAINING => {
            let OfPostTraining { checkpoint, predictions, test } =
                serde_json::from_value(value).map_err(damaged)?;
            let bound = test.as_ref().and_then(|test| test.after.temperature_bound);
            (predictions, checkpoint, test.map(|test| test.data.digest), bound)
        }
        _ => return Err(other(schema).into()),
    };
    let predictions = predictions.ok_or_else(|| Error::NoPredictions { path: path.into() })?;
    Ok(NamedLogits { predictions, checkpoint, data_digest, temperature })
}

/// The path in the report if it exists, else a file of that name next to the report.
fn beside(report: &Path, file: &Path) -> PathBuf {
    match (file.exists(), file.file_name()) {
        (false, Some(name)) => report.with_file_name(name),
        _ => file.into(),
    }
}
