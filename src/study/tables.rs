//! Plan and log as tables that data-frame libraries read as they are.
//!
//! Every row of a table has the same columns in the same order; a value that does not exist is null
//! in JSON Lines and empty in CSV.

use super::{Entry, Error, Kind, Plan, Planned, Result};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Names of the tables.
pub const TABLES: [&str; 4] = ["results", "ood", "layers", "runs"];

/// One row.
pub type Row = Map<String, Value>;

/// Rows of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name: that of its files.
    pub name: &'static str,
    /// The rows, in the study's order.
    pub rows: Vec<Row>,
}

impl Table {
    /// Brings all rows to the same columns: a column new to a later row stands behind its neighbour
    /// on the left there, `seconds` always last.
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

    /// One object a line.
    pub fn jsonl(&self) -> String {
        self.rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n").collect()
    }

    /// A line of names, then one a row (RFC 4180, ended by a line feed).
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

/// The tables of a study, of those cells that are there: `results` (models on splits, shifted or
/// not), `ood` (other images), `layers` (diagnoses, a row a layer) and `runs` (post-training, beside
/// the control and the diagnosis). A table without rows is left out.
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

/// A row for each layer, with whether the plans perturb or update it.
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

/// The plans of a diagnosis, and what each names.
const PLANNED: [(&str, &str); 4] = [
    ("plan", "perturb"),
    ("plan", "update"),
    ("plan_in_sample", "perturb"),
    ("plan_in_sample", "update"),
];

/// What of a layer's diagnosis stands beside a run that perturbs or updates it.
const DIAGNOSED: [&str; 7] = [
    "delta_l_cross_fit",
    "delta_l_stderr",
    "delta_l_in_sample",
    "delta_l_calibrated_cross_fit",
    "kappa_cross_fit",
    "kappa_stderr",
    "kappa_in_sample",
];

/// Figures of the control that stand beside a run, and the gain over it: control − run, so that
/// above 0 is better, but of `top1` run − control.
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
