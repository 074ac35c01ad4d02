//! Many models: shifted against in-distribution figures, and figures against attributes of the
//! models.

use super::chart::Colour;
use super::scatter::{Dot, Series, scatter};
use super::text::{escape, key, note, paragraph, table};
use crate::evaluate::Estimate;
use crate::format::{ABSENT, estimate, number, percent, share};
use crate::study::{Attribute, EvaluationRow, stated};
use std::collections::BTreeSet;

/// A figure that is drawn.
struct ModelFigure {
    name: &'static str,
    is_share: bool,
    of: fn(&EvaluationRow) -> Estimate,
}

const FIGURES: [ModelFigure; 3] = [
    ModelFigure { name: "Top-1", is_share: true, of: |row| stated(row.top1, row.top1_stderr) },
    ModelFigure { name: "NLL", is_share: false, of: |row| stated(row.nll, row.nll_stderr) },
    ModelFigure { name: "ECE", is_share: false, of: |row| stated(row.ece, row.ece_stderr) },
];

/// One model on one data set.
struct Model<'a> {
    name: &'a str,
    clean: &'a EvaluationRow,
    shifted: Vec<&'a EvaluationRow>,
}

impl Model<'_> {
    fn clean(&self, figure: &ModelFigure) -> f64 {
        (figure.of)(self.clean).mean
    }

    /// Mean over shifted cells; NaN if there are none.
    fn shifted(&self, figure: &ModelFigure) -> f64 {
        let sum: f64 = self.shifted.iter().map(|row| (figure.of)(row).mean).sum();
        sum / self.shifted.len() as f64
    }

    fn dot(&self, x: f64, y: f64) -> Dot {
        Dot { name: self.name.into(), x, y }
    }
}

/// The section of a study's `results`.
pub fn study(rows: &[EvaluationRow]) -> String {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.of.data.as_str()).collect();
    let one = |data: &str| {
        let own: Vec<&EvaluationRow> = rows.iter().filter(|row| row.of.data == data).collect();
        format!("<h3>{}</h3>\n{}", escape(data), on_one(&models(&own)))
    };
    names.into_iter().map(one).collect()
}

/// The models of a data set, each with the shifted cells that all models have.
fn models<'a>(rows: &[&'a EvaluationRow]) -> Vec<Model<'a>> {
    let plain = |row: &&&EvaluationRow| row.shift == "none";
    let cell = |row: &EvaluationRow| (row.shift.clone(), row.severity);
    let of = |name: &str| -> Vec<&'a EvaluationRow> {
        let own = rows.iter().filter(|r| r.of.model == name && r.shift != "none");
        own.copied().collect()
    };
    let mut found: Vec<Model> = rows
        .iter()
        .filter(plain)
        .map(|&row| Model { name: &row.of.model, clean: row, shifted: of(&row.of.model) })
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
    for figure in &FIGURES {
        let dots = models.iter().map(|m| m.dot(m.clean(figure), m.shifted(figure))).collect();
        let series = Series { name: String::new(), colour: Colour::Blue, filled: true, dots };
        let title = format!("{}: shifted against in distribution", figure.name);
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
    headers.extend(FIGURES.iter().map(|f| f.name));
    let told: Vec<String> = FIGURES.iter().map(|f| format!("{}, shifted", f.name)).collect();
    if cells > 0 {
        headers.extend(told.iter().map(String::as_str));
    }
    let row = |m: &Model| {
        let mut row = vec![m.name.to_owned()];
        for figure in &FIGURES {
            let known = (figure.of)(m.clean);
            row.push(if figure.is_share { share(known) } else { estimate(known) });
        }
        if cells > 0 {
            for figure in &FIGURES {
                let mean = m.shifted(figure);
                row.push(match (mean.is_finite(), figure.is_share) {
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

/// A number that figures are drawn against.
enum Against<'a> {
    /// An attribute of the models.
    Attribute(&'a str),
    /// Their number of weights.
    Parameters,
}

impl Against<'_> {
    fn label(&self) -> &str {
        match self {
            Against::Attribute(name) => name,
            Against::Parameters => "parameters",
        }
    }

    /// Of a model; NaN if it is missing or no number.
    fn of(&self, model: &Model) -> f64 {
        let of = &model.clean.of;
        let found = match self {
            Against::Attribute(name) => of.attributes.get(*name).and_then(Attribute::number),
            Against::Parameters => of.parameters.map(|n| n as f64),
        };
        found.unwrap_or(f64::NAN)
    }
}

/// Every figure against every numeric attribute of the models, and against their size.
fn scaling(models: &[Model], shifted: bool) -> String {
    let names: BTreeSet<&str> =
        models.iter().flat_map(|m| m.clean.of.attributes.keys().map(String::as_str)).collect();
    let mut out = String::new();
    for against in names.into_iter().map(Against::Attribute).chain([Against::Parameters]) {
        let label = against.label();
        let values = || models.iter().map(|m| against.of(m)).filter(|x| x.is_finite());
        if values().map(f64::to_bits).collect::<BTreeSet<_>>().len() < 2 {
            continue;
        }
        for figure in &FIGURES {
            let dots = |of: &dyn Fn(&Model) -> f64| {
                models.iter().map(|m| m.dot(against.of(m), of(m))).collect()
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
            out += &scatter(
                &format!("{} against {label}", figure.name),
                [label, figure.name],
                None,
                &series,
            );
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
