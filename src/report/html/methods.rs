//! Comparison of the methods of `bench`.

use super::chart::Colour;
use super::rows::{Mark, Row as Drawn, Scale, rows};
use super::text::{escape, figure, folded, key, note, paragraph, table};
use crate::bench::{Cost, RowResult};
use crate::evaluate::Estimate;
use crate::format::{ABSENT, estimate, share};
use crate::report::bench::BenchReport;

/// Loss, time and memory of each method, and the verdicts.
pub fn methods(report: &BenchReport) -> String {
    let seeds = report.seeds.len();
    let many = if seeds == 1 { "seed" } else { "seeds" };
    let mut out = paragraph(&format!(
        "All methods start from one model. Each is compared with plain SGD on the same layers and \
         batches, over {seeds} {many}. Bars show one standard error over seeds."
    ));
    out += &key(&[
        ("blue", "full", "uncalibrated"),
        ("orange", "full", "with temperature"),
        ("muted", "full", "controls and the untuned model"),
    ]);
    out += "<div class=\"charts\">\n";
    let loss = |r: &RowResult| vec![(r.nll, Colour::Blue), (r.calibrated_nll, Colour::Orange)];
    out += &chart(report, "Test loss", "NLL, nats per image; lower is better", Scale::Close, loss);
    let gain = |r: &RowResult| {
        let both =
            [(r.gain_over_control, Colour::Blue), (r.calibrated_gain_over_control, Colour::Orange)];
        both.into_iter().filter_map(|(e, c)| e.map(|e| (e, c))).collect()
    };
    out += &chart(
        report,
        "Gain over the control",
        "nats per image; higher is better",
        Scale::WithZero,
        gain,
    );
    let cost = |of: fn(&Cost) -> Option<Estimate>| {
        move |r: &RowResult| {
            let cost = report.run.costs.iter().find(|c| c.name == r.name);
            cost.and_then(of).map(|e| (e, Colour::Blue)).into_iter().collect()
        }
    };
    let seconds = cost(|c| Some(c.seconds_per_epoch));
    out += &chart(report, "Time", "seconds per epoch, logarithmic", Scale::Log, seconds);
    let memory = cost(|c| c.peak_mib);
    out += &chart(report, "Memory", "peak of the process, MiB", Scale::WithZero, memory);
    out += "</div>\n";
    let verdicts: String =
        report.verdicts.iter().map(|v| format!("<li>{}</li>\n", escape(v))).collect();
    out += &format!("<ul>\n{verdicts}</ul>\n");
    if let Some(plan) = &report.plan {
        out += &note(&format!("Layers of PoL: {plan}."));
    }
    out + &folded("The figures", &figures(report))
}

fn chart(
    report: &BenchReport,
    title: &str,
    label: &str,
    scale: Scale,
    of: impl Fn(&RowResult) -> Vec<(Estimate, Colour)>,
) -> String {
    let (mut drawn, mut told) = (Vec::new(), Vec::new());
    for row in &report.rows {
        let values = of(row);
        if values.is_empty() {
            continue;
        }
        let words: Vec<String> = values.iter().map(|(e, _)| estimate(*e)).collect();
        told.push(format!("{} {}", row.name, words.join(" and ")));
        let treated = row.gain_over_control.is_some();
        let marks = values
            .iter()
            .map(|(e, colour)| Mark {
                value: e.mean,
                half: e.stderr,
                colour: if treated || values.len() > 1 { *colour } else { Colour::Muted },
                filled: true,
            })
            .collect();
        drawn.push(Drawn { name: row.name.clone(), strong: treated, marks });
    }
    if drawn.is_empty() {
        return String::new();
    }
    figure(title, label, &rows((title, &told.join("; ")), "", &drawn, scale))
}

fn figures(report: &BenchReport) -> String {
    let headers = [
        "",
        "test NLL",
        "calibrated NLL",
        "top-1",
        "ECE",
        "gain over control",
        "s/epoch",
        "peak MiB",
    ];
    let told = |e: Option<Estimate>| e.map_or(ABSENT.into(), estimate);
    let row = |r: &RowResult| {
        let cost = report.run.costs.iter().find(|c| c.name == r.name);
        vec![
            r.name.clone(),
            estimate(r.nll),
            estimate(r.calibrated_nll),
            share(r.top1),
            estimate(r.ece),
            told(r.gain_over_control),
            told(cost.map(|c| c.seconds_per_epoch)),
            told(cost.and_then(|c| c.peak_mib)),
        ]
    };
    let rows: Vec<Vec<String>> = report.rows.iter().map(row).collect();
    table(&headers, &rows)
}
