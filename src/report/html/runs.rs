//! Training runs of a study: gains over controls, and their correlation with the diagnosis.

use super::chart::Colour;
use super::scatter::{Dot, Series, scatter};
use super::study::{Row, value};
use super::text::{note, paragraph, table};
use crate::evaluate::mean_stderr;
use crate::format::{count, estimate};
use serde_json::Value;

/// Columns of the diagnosis that gains are plotted against.
const FORETOLD: [(&str, &str); 4] = [
    ("kappa_cross_fit_p", "κ of p, cross-fit"),
    ("kappa_in_sample_p", "κ of p, in-sample"),
    ("delta_l_cross_fit_u", "ΔL of u, cross-fit"),
    ("delta_l_in_sample_u", "ΔL of u, in-sample"),
];

/// Gains shown in the table.
const GAINS: [(&str, &str); 4] = [
    ("val_nll_gain_over_control", "NLL, V"),
    ("val_calibrated_nll_gain_over_control", "calibrated NLL, V"),
    ("test_nll_gain_over_control", "NLL, test"),
    ("test_calibrated_nll_gain_over_control", "calibrated NLL, test"),
];

fn word(row: &Row, column: &str) -> String {
    row.get(column).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The section of a study's `runs`.
pub fn runs(rows: &[Row]) -> String {
    let held = |row: &&Row| value(row, GAINS[0].0).is_finite();
    let treated: Vec<&Row> = rows.iter().filter(held).collect();
    let mut methods: Vec<String> = treated.iter().map(|row| word(row, "method")).collect();
    methods.sort();
    methods.dedup();
    let mut headers = vec!["method", "runs"];
    headers.extend(GAINS.map(|g| g.1));
    let line = |method: &String| {
        let own: Vec<&&Row> = treated.iter().filter(|row| word(row, "method") == *method).collect();
        let mut line = vec![method.clone(), count(own.len() as u64)];
        line.extend(GAINS.map(|(column, _)| {
            let gains = own.iter().map(|row| value(row, column)).filter(|x| x.is_finite());
            estimate(mean_stderr(&gains.collect::<Vec<_>>()))
        }));
        line
    };
    let lines: Vec<Vec<String>> = methods.iter().map(line).collect();
    let mut out = paragraph(&format!(
        "{} runs, of which {} have a control: plain SGD on the same layers and batches. Gains are \
         the control's loss minus the run's, in nats; above 0 is better. Means and standard errors \
         are over runs of all settings.",
        count(rows.len() as u64),
        count(treated.len() as u64)
    ));
    out += &table(&headers, &lines);
    let charts: String =
        FORETOLD.iter().map(|(column, name)| one(&treated, column, name)).collect();
    if !charts.is_empty() {
        out += &note(
            "Each dot is a run whose layers were diagnosed. Brackets contain 95% intervals from a \
             seeded bootstrap over runs. Runs of one model are not independent, so these intervals \
             are too narrow.",
        );
        out += &format!("<div class=\"charts\">\n{charts}</div>\n");
    }
    out
}

/// The gain in test NLL against one figure of the diagnosis.
fn one(rows: &[&Row], column: &str, name: &str) -> String {
    let dot = |row: &&Row| Dot {
        name: format!("{} → {}", word(row, "perturb"), word(row, "update")),
        x: value(row, column),
        y: value(row, GAINS[2].0),
    };
    let dots = rows.iter().map(dot).collect();
    let series = Series { name: String::new(), colour: Colour::Blue, filled: true, dots };
    let title = format!("Gain over the control against {name}");
    scatter(&title, [name, "test NLL, nats"], None, &[series])
}
