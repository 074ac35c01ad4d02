//! Training runs of a study: gains over controls, and their correlation with the diagnosis.

use super::chart::Colour;
use super::scatter::{Dot, Series, scatter};
use super::text::{note, paragraph, table};
use crate::evaluate::mean_stderr;
use crate::format::{count, estimate};
use crate::study::RunRow;

/// A figure of a run, and its name.
type RunFigure = (fn(&RunRow) -> Option<f64>, &'static str);

/// Figures of the diagnosis that gains are plotted against.
const FORETOLD: [RunFigure; 4] = [
    (|row| row.kappa_cross_fit_p, "κ of p, cross-fit"),
    (|row| row.kappa_in_sample_p, "κ of p, in-sample"),
    (|row| row.delta_l_cross_fit_u, "ΔL of u, cross-fit"),
    (|row| row.delta_l_in_sample_u, "ΔL of u, in-sample"),
];

/// Gains shown in the table.
const GAINS: [RunFigure; 4] = [
    (|row| row.val_nll_gain_over_control, "NLL, V"),
    (|row| row.val_calibrated_nll_gain_over_control, "calibrated NLL, V"),
    (|row| row.test_nll_gain_over_control, "NLL, test"),
    (|row| row.test_calibrated_nll_gain_over_control, "calibrated NLL, test"),
];

/// The section of a study's `runs`.
pub fn runs(rows: &[RunRow]) -> String {
    let held = |row: &&RunRow| row.val_nll_gain_over_control.is_some();
    let treated: Vec<&RunRow> = rows.iter().filter(held).collect();
    let mut methods: Vec<&str> = treated.iter().map(|row| row.method.as_str()).collect();
    methods.sort_unstable();
    methods.dedup();
    let mut headers = vec!["method", "runs"];
    headers.extend(GAINS.map(|g| g.1));
    let line = |method: &&str| {
        let own: Vec<&&RunRow> = treated.iter().filter(|row| row.method == *method).collect();
        let mut line = vec![(*method).to_owned(), count(own.len() as u64)];
        line.extend(GAINS.map(|(of, _)| {
            let gains = own.iter().filter_map(|row| of(row));
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
    let charts: String = FORETOLD.iter().map(|figure| one(&treated, figure)).collect();
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
fn one(rows: &[&RunRow], (of, name): &RunFigure) -> String {
    let layer = |name: &Option<String>| name.clone().unwrap_or_default();
    let dot = |row: &&RunRow| Dot {
        name: format!("{} → {}", layer(&row.perturb), layer(&row.update)),
        x: of(row).unwrap_or(f64::NAN),
        y: row.test_nll_gain_over_control.unwrap_or(f64::NAN),
    };
    let dots = rows.iter().map(dot).collect();
    let series = Series { name: String::new(), colour: Colour::Blue, filled: true, dots };
    let title = format!("Gain over the control against {name}");
    scatter(&title, [name, "test NLL, nats"], None, &[series])
}
