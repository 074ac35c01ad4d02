//! Plan and log as tables that data-frame libraries can read.
//!
//! All rows of a table have the same columns in the same order. A missing value is null in JSON
//! Lines and empty in CSV.

use super::rows::ATTRIBUTE;
use super::{
    CellFigures, CellSettings, DiagnosisFigures, Error, LayerFigures, LogEntry, ModelScore,
    ModelSettings, OodFigures, Planned, Result, RunFigures, SplitFigures, StudyPlan,
};
use crate::evaluate::Estimate;
use crate::train::MethodArgs;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Names of the tables.
pub const TABLES: [&str; 4] = ["results", "ood", "layers", "runs"];

/// One row.
pub type TableRow = Map<String, Value>;

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name, also used as file name.
    pub name: &'static str,
    /// The rows, in the study's order.
    pub rows: Vec<TableRow>,
}

impl Table {
    /// Gives all rows the same columns. A column that first appears in a later row is placed after
    /// its left neighbour in that row; `seconds` is always last.
    fn aligned(name: &'static str, rows: Vec<TableRow>) -> Table {
        let mut columns: Vec<String> = Vec::new();
        for row in &rows {
            let mut at = 0;
            for key in row.keys() {
                at = match columns.iter().position(|c| c == key) {
                    Some(known) => known + 1,
                    None => {
                        columns.insert(at, key.clone());
                        at + 1
                    }
                };
            }
        }
        columns.sort_by_key(|c| c == "seconds");
        let full = |mut row: TableRow| -> TableRow {
            let take = |c: &String| (c.clone(), row.remove(c).unwrap_or(Value::Null));
            columns.iter().map(take).collect()
        };
        Table { name, rows: rows.into_iter().map(full).collect() }
    }

    /// One JSON object per line.
    pub fn jsonl(&self) -> String {
        self.rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n").collect()
    }

    /// A header line, then one line per row (RFC 4180, with line feeds).
    ///
    /// # Errors
    /// [`Error::Csv`].
    pub fn csv(&self) -> Result<Vec<u8>> {
        let refused = |source| Error::Csv { table: self.name, source };
        let mut writer = csv::Writer::from_writer(Vec::new());
        if let Some(first) = self.rows.first() {
            writer.write_record(first.keys()).map_err(refused)?;
        }
        for row in &self.rows {
            writer.write_record(row.values().map(field)).map_err(refused)?;
        }
        writer.into_inner().map_err(|e| refused(e.into_error().into()))
    }
}

fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The tables of a study, from the cells that are finished: `results` (models on splits, shifted or
/// not), `ood` (other images), `layers` (diagnoses, one row per layer) and `runs` (post-training,
/// with control and diagnosis). Tables without rows are omitted.
///
/// # Errors
/// [`Error::Json`].
pub fn tables(plan: &StudyPlan, entries: &HashMap<String, LogEntry>) -> Result<Vec<Table>> {
    let [mut results, mut ood, mut layers, mut runs] = [const { Vec::new() }; 4];
    for planned in &plan.cells {
        let Some(entry) = entries.get(&planned.cell) else { continue };
        let mut row = settings(planned)?;
        match &entry.figures {
            CellFigures::Evaluation(figures) => {
                put(&mut row, figures)?;
                results.push(ended(row, entry));
            }
            CellFigures::Ood(figures) => {
                detection(&mut row, figures);
                ood.push(ended(row, entry));
            }
            CellFigures::Diagnosis(found) => {
                let of = |figures| ended(layer(row.clone(), figures, found), entry);
                layers.extend(found.layers.iter().map(of));
            }
            CellFigures::Run(figures) => {
                history(&mut row, figures);
                for (split, found) in [("val", &figures.val), ("test", &figures.test)] {
                    found.iter().for_each(|found| before_after(&mut row, split, found));
                }
                control(&mut row, planned, figures, entries);
                diagnosed(&mut row, planned, entries);
                runs.push(ended(row, entry));
            }
        }
    }
    let all = TABLES.into_iter().zip([results, ood, layers, runs]);
    let with_rows = all.filter(|(_, rows)| !rows.is_empty());
    Ok(with_rows.map(|(name, rows)| Table::aligned(name, rows)).collect())
}

/// Adds a column for every field of `part`.
fn put(row: &mut TableRow, part: &impl Serialize) -> Result<()> {
    if let Value::Object(fields) = serde_json::to_value(part).map_err(Error::Json)? {
        row.extend(fields);
    }
    Ok(())
}

/// Adds one column.
fn one(row: &mut TableRow, name: impl Into<String>, value: impl Into<Value>) {
    row.insert(name.into(), value.into());
}

/// Adds a figure and its standard error.
fn estimate(row: &mut TableRow, name: &str, of: Option<Estimate>) {
    one(row, name, of.map(|of| of.mean));
    one(row, format!("{name}_stderr"), of.and_then(|of| of.stderr));
}

fn ended(mut row: TableRow, entry: &LogEntry) -> TableRow {
    one(&mut row, "seconds", entry.seconds);
    row
}

/// The columns of a cell's settings.
fn settings(planned: &Planned) -> Result<TableRow> {
    let mut row = TableRow::new();
    one(&mut row, "cell", planned.cell.as_str());
    let ModelSettings {
        model,
        attributes,
        checkpoint,
        checkpoint_digest,
        architecture,
        parameters,
        data,
        source,
    } = &planned.model;
    one(&mut row, "model", model.as_str());
    for (name, value) in attributes {
        let value = serde_json::to_value(value).map_err(Error::Json)?;
        one(&mut row, format!("{ATTRIBUTE}{name}"), value);
    }
    one(&mut row, "checkpoint", checkpoint.as_str());
    one(&mut row, "checkpoint_digest", checkpoint_digest.as_str());
    one(&mut row, "architecture", architecture.as_str());
    one(&mut row, "parameters", *parameters);
    one(&mut row, "data", data.as_str());
    one(&mut row, "source", source.as_str());
    match &planned.settings {
        CellSettings::Evaluation(own) => put(&mut row, own)?,
        CellSettings::Ood(own) => put(&mut row, own)?,
        CellSettings::Diagnosis(own) => put(&mut row, own)?,
        CellSettings::Run(own) => put(&mut row, own)?,
    }
    Ok(row)
}

fn detection(row: &mut TableRow, figures: &OodFigures) {
    one(row, "images", figures.images);
    one(row, "ood_images", figures.ood_images);
    for (score, of) in [("probability", figures.probability), ("energy", figures.energy)] {
        estimate(row, &format!("auroc_{score}"), Some(of.auroc));
        estimate(row, &format!("fpr95_{score}"), Some(of.fpr95));
    }
}

/// The row of one layer, with flags for the layers that the plans perturb or update.
fn layer(mut row: TableRow, figures: &LayerFigures, of: &DiagnosisFigures) -> TableRow {
    let LayerFigures {
        layer,
        delta_l,
        delta_l_calibrated,
        kappa,
        raw,
        eligible,
        displacement,
        gradient_norm,
        weight_norm,
        parameters,
    } = figures;
    one(&mut row, "layer", layer.as_str());
    one(&mut row, "basis", of.basis.name());
    for (name, fitted) in [
        ("delta_l", Some(*delta_l)),
        ("delta_l_calibrated", Some(*delta_l_calibrated)),
        ("delta_l_raw", raw.map(|raw| raw.delta_l_nats)),
        ("kappa", Some(*kappa)),
        ("kappa_raw", raw.map(|raw| raw.kappa)),
    ] {
        one(&mut row, format!("{name}_cross_fit"), fitted.and_then(|of| of.cross_fit));
        one(&mut row, format!("{name}_stderr"), fitted.and_then(|of| of.stderr));
        one(&mut row, format!("{name}_in_sample"), fitted.and_then(|of| of.in_sample));
    }
    one(&mut row, "eligible", *eligible);
    one(&mut row, "displacement", *displacement);
    one(&mut row, "gradient_norm", *gradient_norm);
    one(&mut row, "weight_norm", *weight_norm);
    one(&mut row, "layer_parameters", *parameters);
    let (plan, in_sample) = (of.plan.as_ref(), of.plan_in_sample.as_ref());
    for (column, named) in [
        ("plan_perturb", plan.map(|plan| &plan.perturb)),
        ("plan_update", plan.map(|plan| &plan.update)),
        ("plan_in_sample_perturb", in_sample.map(|plan| &plan.perturb)),
        ("plan_in_sample_update", in_sample.map(|plan| &plan.update)),
    ] {
        one(&mut row, column, named == Some(layer));
    }
    row
}

fn history(row: &mut TableRow, figures: &RunFigures) {
    one(row, "selected_epoch", figures.selected_epoch);
    one(row, "finished_epochs", figures.finished_epochs);
    one(row, "stopped", figures.stopped.clone());
    one(row, "watched_images", figures.watched_images);
    one(row, "watched_loss_before", figures.watched_loss_before);
    one(row, "watched_loss_after", figures.watched_loss_after);
    one(row, "training_loss", figures.training_loss);
    one(row, "perturbation", figures.perturbation);
    one(row, "perturbation_length", figures.perturbation_length);
    one(row, "capped", figures.capped);
    one(row, "rejected", figures.rejected);
}

fn before_after(row: &mut TableRow, split: &str, found: &SplitFigures) {
    for (when, score) in [("before", &found.before), ("after", &found.after)] {
        let name = |figure: &str| format!("{split}_{when}_{figure}");
        for (figure, of) in FIGURES {
            estimate(row, &name(figure), Some(of(score)));
        }
        estimate(row, &name("brier"), score.brier);
        one(row, name("temperature"), score.temperature);
        let bound = score.temperature_bound.map(|bound| serde_json::json!(bound));
        one(row, name("temperature_bound"), bound);
    }
    estimate(row, &format!("{split}_nll_gain"), Some(found.nll_gain));
    estimate(row, &format!("{split}_calibrated_nll_gain"), Some(found.calibrated_nll_gain));
}

/// A figure's name and value.
type ScoreColumn = (&'static str, fn(&ModelScore) -> Estimate);

/// Figures before and after a run, which are also compared with the control's.
const FIGURES: [ScoreColumn; 5] = [
    ("nll", |s| s.nll),
    ("calibrated_nll", |s| s.calibrated_nll),
    ("top1", |s| s.top1),
    ("ece", |s| s.ece),
    ("calibrated_ece", |s| s.calibrated_ece),
];

/// The control's figures, and the gain over the control: control − run, or run − control for `top1`,
/// so that positive is better.
fn control(
    row: &mut TableRow,
    planned: &Planned,
    figures: &RunFigures,
    entries: &HashMap<String, LogEntry>,
) {
    let cell = planned.control.as_ref();
    let control = cell.and_then(|cell| entries.get(cell)).and_then(|entry| entry.figures.run());
    one(row, "control", cell.cloned());
    for (split, own, other) in [
        ("val", &figures.val, control.and_then(|c| c.val.as_ref())),
        ("test", &figures.test, control.and_then(|c| c.test.as_ref())),
    ] {
        for (figure, of) in FIGURES {
            let (own, other) = (own.as_ref().map(|f| of(&f.after)), other.map(|f| of(&f.after)));
            let sign = if figure == "top1" { -1.0 } else { 1.0 };
            let gain = own.zip(other).map(|(own, other)| sign * (other.mean - own.mean));
            one(row, format!("control_{split}_after_{figure}"), other.map(|other| other.mean));
            one(row, format!("{split}_{figure}_gain_over_control"), gain);
        }
    }
}

/// The diagnosis of the layers that a run perturbs (`_p`) and updates (`_u`).
fn diagnosed(row: &mut TableRow, planned: &Planned, entries: &HashMap<String, LogEntry>) {
    let CellSettings::Run(settings) = &planned.settings else { return };
    let entry = planned.diagnosis.as_ref().and_then(|cell| entries.get(cell));
    let layers = entry.and_then(|e| e.figures.diagnosis()).map_or(&[][..], |d| &d.layers);
    let MethodArgs { perturb, update, .. } = &settings.of_method;
    for (name, letter) in [(perturb, "p"), (update, "u")] {
        let layer = layers.iter().find(|layer| Some(&layer.layer) == name.as_ref());
        let (delta_l, kappa) = (layer.map(|l| l.delta_l), layer.map(|l| l.kappa));
        let calibrated = layer.map(|l| l.delta_l_calibrated);
        for (column, value) in [
            ("delta_l_cross_fit", delta_l.and_then(|of| of.cross_fit)),
            ("delta_l_stderr", delta_l.and_then(|of| of.stderr)),
            ("delta_l_in_sample", delta_l.and_then(|of| of.in_sample)),
            ("delta_l_calibrated_cross_fit", calibrated.and_then(|of| of.cross_fit)),
            ("kappa_cross_fit", kappa.and_then(|of| of.cross_fit)),
            ("kappa_stderr", kappa.and_then(|of| of.stderr)),
            ("kappa_in_sample", kappa.and_then(|of| of.in_sample)),
        ] {
            one(row, format!("{column}_{letter}"), value);
        }
    }
}
