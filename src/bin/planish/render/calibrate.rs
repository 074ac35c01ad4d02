//! Text output of `calibrate`.

use crate::message::in_flags;
use crate::render::sentence::sentence;
use crate::render::table::{Align, Style, Table};
use planish::calibrate::Scaling;
use planish::evaluate::Estimate;
use planish::format::{count, estimate, images, number, percent, share};
use planish::report::{CalibrationReport, Conformal, SET_HEADERS, laplace_sentence};

/// Figures before and after, what was written, and the notes.
pub fn text(report: &CalibrationReport, notes: &[&String]) -> String {
    let mut out = format!(
        "{}, fitted on {} of {}: temperature {}\n\n",
        match report.method {
            Scaling::Temperature => "temperature scaling",
            Scaling::Svs => "structured vector scaling",
            Scaling::Sms => "structured matrix scaling",
        },
        images(report.fitted_on),
        report.validation.data.origin,
        number(report.temperature),
    );
    out += &figures(report).render(Style::of_stdout());
    out += "\n";
    if let Some(part) = &report.test {
        out += &format!(
            "test, before − after, paired: NLL {} ({}; above 0 is better)\n",
            estimate(part.shown_gains()[0]),
            images(part.before.images),
        );
    }
    if let Some(gain) = report.cross_fit_gain {
        out += &format!(
            "validation, each half calibrated by the other: NLL gain {}\n",
            estimate(gain)
        );
    }
    let part = report.test.as_ref().unwrap_or(&report.validation);
    if let Some(flips) = part.flips.as_ref().filter(|flips| flips.fixed + flips.broken > 0) {
        out += &format!(
            "predictions that became right: {}; that became wrong: {}\n",
            count(flips.fixed as u64),
            count(flips.broken as u64)
        );
    }
    if let Some(laplace) = &report.laplace {
        out += &format!("{}\n", laplace_sentence(laplace));
    }
    if let Some(conformal) = &report.conformal {
        out += &format!("\n{}", conformal_text(conformal));
    }
    out += &match &report.output {
        Some(file) => format!("\nwritten to {}\n", file.path),
        None => "\nnothing written\n".into(),
    };
    if report.output.as_ref().is_some_and(|file| file.undo.is_some()) {
        out += &format!("`planish undo {}` restores it\n", report.checkpoint.path);
    }
    for note in notes {
        out += &format!("note: {}\n", in_flags(note));
    }
    if let Some(comparison) = part.comparison.as_ref() {
        out += &format!("{}\n", sentence(comparison, "before", "after"));
    }
    out
}

fn figures(report: &CalibrationReport) -> Table {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("", Align::Left),
        right("NLL"),
        right("top-1"),
        right("ECE"),
        right("ECE by chance"),
    ]);
    let of_test = report.test.is_some();
    for (name, part) in [("validation", Some(&report.validation)), ("test", report.test.as_ref())] {
        let Some(part) = part else { continue };
        let null = (name == "test") == of_test;
        for (when, s, chance) in [
            ("before", &part.before, report.null_ece.before),
            ("after", &part.after, report.null_ece.after),
        ] {
            let ece_stderr = s.details.as_ref().and_then(|d| d.ece_stderr);
            // The map was fitted on V.
            let fitted = if (name, when) == ("validation", "after") { ", in-sample" } else { "" };
            table.row([
                format!("{name} {when}{fitted}"),
                estimate(Estimate { mean: s.nll, stderr: s.nll_stderr }),
                share(Estimate { mean: s.top1, stderr: s.top1_stderr }),
                estimate(Estimate { mean: s.ece, stderr: ece_stderr }),
                if null { number(chance) } else { String::new() },
            ]);
        }
    }
    if let Some(test) = report.laplace.as_ref().and_then(|laplace| laplace.test) {
        table.row([
            "test, Laplace".into(),
            estimate(test.nll),
            share(test.top1),
            estimate(test.ece),
            number(test.null_ece),
        ]);
    }
    table
}

fn conformal_text(conformal: &Conformal) -> String {
    let columns: Vec<(&str, Align)> = SET_HEADERS
        .iter()
        .enumerate()
        .map(|(i, name)| (*name, if i == 0 { Align::Left } else { Align::Right }))
        .collect();
    let mut table = Table::new(&columns);
    conformal.rows().into_iter().for_each(|row| table.row(row));
    let held_out = conformal.after.first().map_or(0, |sets| sets.held_out);
    format!(
        "conformal sets on test, with thresholds from {} used for nothing else; they should cover {}\n{}",
        images(held_out),
        percent(1.0 - conformal.alpha),
        table.render(Style::of_stdout())
    )
}
