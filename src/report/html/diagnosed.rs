//! The tables `layers` and `ood` of a study.

use super::chart::Colour;
use super::rows::{Mark, Row, Scale, rows};
use super::text::{escape, figure, folded, key, paragraph, table};
use crate::evaluate::Estimate;
use crate::format::{ABSENT, count, estimate, number};
use crate::study::{LayerRow, OodRow, stated};

/// Half width of a 95% interval, in standard errors.
const Z: f64 = 1.96;

/// A figure drawn by layer.
struct LayerChart {
    symbol: &'static str,
    unit: &'static str,
    cross_fit: fn(&LayerRow) -> Estimate,
    in_sample: fn(&LayerRow) -> Option<f64>,
}

const FIGURES: [LayerChart; 2] = [
    LayerChart {
        symbol: "ΔL",
        unit: "nats per image",
        cross_fit: delta_l,
        in_sample: |row| row.delta_l_in_sample,
    },
    LayerChart {
        symbol: "κ",
        unit: "nats per squared weight unit",
        cross_fit: kappa,
        in_sample: |row| row.kappa_in_sample,
    },
];

fn delta_l(row: &LayerRow) -> Estimate {
    stated(row.delta_l_cross_fit, row.delta_l_stderr)
}

fn kappa(row: &LayerRow) -> Estimate {
    stated(row.kappa_cross_fit, row.kappa_stderr)
}

/// The section of a study's `layers`: ΔL and κ by layer, for each diagnosed model.
pub fn layers(rows: &[LayerRow]) -> String {
    let models = rows.chunk_by(|a, b| a.of.data == b.of.data && a.of.model == b.of.model);
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
        let name = format!("{} on {}", first.of.model, first.of.data);
        out += &format!("<h3>{}</h3>\n<div class=\"charts\">\n", escape(&name));
        out += &FIGURES.map(|of| chart(own, &name, &of)).concat();
        out += "</div>\n";
        out += &folded("The figures", &figures(own));
    }
    out
}

fn chart(own: &[LayerRow], name: &str, of: &LayerChart) -> String {
    let mark = |row: &LayerRow| {
        let Estimate { mean: value, stderr } = (of.cross_fit)(row);
        let half = stderr.map(|stderr| Z * stderr);
        let fitted = Mark { value, half, colour: Colour::Blue, filled: true };
        let own = (of.in_sample)(row).unwrap_or(f64::NAN);
        let in_sample = Mark { value: own, half: None, colour: Colour::Muted, filled: false };
        [fitted, in_sample].into_iter().filter(|m| m.value.is_finite()).collect()
    };
    let drawn: Vec<Row> = own
        .iter()
        .map(|row| Row { name: row.layer.clone(), strong: row.eligible, marks: mark(row) })
        .collect();
    let told: Vec<String> =
        own.iter().map(|row| format!("{} {}", row.layer, estimate((of.cross_fit)(row)))).collect();
    let title = format!("{} by layer, {name}", of.symbol);
    let description = format!("Cross-fitted, by layer: {}.", told.join("; "));
    figure(&title, of.unit, &rows((&title, &description), "", &drawn, Scale::WithZero))
}

fn figures(own: &[LayerRow]) -> String {
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
    let plain = |value: Option<f64>| number(value.unwrap_or(f64::NAN));
    let line = |row: &LayerRow| {
        vec![
            row.layer.clone(),
            plain(row.delta_l_in_sample),
            estimate(delta_l(row)),
            estimate(stated(row.delta_l_calibrated_cross_fit, row.delta_l_calibrated_stderr)),
            plain(row.kappa_in_sample),
            estimate(kappa(row)),
            plain(row.displacement),
            if row.eligible { "yes" } else { "no" }.into(),
        ]
    };
    table(&headers, &own.iter().map(line).collect::<Vec<_>>())
}

/// The section of a study's `ood`: out-of-distribution detection by model.
pub fn others(rows: &[OodRow]) -> String {
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
    let line = |row: &OodRow| {
        vec![
            row.of.model.clone(),
            row.of.data.clone(),
            row.ood.clone(),
            row.ood_images.map_or(ABSENT.into(), count),
            estimate(stated(row.auroc_probability, row.auroc_probability_stderr)),
            estimate(stated(row.fpr95_probability, row.fpr95_probability_stderr)),
            estimate(stated(row.auroc_energy, row.auroc_energy_stderr)),
            estimate(stated(row.fpr95_energy, row.fpr95_energy_stderr)),
        ]
    };
    table(&headers, &rows.iter().map(line).collect::<Vec<_>>())
}
