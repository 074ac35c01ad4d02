//! Comparison of the methods of `bench`.

use super::chart::Colour;
use super::rows::{Mark, Row as Drawn, Scale, rows};
use super::text::{escape, figure, folded, key, note, paragraph, table};
use crate::bench::{Cost, RowResult};
use crate::evaluate::{Effect, Estimate};
use crate::format::{ABSENT, effect, estimate, share};
use crate::report::bench::BenchReport;
use crate::report::{answer_tables, epoch_zero_note, intervals_sentence, unanswered_note};

/// Loss, time and memory of each method, the answers to the questions, and the verdicts.
pub fn methods(report: &BenchReport) -> String {
    let seeds = report.seeds.len();
    let many = if seeds == 1 { "seed" } else { "seeds" };
    let answered = report.rows.iter().any(|row| row.answers.is_some());
    let mut out = paragraph(&format!(
        "All methods start from one model. Each is compared with plain SGD on the same layers and \
         batches, over {seeds} {many}. {}.",
        match answered {
            true => {
                "Error bars of gains are 95% intervals over seeds and test images; all others are \
                 one standard error over seeds"
            }
            false => "Error bars are one standard error over seeds",
        }
    ));
    out += &key(&[
        ("blue", "full", "uncalibrated"),
        ("orange", "full", "with temperature"),
        ("muted", "full", "controls and the untuned model"),
    ]);
    out += "<div class=\"charts\">\n";
    let loss = |r: &RowResult| {
        vec![Bar::error(r.nll, Colour::Blue), Bar::error(r.calibrated_nll, Colour::Orange)]
    };
    out += &chart(report, "Test loss", "NLL, nats per image; lower is better", Scale::Close, loss);
    let gain = |r: &RowResult| -> Vec<Bar> {
        let (raw, calibrated) = (r.gain_over_control, r.calibrated_gain_over_control);
        match &r.answers {
            Some(answers) => {
                let (raw, calibrated) =
                    (answers.nll_over_control, answers.calibrated_nll_over_control);
                let raw = raw.map(|gain| Bar::interval(gain, Colour::Blue));
                raw.into_iter()
                    .chain(calibrated.map(|e| Bar::interval(e, Colour::Orange)))
                    .collect()
            }
            None => {
                let raw = raw.map(|gain| Bar::error(gain, Colour::Blue));
                raw.into_iter().chain(calibrated.map(|e| Bar::error(e, Colour::Orange))).collect()
            }
        }
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
            cost.and_then(of).map(|e| Bar::error(e, Colour::Blue)).into_iter().collect()
        }
    };
    let seconds = cost(|c| Some(c.seconds_per_epoch));
    out += &chart(report, "Time", "seconds per epoch, logarithmic", Scale::Log, seconds);
    let memory = cost(|c| c.peak_mib);
    out += &chart(report, "Memory", "peak of the process, MiB", Scale::WithZero, memory);
    out += "</div>\n";
    match unanswered_note(report) {
        Some(text) => out += &note(text),
        None => {
            let verdicts: String =
                report.verdicts.iter().map(|v| format!("<li>{}</li>\n", escape(v))).collect();
            out += &paragraph("Verdicts on the perturbation, by calibrated NLL:");
            out += &format!("<ul>\n{verdicts}</ul>\n");
            out += &note(&intervals_sentence(report));
        }
    }
    for answer in answer_tables(report) {
        out +=
            &format!("<h3>{}</h3>\n{}", escape(answer.title), table(&answer.headers, &answer.rows));
    }
    out += &epoch_zero_note(report).map_or(String::new(), note);
    if let Some(plan) = &report.plan {
        out += &note(&format!("Layers: {plan}."));
    }
    out + &folded("The figures", &figures(report))
}

/// A figure to draw, with its bar.
struct Bar {
    mark: Mark,
    told: String,
}

impl Bar {
    /// With one standard error to each side.
    fn error(e: Estimate, colour: Colour) -> Self {
        Self {
            mark: Mark { value: e.mean, half: e.stderr, colour, filled: true },
            told: estimate(e),
        }
    }

    /// With a 95% interval.
    fn interval(e: Effect, colour: Colour) -> Self {
        let half = e.interval.map(|[low, high]| 0.5 * (high - low));
        Self { mark: Mark { value: e.mean, half, colour, filled: true }, told: effect(&e) }
    }
}

fn chart(
    report: &BenchReport,
    title: &str,
    label: &str,
    scale: Scale,
    of: impl Fn(&RowResult) -> Vec<Bar>,
) -> String {
    let (mut drawn, mut told) = (Vec::new(), Vec::new());
    for row in &report.rows {
        let values = of(row);
        if values.is_empty() {
            continue;
        }
        let words: Vec<&str> = values.iter().map(|bar| bar.told.as_str()).collect();
        told.push(format!("{} {}", row.name, words.join(" and ")));
        let treated = row.gain_over_control.is_some();
        let plain = !treated && values.len() == 1;
        let marks = values.iter().map(|bar| match plain {
            true => Mark { colour: Colour::Muted, ..bar.mark },
            false => bar.mark,
        });
        let marks = marks.collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Answers;
    use crate::evaluate::{Crossed, EQUIVALENT_NATS, Verdict};
    use crate::report::html::summary::is_better;

    /// A report that the first version of planish wrote.
    fn earlier() -> BenchReport {
        serde_json::from_str(include_str!("../../../tests/reference/bench-earlier.json")).unwrap()
    }

    #[test]
    fn reports_of_earlier_versions_are_shown_without_answers() {
        let mut report = earlier();
        // Verdicts of that version are sentences, which nothing reads.
        report.verdicts = vec!["PoL head → norm: NLL better than its control (1 ± 0)".into()];
        let page = methods(&report);
        assert!(
            page.contains("of an earlier version") && !page.contains("better than its control")
        );
        assert!(page.contains("Error bars are one standard error") && !page.contains("<h3>"));
        assert!(!report.rows.iter().any(is_better));
    }

    #[test]
    fn answers_are_tables_and_their_intervals_are_drawn() {
        let mut report = earlier();
        let found = Crossed { mean: 0.05, stderr: Some(0.01), degrees_of_freedom: Some(4.0) };
        let gain = Effect::of(found, Some(EQUIVALENT_NATS), [5, 5000]);
        assert_eq!(gain.verdict, Some(Verdict::Better));
        for row in &mut report.rows[1..] {
            let over = row.control.as_ref().map(|_| gain);
            row.answers = Some(Answers {
                nll: gain,
                won_back: None,
                top1: gain,
                nll_over_control: over,
                calibrated_nll_over_control: over,
                calibrated_nll: gain,
            });
        }
        let page = methods(&report);
        for part in
            ["Does the loss fall?", "Does the perturbation matter?", "after temperature scaling?"]
        {
            assert!(page.contains(part), "{part}");
        }
        // 2.776 standard errors to each side, in the tables and in the description of the chart.
        assert!(page.matches("0.050 (0.022 to 0.078)").count() > 4, "{page}");
        let better: Vec<&str> =
            report.rows.iter().filter(|row| is_better(row)).map(|row| row.name.as_str()).collect();
        assert_eq!(better, ["PoL head → norm"]);
    }
}
