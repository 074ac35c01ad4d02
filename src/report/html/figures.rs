//! Figures of models on images: differences, reliability, shifts.

use super::chart::{Axis, Colour, svg};
use super::text::{escape, figure, fitting, key, note, paragraph, table};
use crate::evaluate::{Bin, Comparison, Difference, Estimate, Reliability, Summary, Verdict};
use crate::format::{ABSENT, count, estimate, number, optional, percent, share};
use crate::report::sentence::{name, rounded};
use crate::shift::Corruption;
use crate::shift::{Other, Shifts};
use std::fmt::Write;

/// Differences and their intervals.
pub fn differences(comparison: &Comparison, [a, b]: [&str; 2]) -> String {
    let headers = ["figure", a, b, "gain", "95% interval", "verdict"];
    let row = |d: &Difference| {
        let share = d.figure == "top1";
        let show = |x: f64| if share { percent(x) } else { rounded(x, d.shown_gain().stderr) };
        let value = |x: f64| if share { percent(x) } else { number(x) };
        vec![
            name(&d.figure).into(),
            value(d.a),
            value(d.b),
            show(d.shown_gain().mean),
            d.shown_interval()
                .map_or(ABSENT.into(), |[l, h]| format!("{} to {}", show(l), show(h))),
            match d.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::Equivalent => "no difference",
                Verdict::Open => "undecided",
            }
            .into(),
        ]
    };
    let rows: Vec<Vec<String>> = comparison.differences.iter().map(row).collect();
    let m = &comparison.mcnemar;
    fitting(&headers, &rows)
        + &note(&format!(
            "{} images, {} bootstrap resamples, seed {}. Only the first is right on {} images, \
             only the second on {}: McNemar's exact p = {}. Intervals are over images, not over \
             training runs.",
            count(comparison.images as u64),
            count(comparison.resamples as u64),
            comparison.seed,
            count(m.only_a as u64),
            count(m.only_b as u64),
            number(m.p)
        ))
}

/// Models in columns, figures in rows.
pub fn summaries(models: &[(String, &Summary)]) -> String {
    let mut headers = vec!["figure"];
    headers.extend(models.iter().map(|(name, _)| name.as_str()));
    let of = |mean, stderr| estimate(Estimate { mean, stderr });
    type Cell<'a> = (&'a str, &'a dyn Fn(&Summary) -> String);
    let cells: [Cell; 10] = [
        ("images", &|s| count(s.images as u64)),
        ("NLL (nats)", &|s| of(s.nll, s.nll_stderr)),
        ("calibrated NLL (nats)", &|s| of(s.calibrated_nll, s.calibrated_nll_stderr)),
        ("temperature", &|s| number(s.temperature)),
        ("top-1", &|s| share(Estimate { mean: s.top1, stderr: s.top1_stderr })),
        ("ECE", &|s| of(s.ece, s.details.as_ref().and_then(|d| d.ece_stderr))),
        ("calibrated ECE", &|s| {
            of(s.calibrated_ece, s.details.as_ref().and_then(|d| d.calibrated_ece_stderr))
        }),
        ("Brier score", &|s| {
            s.details.as_ref().map_or(ABSENT.into(), |d| of(d.brier, d.brier_stderr))
        }),
        ("mean confidence", &|s| optional(s.details.as_ref().map(|d| d.confidence))),
        ("AURC", &|s| s.details.as_ref().map_or(ABSENT.into(), |d| of(d.aurc, d.aurc_stderr))),
    ];
    let row = |(name, cell): &Cell| {
        std::iter::once((*name).to_owned()).chain(models.iter().map(|(_, s)| cell(s))).collect()
    };
    let rows: Vec<Vec<String>> = cells.iter().map(row).collect();
    let noted = |(name, s): &(String, &Summary)| {
        s.temperature_note().map(|text| note(&format!("Temperature of {name}: {text}.")))
    };
    table(&headers, &rows) + &models.iter().filter_map(noted).collect::<String>()
}

/// Reliability diagrams; `None` if no file has any.
pub fn reliability(models: &[(String, &Summary)]) -> Option<String> {
    let drawn: String = models
        .iter()
        .filter_map(|(name, s)| s.reliability.as_ref().map(|r| (name, *s, r)))
        .map(|(name, s, r)| {
            let (raw, after) = (number(s.ece), number(s.calibrated_ece));
            figure(
                &format!("Reliability: {name}"),
                &format!(
                    "accuracy against confidence; ECE {raw}, {after} with temperature {}",
                    number(s.temperature)
                ),
                &diagram(name, r),
            )
        })
        .collect();
    let words = "Accuracy of images grouped by confidence. On the dashed line, accuracy equals \
                 confidence. Larger dots represent more images. Bars are 95% intervals of the \
                 accuracy.";
    (!drawn.is_empty()).then(|| {
        paragraph(words)
            + &key(&[("orange", "full", "uncalibrated"), ("blue", "full", "with temperature")])
            + &format!("<div class=\"charts\">\n{drawn}</div>\n")
    })
}

