//! Text output of `selftest`.

use crate::render::table::{Align, Style, Table};
use planish::format::{count, duration};
use planish::report::Selftest;

/// The checks and the verdict.
pub fn text(report: &Selftest) -> String {
    let images = match &report.data {
        Some(data) => format!("{} images of {}", report.images, data.path),
        None => format!("{} images of noise", report.images),
    };
    let mut table = Table::new(&[
        ("check", Align::Left),
        ("in", Align::Left),
        ("largest error", Align::Right),
        ("allowed", Align::Right),
        ("where", Align::Left),
        ("", Align::Left),
    ]);
    for check in &report.checks {
        let place = match (check.layer.as_str(), check.layers) {
            ("", _) => String::new(),
            (layer, 1) => layer.to_string(),
            (layer, n) => format!("{layer}, of {n} layers"),
        };
        table.row([
            check.name.clone(),
            check.precision.clone(),
            format!("{:.1e}", check.error),
            format!("{:.0e}", check.tolerance),
            place,
            if check.passed { "passed" } else { "FAILED" }.to_string(),
        ]);
    }
    let verdict = if report.passed { "all checks passed" } else { "some checks FAILED" };
    format!(
        "{} ({}, {} parameters), {images}\n\n{}\n{verdict} in {}",
        report.checkpoint.path,
        report.checkpoint.architecture,
        count(report.checkpoint.parameters as u64),
        table.render(Style::of_stdout()),
        duration(report.run.seconds),
    )
}
