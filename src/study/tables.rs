//! Plan and log as tables that data-frame libraries can read.
//!
//! All rows of a table have the same columns in the same order. A missing value is null in JSON
//! Lines and empty in CSV.

use super::{Entry, Error, Kind, Plan, Planned, Result};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Names of the tables.
pub const TABLES: [&str; 4] = ["results", "ood", "layers", "runs"];

/// One row.
pub type Row = Map<String, Value>;

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name, also used as file name.
    pub name: &'static str,
    /// The rows, in the study's order.
    pub rows: Vec<Row>,
}

impl Table {
    /// Gives all rows the same columns. A column that first appears in a later row is placed after
    /// its left neighbour in that row; `seconds` is always last.
    fn aligned(name: &'static str, rows: Vec<Row>) -> Table {
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
        let full = |mut row: Row| -> Row {
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
pub fn tables(plan: &Plan, entries: &HashMap<String, Entry>) -> Vec<Table> {
    let of = |kind: Kind, row: &dyn Fn(&Planned, &Entry) -> Vec<Row>| -> Vec<Row> {
        let cells = plan.cells.iter().filter(|p| p.kind == kind);
        let found = cells.filter_map(|p| entries.get(&p.cell).map(|entry| row(p, entry)));
        found.flatten().collect()
    };
    let plain = |p: &Planned, e: &Entry| vec![ended(joined(p, &e.figures), e)];
    let all = [
        of(Kind::Evaluation, &plain),
        of(Kind::Ood, &plain),
        of(Kind::Diagnosis, &layers),
        of(Kind::Run, &|p, e| vec![run(p, e, entries)]),
    ];
    let with_rows = TABLES.into_iter().zip(all).filter(|(_, rows)| !rows.is_empty());
    with_rows.map(|(name, rows)| Table::aligned(name, rows)).collect()
}

fn joined(planned: &Planned, figures: &Map<String, Value>) -> Row {
    let mut row: Row = [("cell".to_owned(), planned.cell.clone().into())].into_iter().collect();
    row.extend(planned.settings.clone());
    row.extend(figures.clone());
    row
}

fn ended(mut row: Row, entry: &Entry) -> Row {
    row.insert("seconds".into(), entry.seconds.into());
    row
}

/// One row per layer, with flags for the layers that the plans perturb or update.
fn layers(planned: &Planned, entry: &Entry) -> Vec<Row> {
    let Some(Value::Object(layers)) = entry.figures.get("layers") else { return Vec::new() };
    let row = |(name, figures): (&String, &Value)| {
        let mut row = joined(planned, &Map::new());
        row.insert("layer".into(), name.clone().into());
        row.extend(figures.as_object().cloned().unwrap_or_default());
        for (plan, role) in PLANNED {
            let named = entry.figures.get(plan).and_then(|plan| plan.get(role));
            row.insert(
                format!("{plan}_{role}"),
                (named == Some(&Value::from(name.as_str()))).into(),
            );
        }
        ended(row, entry)
    };
    layers.iter().map(row).collect()
}

/// The plans of a diagnosis, and the layer each names.
const PLANNED: [(&str, &str); 4] = [
    ("plan", "perturb"),
    ("plan", "update"),
    ("plan_in_sample", "perturb"),
    ("plan_in_sample", "update"),
];

/// Diagnosis columns that are added to a run for the layers it perturbs or updates.
const DIAGNOSED: [&str; 7] = [
    "delta_l_cross_fit",
    "delta_l_stderr",
    "delta_l_in_sample",
    "delta_l_calibrated_cross_fit",
    "kappa_cross_fit",
    "kappa_stderr",
    "kappa_in_sample",
];

/// Control metrics that are added to a run, with the gain over the control. The gain is control −
/// run, or run − control for `top1`, so that positive is better.
const COMPARED: [&str; 5] = ["nll", "calibrated_nll", "top1", "ece", "calibrated_ece"];

fn run(planned: &Planned, entry: &Entry, entries: &HashMap<String, Entry>) -> Row {
    let mut row = joined(planned, &entry.figures);
    let control = planned.control.as_ref();
    let known = control.and_then(|cell| entries.get(cell));
    row.insert("control".into(), control.cloned().into());
    for split in ["val", "test"] {
        for figure in COMPARED {
            let name = format!("{split}_after_{figure}");
            let value = |of: &Entry| of.figures.get(&name).and_then(Value::as_f64);
            let (own, other) = (value(entry), known.and_then(value));
            let sign = if figure == "top1" { -1.0 } else { 1.0 };
            let gain = own.zip(other).map(|(own, other)| sign * (other - own));
            row.insert(format!("control_{name}"), other.into());
            row.insert(format!("{split}_{figure}_gain_over_control"), gain.into());
        }
    }
    let diagnosis = planned.diagnosis.as_ref().and_then(|cell| entries.get(cell));
    let layers = diagnosis.and_then(|d| d.figures.get("layers"));
    for (role, letter) in [("perturb", "p"), ("update", "u")] {
        let name = planned.settings.get(role).and_then(Value::as_str);
        let layer = layers.zip(name).and_then(|(layers, name)| layers.get(name));
        for figure in DIAGNOSED {
            let value = layer.and_then(|l| l.get(figure)).cloned().unwrap_or(Value::Null);
            row.insert(format!("{figure}_{letter}"), value);
        }
    }
    ended(row, entry)
}
