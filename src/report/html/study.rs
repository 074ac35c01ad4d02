//! Many models: shifted against in-distribution figures, and figures against attributes of the
//! models.

use super::chart::Colour;
use super::scatter::{Dot, Series, scatter};
use super::text::{escape, key, note, paragraph, table};
use crate::evaluate::Estimate;
use crate::format::{ABSENT, estimate, number, percent, share};
use serde_json::Value;
use std::collections::BTreeSet;

/// A row of a study's table.
pub type Row = serde_json::Map<String, Value>;

/// Figures drawn: column, name, and whether it is a share.
const FIGURES: [(&str, &str, bool); 3] =
    [("top1", "Top-1", true), ("nll", "NLL", false), ("ece", "ECE", false)];

/// One model on one data set.
struct Model<'a> {
    name: &'a str,
    clean: &'a Row,
    shifted: Vec<&'a Row>,
}

/// A text cell of a row; empty if missing.
pub fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

/// A number in a row; NaN if missing.
pub fn value(row: &Row, column: &str) -> f64 {
    row.get(column).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

impl Model<'_> {
    fn clean(&self, figure: &str) -> f64 {
        value(self.clean, figure)
    }

    /// Mean over shifted cells; NaN if there are none.
    fn shifted(&self, figure: &str) -> f64 {
        let sum: f64 = self.shifted.iter().map(|row| value(row, figure)).sum();
        sum / self.shifted.len() as f64
    }

    fn dot(&self, x: f64, y: f64) -> Dot {
        Dot { name: self.name.into(), x, y }
    }
}

/// The section of a study's `results`.
pub fn study(rows: &[Row]) -> String {
    let names: BTreeSet<&str> = rows.iter().map(|row| text(row, "data")).collect();
    let one = |data: &str| {
        let own: Vec<&Row> = rows.iter().filter(|row| text(row, "data") == data).collect();
        format!("<h3>{}</h3>\n{}", escape(data), on_one(&models(&own)))
    };
    names.into_iter().map(one).collect()
}

/// The number of models as text.
pub fn named(rows: &[Row]) -> String {
    match rows.iter().map(|row| text(row, "model")).collect::<BTreeSet<_>>().len() {
        1 => "one model".into(),
        n => format!("{n} models"),
    }
}

/// The models of a data set, each with the shifted cells that all models have.
fn models<'a>(rows: &[&'a Row]) -> Vec<Model<'a>> {
    let plain = |row: &&&Row| text(row, "shift") == "none";
    let cell = |row: &Row| (text(row, "shift").to_owned(), value(row, "severity").to_bits());
    let of = |name: &str| -> Vec<&'a Row> {
        let own = rows.iter().filter(|r| text(r, "model") == name && text(r, "shift") != "none");
        own.copied().collect()
    };
    let mut found: Vec<Model> = rows
        .iter()
        .filter(plain)
        .map(|&row| Model { name: text(row, "model"), clean: row, shifted: of(text(row, "model")) })
        .collect();
    let sets = found
        .iter()
        .filter(|m| !m.shifted.is_empty())
        .map(|m| -> BTreeSet<_> { m.shifted.iter().map(|row| cell(row)).collect() });
    let common = sets.reduce(|a, b| &a & &b).unwrap_or_default();
    found.iter_mut().for_each(|m| m.shifted.retain(|row| common.contains(&cell(row))));
    found
}

fn on_one(models: &[Model]) -> String {
    let cells = models.iter().map(|m| m.shifted.len()).max().unwrap_or(0);
    let mut out = figures(models, cells);
    let mut charts = String::new();
    for (figure, name, _) in FIGURES {
        let dots = models.iter().map(|m| m.dot(m.clean(figure), m.shifted(figure))).collect();
        let series = Series { name: String::new(), colour: Colour::Blue, filled: true, dots };
        let title = format!("{name}: shifted against in distribution");
        charts += &scatter(
            &title,
            ["in distribution", "shifted"],
            Some("no change under the shift"),
            &[series],
        );
    }
    if !charts.is_empty() {
        out += &paragraph(
            "Each dot is a model. Brackets contain 95% intervals from a seeded bootstrap over \
             models.",
        );
        out += &format!("<div class=\"charts\">\n{charts}</div>\n");
    }
    out + &scaling(models, cells > 0)
}

fn figures(models: &[Model], cells: usize) -> String {
    let mut headers = vec!["model"];
    headers.extend(FIGURES.map(|f| f.1));
    let told: Vec<String> = FIGURES.map(|f| format!("{}, shifted", f.1)).to_vec();
    if cells > 0 {
        headers.extend(told.iter().map(String::as_str));
    }
    let row = |m: &Model| {
        let mut row = vec![m.name.to_owned()];
        for (figure, _, is_share) in FIGURES {
            let stderr = value(m.clean, &format!("{figure}_stderr"));
            let (mean, stderr) = (m.clean(figure), Some(stderr).filter(|s| s.is_finite()));
            let known = Estimate { mean, stderr };
            row.push(if is_share { share(known) } else { estimate(known) });
        }
        if cells > 0 {
            for (figure, _, is_share) in FIGURES {
                let mean = m.shifted(figure);
                row.push(match (mean.is_finite(), is_share) {
                    (false, _) => ABSENT.into(),
                    (true, true) => percent(mean),
                    (true, false) => number(mean),
                });
            }
        }
        row
    };
    let rows: Vec<Vec<String>> = models.iter().map(row).collect();
    let shifts = match cells {
        0 => String::new(),
        n => note(&format!(
            "Shifted: mean over the {n} corruptions and severities that all models have."
        )),
    };
    table(&headers, &rows) + &shifts
}

/// Every figure against every numeric attribute of the models.
fn scaling(models: &[Model], shifted: bool) -> String {
    let columns: BTreeSet<&String> = models.iter().flat_map(|m| m.clean.keys()).collect();
    let mut out = String::new();
    for column in columns.into_iter().filter(|c| *c == "parameters" || c.starts_with("model_")) {
        let values = || models.iter().map(|m| value(m.clean, column)).filter(|x| x.is_finite());
        if values().map(f64::to_bits).collect::<BTreeSet<_>>().len() < 2 {
            continue;
        }
        let label = column.strip_prefix("model_").unwrap_or(column);
        for (figure, name, _) in FIGURES {
            let dots = |of: &dyn Fn(&Model) -> f64| {
                models.iter().map(|m| m.dot(value(m.clean, column), of(m))).collect()
            };
            let mut series = vec![Series {
                name: if shifted { "in distribution".into() } else { String::new() },
                colour: Colour::Blue,
                filled: true,
                dots: dots(&|m| m.clean(figure)),
            }];
            if shifted {
                series.push(Series {
                    name: "shifted".into(),
                    colour: Colour::Orange,
                    filled: false,
                    dots: dots(&|m| m.shifted(figure)),
                });
            }
            out += &scatter(&format!("{name} against {label}"), [label, name], None, &series);
        }
    }
    if out.is_empty() {
        return out;
    }
    let legend = match shifted {
        true => key(&[("blue", "full", "in distribution"), ("orange", "open", "shifted, mean")]),
        false => String::new(),
    };
    format!("<h4>Scaling</h4>\n{legend}<div class=\"charts\">\n{out}</div>\n")
}
