//! Text output of `bench`.

use crate::message::in_flags;
use crate::render::table::{Align, Style, Table};
use planish::cache::CacheInfo;
use planish::evaluate::Estimate;
use planish::format::{duration, estimate, number, percent};
use planish::report::bench::BenchReport;
use planish::report::{answer_tables, epoch_zero_note, intervals_sentence, unanswered_note};
use planish::session::bad_samples::damage_note;

/// Figures and costs of each row, the answers to the questions, the verdicts, and how strong the
/// perturbations were. Tables fit 100 columns.
pub fn text(report: &BenchReport) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("", Align::Left),
        right("test NLL"),
        right("calibrated NLL"),
        right("top-1 %"),
    ]);
    let mut costs =
        Table::new(&[("", Align::Left), right("ECE"), right("s/epoch"), right("peak MiB")]);
    for row in &report.rows {
        let cost = report.run.costs.iter().find(|c| c.name == row.name);
        let share = |e: &Estimate| {
            estimate(Estimate { mean: 100.0 * e.mean, stderr: e.stderr.map(|s| 100.0 * s) })
        };
        table.row([
            row.name.clone(),
            estimate(row.nll),
            estimate(row.calibrated_nll),
            share(&row.top1),
        ]);
        costs.row([
            row.name.clone(),
            estimate(row.ece),
            cost.map_or(String::new(), |c| estimate(c.seconds_per_epoch)),
            cost.and_then(|c| c.peak_mib).map_or(String::new(), estimate),
        ]);
    }
    let plan = report.plan.as_ref().map_or(String::new(), |plan| format!("layers {plan}; "));
    let mut out = format!(
        "{plan}{} seeds, ± is the standard error over them\n\n{}\n{}\n",
        report.seeds.len(),
        table.render(Style::of_stdout()),
        costs.render(Style::of_stdout())
    );
    let answers = answer_tables(report);
    if !answers.is_empty() {
        out += &format!("{}\n\n", intervals_sentence(report));
    }
    for answer in answers {
        let columns = answer.headers.iter().enumerate();
        let columns: Vec<(&str, Align)> = columns
            .map(|(i, name)| (*name, if i == 0 { Align::Left } else { Align::Right }))
            .collect();
        let mut table = Table::new(&columns);
        answer.rows.into_iter().for_each(|row| table.row(row));
        out += &format!("{}\n{}\n", answer.title, table.render(Style::of_stdout()));
    }
    out += &epoch_zero_note(report).map_or(String::new(), |note| format!("{note}\n\n"));
    match unanswered_note(report) {
        Some(note) => out += &format!("note: {note}\n"),
        None => {
            out += "Verdicts on the perturbation, by calibrated NLL:\n";
            for verdict in &report.verdicts {
                out += &format!("{verdict}\n");
            }
        }
    }
    for row in report.rows.iter().filter(|row| row.temperatures_at_bound > 0) {
        out += &format!(
            "note: {}: the loss on V has no minimum over the temperature ({} runs; their reports \
             contain the temperature used)\n",
            row.name, row.temperatures_at_bound
        );
    }
    for row in &report.rows {
        let rejected = row.rejected.map_or(String::new(), |rejected| {
            format!(", {} of steps rejected", percent(rejected.mean))
        });
        let perturbation = match (&row.perturbation, &row.perturbation_length) {
            (Some(share), _) => format!("‖Δw_p‖/‖w_p‖ {}", percent(share.mean)),
            (None, Some(length)) => format!("‖Δw_p‖ {} from zero weights", number(length.mean)),
            (None, None) if rejected.is_empty() => continue,
            (None, None) => "no perturbation".into(),
        };
        if let Some(loss) = &row.training_loss {
            let capped = row.capped.map_or(String::new(), |capped| {
                format!(", {} of searches capped", percent(capped.mean))
            });
            out += &format!(
                "{}: mean perturbed loss {:.4}, {perturbation}{capped}{rejected}\n",
                row.name, loss.mean
            );
        }
    }
    if let Some(note) = damage_note(&report.damaged) {
        out += &format!("note: {}\n", in_flags(&note));
    }
    let all: Vec<&CacheInfo> = report.run.costs.iter().flat_map(|c| &c.cache).collect();
    let read = all.iter().filter(|c| c.found > 0 && c.found == c.views).count();
    if read > 0 {
        let n = all.len();
        out += &format!("{read} of {n} runs read the activations of frozen layers from files\n");
    }
    out + &format!("total {}\n", duration(report.run.run.seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish::bench::{Answers, EpochZero};
    use planish::evaluate::{Crossed, EQUIVALENT_NATS, Effect};

    /// A report that the first version wrote: `planish bench assets/model --data assets/data --methods pol
    /// --perturb head --update norm --seeds 2 --epochs 1 --remeasure 0`.
    fn earlier() -> BenchReport {
        let text = include_str!("../../../../tests/reference/bench-earlier.json");
        serde_json::from_str(text).unwrap()
    }

    fn effect(mean: f64) -> Effect {
        let found = Crossed { mean, stderr: Some(0.0123), degrees_of_freedom: Some(4.2) };
        Effect::of(found, Some(EQUIVALENT_NATS), [5, 5000])
    }

    #[test]
    fn reports_of_earlier_versions_are_shown_without_answers() {
        let shown = text(&earlier());
        assert!(shown.contains("note: This bench report is of an earlier version"), "{shown}");
        assert!(!shown.contains("NLL worse") && !shown.contains("Does the loss fall?"), "{shown}");
    }

    #[test]
    fn every_question_has_its_table_within_100_columns() {
        let mut report = earlier();
        report.seeds = vec![0, 1, 2, 3, 4];
        report.verdicts.clear();
        for row in &mut report.rows[1..] {
            row.name = row.name.replace("head → norm", "block.11 → block.11");
            let over = row.control.as_ref().map(|_| effect(-0.0123));
            let answers = Answers {
                nll: effect(-0.0456),
                won_back: Some(Effect { mean: -0.23, ..effect(0.0) }),
                top1: effect(-0.0456),
                nll_over_control: over,
                calibrated_nll_over_control: over,
                calibrated_nll: effect(-0.0123),
            };
            let (nll, calibrated_nll) = (effect(0.5).estimate(), effect(0.5).estimate());
            row.epoch_zero =
                Some(EpochZero { kept: 2, nll, calibrated_nll, answers: answers.clone() });
            row.answers = Some(answers);
        }
        let shown = text(&report);
        for part in [
            "Does the loss fall?",
            "Does the perturbation matter?",
            "Does a gain remain after temperature scaling?",
            "(epoch 0) as a candidate in every run",
            "2 of 5",
            "rises",
            "undecided, minimum detectable 0.04",
            // 2.73 standard errors to each side.
            "-4.6 (-7.9 to -1.2)",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        for line in shown.lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", line.chars().count());
        }
        report.rows[1..]
            .iter_mut()
            .filter_map(|row| row.epoch_zero.as_mut())
            .for_each(|z| z.kept = 0);
        let shown = text(&report);
        assert!(shown.contains("changes nothing") && !shown.contains("2 of 5"), "{shown}");
    }
}
