//! Reads one of the models of a comparison.

use super::{CompareOptions, ComparedModel, Error};
use crate::checkpoint::{Checkpoint, CheckpointInfo};
use crate::data::DataOptions;
use crate::error::Result;
use crate::evaluate::{Bound, PredictionsInfo};
use crate::post_train::POST_TRAINING;
use crate::session::evaluate::{EVALUATION, evaluate_in_order};
use crate::session::saved::{self, Error as SavedError, SavedLogits};
use crate::session::{Context, checkpoint_info};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A model of a comparison, with its logits.
pub(super) struct Read {
    pub model: ComparedModel,
    pub saved: SavedLogits,
    /// Class names, if it is a checkpoint that was evaluated and has them.
    pub class_names: Option<Vec<String>>,
}

/// Reads or evaluates a model. The classes of a checkpoint are numbered as in `order`, if it has the same
/// names.
pub(super) fn read(
    path: &Path,
    options: &CompareOptions,
    order: Option<&[String]>,
    context: &Context,
    notes: &mut Vec<String>,
) -> Result<Read> {
    let of = |checkpoint, data_digest, saved| {
        let path = path.display().to_string();
        let model = ComparedModel { path, checkpoint, data_digest };
        Read { model, saved, class_names: None }
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
        return Ok(of(Some(checkpoint), data_digest, saved));
    }
    if saved::is_saved(path) {
        return Ok(of(None, None, saved::read(path, None)?));
    }
    let checkpoint = Checkpoint::open(path, &options.load)?;
    let Some(data) = options.data.clone() else {
        return Err(Error::NoData { path: path.into() }.into());
    };
    let data = DataOptions {
        data: vec![data],
        val_data: options.val_data.iter().cloned().collect(),
        ..DataOptions::default()
    };
    let (split, precision) = (options.split.as_deref(), options.precision);
    let found = evaluate_in_order(&checkpoint, &data, split, precision, order, context)?;
    notes.extend(found.warnings);
    notes.extend(found.temperatures.bound().map(temperature_note));
    let temperatures = (0..found.predictions.images()).map(|i| found.temperatures.at(i)).collect();
    let saved = SavedLogits { predictions: found.predictions, temperatures, tempered: true };
    let read = of(Some(checkpoint_info(&checkpoint)), Some(found.data.digest), saved);
    Ok(Read { class_names: checkpoint.class_names, ..read })
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