fn diagram(name: &str, r: &Reliability) -> String {
    let filled =
        |bins: &[Bin]| -> Vec<Bin> { bins.iter().filter(|b| b.images > 0).copied().collect() };
    let (raw, calibrated) = (filled(&r.raw), filled(&r.calibrated));
    let told: Vec<String> = raw
        .iter()
        .map(|b| format!("confidence {}, accuracy {}", percent(b.confidence), percent(b.accuracy)))
        .collect();
    let title = format!("Reliability of {name}");
    let axes = (Axis::exact("confidence", 0.0, 1.0), Axis::exact("accuracy", 0.0, 1.0));
    svg((680, 540), (&title, &format!("Uncalibrated: {}.", told.join("; "))), axes, 104, |c| {
        c.x_axis();
        c.y_axis();
        c.line(&[(0.0, 0.0), (1.0, 1.0)], Colour::Dashes, 3);
        for (bins, colour) in [(&raw, Colour::Orange), (&calibrated, Colour::Blue)] {
            let points: Vec<_> = bins.iter().map(|b| (b.confidence, b.accuracy)).collect();
            c.line(&points, colour, 3);
            let all: usize = bins.iter().map(|b| b.images).sum();
            for b in bins {
                let [low, high] = b.interval();
                c.line(&[(b.confidence, low), (b.confidence, high)], colour, 2);
                let share = (b.images as f64 / all.max(1) as f64).sqrt();
                c.dot(b.confidence, b.accuracy, colour, 4 + (16.0 * share) as u32, true);
            }
        }
    })
}

/// Number of cells of a complete matrix.
const WHOLE: usize = 5 * Corruption::ALL.len();

/// One model's matrix of shifts as a heat map.
pub fn heat(name: &str, clean: &Summary, shifts: &Shifts) -> String {
    let severities: Vec<usize> =
        (1..=5).filter(|s| shifts.cells.iter().any(|c| c.severity == *s)).collect();
    let mut corruptions: Vec<&str> = shifts.cells.iter().map(|c| c.corruption.as_str()).collect();
    corruptions.dedup();
    let mut out = format!(
        "<h3>{}</h3>\n<div class=\"scroll\"><table class=\"heat\"><thead><tr>\
         <th scope=\"col\">top-1 by severity</th>",
        escape(name)
    );
    severities.iter().for_each(|s| {
        let _ = write!(out, "<th scope=\"col\">{s}</th>");
    });
    out += "</tr></thead><tbody>\n";
    for corruption in corruptions {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(&corruption.replace('_', " ")));
        for s in &severities {
            let same =
                |c: &&crate::shift::CorruptedCell| c.corruption == corruption && c.severity == *s;
            let top1 = shifts.cells.iter().find(same).map(|c| c.figures.top1);
            // Full intensity means that all of the clean accuracy is lost. It is scaled to 80% to
            // keep text readable.
            let lost = top1.map_or(0.0, |x| ((clean.top1 - x) / clean.top1).clamp(0.0, 1.0));
            let lost = if lost.is_finite() { 80.0 * lost } else { 0.0 };
            let text = top1.map_or(ABSENT.into(), percent);
            let _ = write!(out, "<td style=\"--p:{lost:.0}%\">{text}</td>");
        }
        out += "</tr>\n";
    }
    out += "</tbody></table></div>\n";
    out + &note(&format!(
        "Clean images: {}. Mean corruption error{} {} ({} settings){}.",
        percent(clean.top1),
        match shifts.cells.len() {
            WHOLE => String::new(),
            n => format!(" of {n} of {WHOLE} cells"),
        },
        percent(shifts.mean_error),
        shifts.settings,
        if shifts.finished { "" } else { "; some cells are missing" }
    ))
}

/// Accuracy and calibration against severity, one line per model.
pub fn by_severity(models: &[(String, &Shifts)]) -> String {
    let charts = [
        ("Top-1 against severity", (|s| s.top1) as fn(&crate::shift::SeverityMeans) -> f64),
        ("ECE against severity", |s| s.ece),
    ];
    let names: Vec<(&str, &str, &str)> = models
        .iter()
        .zip(Colour::SERIES.iter().cycle())
        .map(|((name, _), colour)| (colour.name(), "full", name.as_str()))
        .collect();
    let mut out = key(&names) + "<div class=\"charts\">\n";
    for (title, of) in charts {
        let points = |shifts: &Shifts| -> Vec<(f64, f64)> {
            shifts.by_severity.iter().map(|s| (s.severity as f64, of(s))).collect()
        };
        let all = models.iter().flat_map(|(_, s)| points(s)).map(|p| p.1);
        let axes = (Axis::exact("severity", -0.15, 5.15), Axis::around("", all));
        let told: Vec<String> = models
            .iter()
            .map(|(name, s)| {
                let values: Vec<String> = points(s).iter().map(|p| number(p.1)).collect();
                format!("{name}, from clean images on: {}", values.join(", "))
            })
            .collect();
        let drawn = svg((680, 420), (title, &told.join("; ")), axes, 78, |c| {
            c.x_axis();
            c.y_axis();
            for ((_, s), colour) in models.iter().zip(Colour::SERIES.into_iter().cycle()) {
                c.line(&points(s), colour, 4);
                points(s).iter().for_each(|&(x, y)| c.dot(x, y, colour, 8, true));
            }
        });
        out += &figure(title, "mean over corruptions; 0 is clean", &drawn);
    }
    out + "</div>\n"
}

/// Out-of-distribution detection.
pub fn others(others: &[Other]) -> String {
    let row = |o: &Other| {
        let of = |e| estimate(e);
        vec![
            o.name.clone(),
            count(o.data.images as u64),
            of(o.max_probability.auroc),
            of(o.max_probability.fpr95),
            of(o.energy.auroc),
            of(o.energy.fpr95),
        ]
    };
    let headers = [
        "other images",
        "images",
        "AUROC, softmax",
        "FPR@95, softmax",
        "AUROC, energy",
        "FPR@95, energy",
    ];
    let rows: Vec<Vec<String>> = others.iter().map(row).collect();
    table(&headers, &rows)
}
