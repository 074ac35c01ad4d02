//! The tables `layers` and `ood` of a study.

use super::chart::Colour;
use super::rows::{Mark, Row as Drawn, Scale, rows};
use super::study::{Row, text, value};
use super::text::{escape, figure, folded, key, paragraph, table};
use crate::evaluate::Estimate;
use crate::format::{ABSENT, count, estimate, number};
use serde_json::Value;

/// Half width of a 95% interval, in standard errors.
const Z: f64 = 1.96;

/// Figures drawn by layer: prefix of the column names, name, unit.
const FIGURES: [(&str, &str, &str); 2] =
    [("delta_l", "ΔL", "nats per image"), ("kappa", "κ", "nats per squared weight unit")];

/// The section of a study's `layers`: ΔL and κ by layer, for each diagnosed model.
pub fn layers(rows: &[Row]) -> String {
    let models = runs_of(rows, &["data", "model"]);
    let told = "ΔL is the reduction in validation loss from moving one layer; κ = ΔL/‖Δw‖² is its \
                sharpness. Bars are 95% intervals. Layers in the stronger colour are eligible: \
                their ΔL is significantly above 0, corrected for the number of layers.";
    let mut out = paragraph(told);
    out += &key(&[
        ("blue", "full", "cross-fitted, with 95% interval"),
        ("muted", "open", "in-sample: not reliable"),
    ]);
    for own in models {
        let Some(first) = own.first() else { continue };
        let name = format!("{} on {}", text(first, "model"), text(first, "data"));
        out += &format!("<h3>{}</h3>\n<div class=\"charts\">\n", escape(&name));
        out += &FIGURES.map(|of| chart(own, &name, of)).concat();
        out += "</div>\n";
        out += &folded("The figures", &figures(own));
    }
    out
}

/// Groups of adjacent rows with equal values in these columns.
fn runs_of<'a>(rows: &'a [Row], columns: &'static [&str]) -> impl Iterator<Item = &'a [Row]> {
    rows.chunk_by(|a, b| columns.iter().all(|c| a.get(*c) == b.get(*c)))
}

fn eligible(row: &Row) -> bool {
    row.get("eligible").and_then(Value::as_bool) == Some(true)
}

fn chart(own: &[Row], name: &str, (start, symbol, unit): (&str, &str, &str)) -> String {
    let of = |row: &Row, end: &str| value(row, &format!("{start}_{end}"));
    let mark = |row: &Row| {
        let (value, error) = (of(row, "cross_fit"), of(row, "stderr"));
        let half = Some(Z * error).filter(|half| half.is_finite());
        let fitted = Mark { value, half, colour: Colour::Blue, filled: true };
        let own = of(row, "in_sample");
        let in_sample = Mark { value: own, half: None, colour: Colour::Muted, filled: false };
        [fitted, in_sample].into_iter().filter(|m| m.value.is_finite()).collect()
    };
    let drawn: Vec<Drawn> = own
        .iter()
        .map(|row| Drawn {
            name: text(row, "layer").into(),
            strong: eligible(row),
            marks: mark(row),
        })
        .collect();
    let told: Vec<String> =
        own.iter().map(|row| format!("{} {}", text(row, "layer"), fitted(row, start))).collect();
    let title = format!("{symbol} by layer, {name}");
    let description = format!("Cross-fitted, by layer: {}.", told.join("; "));
    figure(&title, unit, &rows((&title, &description), "", &drawn, Scale::WithZero))
}

/// `0.012 ± 0.003`, or a dash.
fn fitted(row: &Row, start: &str) -> String {
    let stderr = Some(value(row, &format!("{start}_stderr"))).filter(|e| e.is_finite());
    estimate(Estimate { mean: value(row, &format!("{start}_cross_fit")), stderr })
}

fn figures(own: &[Row]) -> String {
    let headers = [
        "layer",
        "ΔL in-sample",
        "ΔL cross-fit",
        "ΔL beyond T",
        "κ in-sample",
        "κ cross-fit",
        "‖Δw‖",
        "eligible",
    ];
    let line = |row: &Row| {
        vec![
            text(row, "layer").into(),
            number(value(row, "delta_l_in_sample")),
            fitted(row, "delta_l"),
            fitted(row, "delta_l_calibrated"),
            number(value(row, "kappa_in_sample")),
            fitted(row, "kappa"),
            number(value(row, "displacement")),
            if eligible(row) { "yes" } else { "no" }.into(),
        ]
    };
    table(&headers, &own.iter().map(line).collect::<Vec<_>>())
}

/// The section of a study's `ood`: out-of-distribution detection by model.
pub fn others(rows: &[Row]) -> String {
    let headers = [
        "model",
        "data",
        "other images",
        "images",
        "AUROC, softmax",
        "FPR@95, softmax",
        "AUROC, energy",
        "FPR@95, energy",
    ];
    let line = |row: &Row| {
        let of = |figure: &str| {
            let stderr = Some(value(row, &format!("{figure}_stderr"))).filter(|e| e.is_finite());
            estimate(Estimate { mean: value(row, figure), stderr })
        };
        let images = row.get("ood_images").and_then(Value::as_u64);
        let [model, data, ood] = ["model", "data", "ood"].map(|column| text(row, column).into());
        let images = images.map_or(ABSENT.into(), count);
        let scores = ["auroc_probability", "fpr95_probability", "auroc_energy", "fpr95_energy"];
        [vec![model, data, ood, images], scores.map(of).to_vec()].concat()
    };
    table(&headers, &rows.iter().map(line).collect::<Vec<_>>())
}
