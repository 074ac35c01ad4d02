//! Text output of `eval`.

use super::shifts::{others_text, shifted_text};
use crate::message::in_flags;
use crate::render::table::{Align, Style, Table};
use planish::evaluate::{ByClass, ClassFigures, Estimate, Summary};
use planish::format::{count, estimate, number, share};
use planish::report::Evaluation;

/// Rows of the tables of worst classes, of groups and of confusions.
const SHOWN: usize = 5;

/// The figures, then the worst classes and groups, the results on shifts and other data sets, and the notes.
pub fn text(report: &Evaluation) -> String {
    let mut out = format!(
        "{} on {}, {}: {} images\ntemperature fitted on {}\n\n",
        report.checkpoint.path,
        report.data.path,
        report.data.origin,
        count(report.data.images as u64),
        report.temperature_origin,
    );
    out += &table(&report.figures).render(Style::of_stdout());
    out += &report.by_class.as_ref().map_or(String::new(), by_class);
    out += &report.shifts.as_ref().map_or(String::new(), shifted_text);
    if !report.others.is_empty() {
        out += &others_text(&report.others);
    }
    if let Some(note) = report.figures.temperature_note() {
        out += &format!("note: temperature: {note}\n");
    }
    if let Some(absent) =
        report.figures.details.as_ref().map(|d| d.absent_classes).filter(|&n| n > 0)
    {
        out += &format!(
            "note: {absent} of the model's classes have no image in this split; the class-wise ECE \
             includes the probability assigned to them\n"
        );
    }
    report.warnings.iter().for_each(|warning| out += &format!("note: {}\n", in_flags(warning)));
    out
}

/// The classes and groups of lowest accuracy, and the most frequent confusions. Nothing if the model has one class.
fn by_class(found: &ByClass) -> String {
    if found.classes.len() < 2 {
        return String::new();
    }
    let style = Style::of_stdout();
    let headers = |first| {
        [
            (first, Align::Left),
            ("images", Align::Right),
            ("top-1", Align::Right),
            ("NLL (nats)", Align::Right),
        ]
    };
    let rated = |top1, top1_stderr, nll, nll_stderr| {
        let [top1, nll] = [(top1, top1_stderr), (nll, nll_stderr)]
            .map(|(mean, stderr)| Estimate { mean, stderr });
        [share(top1), estimate(nll)]
    };
    let mut out = String::new();
    if !found.groups.is_empty() {
        let mut table = Table::new(&headers("group"));
        let mut groups: Vec<_> = found.groups.iter().collect();
        groups.sort_by(|a, b| a.top1.total_cmp(&b.top1));
        for g in groups.iter().take(SHOWN) {
            let [top1, nll] = rated(g.top1, g.top1_stderr, g.nll, g.nll_stderr);
            table.row([g.name.clone(), count(g.images as u64), top1, nll]);
        }
        out += &format!("\ngroups, lowest accuracy first{}\n", of_all(found.groups.len()));
        out += &table.render(style);
    }
    let worst = found.worst_first();
    let mut table = Table::new(&headers("class"));
    for &ClassFigures { ref name, images, top1, top1_stderr, nll, nll_stderr, .. } in
        worst.iter().copied().take(SHOWN)
    {
        let [top1, nll] =
            rated(top1.unwrap_or(f64::NAN), top1_stderr, nll.unwrap_or(f64::NAN), nll_stderr);
        table.row([name.clone(), count(images as u64), top1, nll]);
    }
    out += &format!("\nclasses, lowest accuracy first{}\n", of_all(worst.len()));
    out += &table.render(style);
    let confusions = found.confusions();
    if !confusions.is_empty() {
        let columns =
            [("label", Align::Left), ("predicted as", Align::Left), ("images", Align::Right)];
        let mut table = Table::new(&columns);
        let name = |class: usize| found.classes.get(class).map_or("", |class| &class.name);
        for &[label, predicted, images] in confusions.iter().take(SHOWN) {
            table.row([name(label), name(predicted), &count(images as u64)]);
        }
        out += &format!("\nmost frequent confusions\n{}", table.render(style));
    }
    out + "\n"
}

/// ` (5 of 10)` if some rows are left out.
fn of_all(n: usize) -> String {
    if n > SHOWN { format!(" ({SHOWN} of {n})") } else { String::new() }
}

fn table(f: &Summary) -> Table {
    let of = |mean, stderr| estimate(Estimate { mean, stderr });
    let share = |mean, stderr| share(Estimate { mean, stderr });
    let mut table = Table::new(&[("figure", Align::Left), ("value", Align::Right)]);
    let d = f.details.as_ref();
    table.row(["NLL (nats)", &of(f.nll, f.nll_stderr)]);
    table.row(["top-1", &share(f.top1, f.top1_stderr)]);
    table.row(["top-5", &share(f.top5, d.and_then(|d| d.top5_stderr))]);
    if let Some(d) = d {
        table.row(["Brier score", &of(d.brier, d.brier_stderr)]);
    }
    table.row(["ECE, equal width", &of(f.ece, d.and_then(|d| d.ece_stderr))]);
    if let Some(d) = d {
        table.row(["ECE, equal mass", &of(d.ece_equal_mass, d.ece_equal_mass_stderr)]);
        table.row(["ECE, class-wise", &of(d.ece_class_wise, d.ece_class_wise_stderr)]);
        table.row(["confidence", &share(d.confidence, d.confidence_stderr)]);
        table.row(["entropy (nats)", &of(d.entropy, d.entropy_stderr)]);
        table.row(["AURC", &of(d.aurc, d.aurc_stderr)]);
    }
    table.row(["temperature", &number(f.temperature)]);
    if let (Some(first), Some(second)) = (f.temperature_of_first_half, f.temperature_of_second_half)
    {
        table.row(["used for each half", &format!("{}, {}", number(first), number(second))]);
    }
    table.row(["calibrated NLL (nats)", &of(f.calibrated_nll, f.calibrated_nll_stderr)]);
    let calibrated_ece = of(f.calibrated_ece, d.and_then(|d| d.calibrated_ece_stderr));
    table.row(["calibrated ECE", &calibrated_ece]);
    table
}
