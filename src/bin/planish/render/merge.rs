//! Text output of `merge`.

use crate::message::in_flags;
use crate::render::sentence::{OF_BOTH, sentence};
use crate::render::table::{Align, Style, Table};
use planish::evaluate::Estimate;
use planish::format::{estimate, images, number, percent, share};
use planish::report::Merging;

/// The checkpoints and the curve on V, figures before and after, and the notes.
pub fn text(report: &Merging, notes: &[&String]) -> String {
    let v = &report.validation.data;
    let mut out = format!("on {} of V ({})\n\n", images(v.images), v.origin);
    out += &on_v(report).render(Style::of_stdout());
    out += "\n";
    if let Some(alpha) = report.alpha {
        let chosen = if report.alpha_given { "as set" } else { "the best on V" };
        out += &format!("α = {alpha}, {chosen}\n\n");
    }
    out += &before_after(report).render(Style::of_stdout());
    out += &format!("{OF_BOTH}\n");
    let part = report.test.as_ref().unwrap_or(&report.validation);
    let name = if report.test.is_some() { "test" } else { "validation" };
    let [nll_gain, calibrated_nll_gain] = part.shown_gains();
    out += &format!(
        "\n{name}, before − after, paired: NLL {}, calibrated NLL {} ({}; above 0 is better); \
         before is {}\n",
        estimate(nll_gain),
        estimate(calibrated_nll_gain),
        images(part.before.images),
        report.best
    );
    out += &match &report.output {
        Some(file) => format!("written to {}\n", file.path),
        None => "nothing written\n".into(),
    };
    for note in notes {
        out += &format!("note: {}\n", in_flags(note));
    }
    if let Some(comparison) = part.comparison.as_ref() {
        out += &format!("{}\n", sentence(comparison, "before", "after"));
    }
    out
}

/// The checkpoints, or the models along α.
fn on_v(report: &Merging) -> Table {
    let right = |name| (name, Align::Right);
    let columns = [right("NLL"), right("NLL at T, in-sample"), right("top-1")];
    let figures = |nll, calibrated, top1| [number(nll), number(calibrated), percent(top1)];
    let first = if report.curve.is_empty() { ("checkpoint", Align::Left) } else { right("α") };
    let mut table = Table::new(&[&[first], &columns[..], &[("", Align::Left)]].concat());
    if report.curve.is_empty() {
        for one in &report.ingredients {
            let [nll, calibrated, top1] = figures(one.nll, one.calibrated_nll, one.top1);
            let left_out = if one.used { "" } else { "left out" };
            table.row([one.path.as_str(), &nll, &calibrated, &top1, left_out]);
        }
    }
    for point in &report.curve {
        let [nll, calibrated, top1] = figures(point.nll, point.calibrated_nll, point.top1);
        let used = if Some(point.alpha) == report.alpha { "used" } else { "" };
        table.row([point.alpha.to_string().as_str(), &nll, &calibrated, &top1, used]);
    }
    table
}

fn before_after(report: &Merging) -> Table {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("", Align::Left),
        right("NLL"),
        right("calibrated NLL"),
        right("top-1"),
        right("ECE"),
    ]);
    for (name, part) in [("validation", Some(&report.validation)), ("test", report.test.as_ref())] {
        let Some(part) = part else { continue };
        for (when, s) in [("before", &part.before), ("after", &part.after)] {
            let of = |mean, stderr| estimate(Estimate { mean, stderr });
            table.row([
                format!("{name} {when}"),
                of(s.nll, s.nll_stderr),
                of(s.calibrated_nll, s.calibrated_nll_stderr),
                share(Estimate { mean: s.top1, stderr: s.top1_stderr }),
                number(s.ece),
            ]);
        }
    }
    table
}
