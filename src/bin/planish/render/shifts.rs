//! Tables of shifted and out-of-distribution images.

use crate::render::table::{Align, Style, Table};
use planish::evaluate::Detection;
use planish::format::{estimate, number, percent};
use planish::shift::Corruption;
use planish::shift::{CorruptedCell, Other, Shifts};

/// Accuracy by corruption and severity, and means by severity.
pub fn shifted_text(shifts: &Shifts) -> String {
    let right = |name| (name, Align::Right);
    let severities: Vec<usize> =
        (1..=5).filter(|&s| shifts.cells.iter().any(|c| c.severity == s)).collect();
    let titles: Vec<String> = severities.iter().map(usize::to_string).collect();
    let mut columns = vec![("top-1 by severity", Align::Left)];
    columns.extend(titles.iter().map(|title| right(title.as_str())));
    let mut table = Table::new(&columns);
    for corruption in Corruption::ALL {
        let cell = |s: &usize| {
            let same = |c: &&CorruptedCell| c.corruption == corruption.name() && c.severity == *s;
            shifts.cells.iter().find(same).map(|c| percent(c.figures.top1))
        };
        let row: Vec<String> = severities.iter().filter_map(cell).collect();
        if !row.is_empty() {
            table.row(std::iter::once(corruption.name().to_owned()).chain(row));
        }
    }
    let mut means = Table::new(&[
        ("severity", Align::Left),
        right("NLL"),
        right("top-1"),
        right("ECE"),
        right("calibrated ECE"),
    ]);
    for step in &shifts.by_severity {
        let name = if step.severity == 0 { "clean".into() } else { step.severity.to_string() };
        means.row([
            name,
            number(step.nll),
            percent(step.top1),
            number(step.ece),
            number(step.calibrated_ece),
        ]);
    }
    let style = Style::of_stdout();
    let (count, all) = (shifts.cells.len(), 5 * Corruption::ALL.len());
    let of = if count == all { String::new() } else { format!(" of {count} of {all} cells") };
    format!(
        "\n{}\n{}mean corruption error{of} {} ({})\n",
        table.render(style),
        means.render(style),
        percent(shifts.mean_error),
        shifts.settings
    )
}

/// One row per out-of-distribution set and score.
pub fn others_text(others: &[Other]) -> String {
    let columns =
        [("other images", Align::Left), ("AUROC", Align::Right), ("FPR@95", Align::Right)];
    let mut table = Table::new(&columns);
    let mut row = |name: String, d: &Detection| {
        table.row([name, estimate(d.auroc), estimate(d.fpr95)]);
    };
    for other in others {
        row(format!("{}, largest probability", other.name), &other.max_probability);
        row(format!("{}, energy", other.name), &other.energy);
    }
    format!("\n{}", table.render(Style::of_stdout()))
}
