//! A comparison as a sentence and as a table.

use crate::render::table::{Align, Style, Table};
use planish::evaluate::Comparison;
use planish::format::{count, estimate, number, percent};
pub use planish::report::sentence::sentence;
use planish::report::sentence::{name, rounded};

/// Where the temperature of a calibrated NLL on V comes from.
pub const CROSS_FITTED: &str = "calibrated NLL: T is cross-fitted on halves of V";
/// The same for tables with both splits.
pub const OF_BOTH: &str = "calibrated NLL: on validation, T is cross-fitted on halves; on test, T is fitted on \
                           validation";
/// Where the temperature of a calibrated NLL on test comes from.
pub const FITTED_ON_V: &str = "calibrated NLL: T is fitted on V";

/// One row per figure, then the test of accuracy.
pub fn table(comparison: &Comparison, [a, b]: [&str; 2]) -> String {
    let right = |name| (name, Align::Right);
    // Models at two times, or two models.
    let (gain, with) = match a {
        "before" => ("gain", ""),
        _ => ("gain of B", "with "),
    };
    let columns = [("", Align::Left), right(a), right(b), right(gain), right("95% interval")];
    let mut table = Table::new(&columns);
    for d in &comparison.differences {
        let share = d.figure == "top1";
        let show = |x: f64| if share { percent(x) } else { rounded(x, d.shown_gain().stderr) };
        let gain = match share {
            true => percent(d.gain),
            false => estimate(d.shown_gain()),
        };
        let interval = d
            .shown_interval()
            .map_or(String::new(), |[low, high]| format!("{} to {}", show(low), show(high)));
        let value = |x: f64| if share { percent(x) } else { number(x) };
        table.row([name(&d.figure).into(), value(d.a), value(d.b), gain, interval]);
    }
    let m = comparison.mcnemar;
    format!(
        "{}\ncorrect only {with}{a}: {} images; only {with}{b}: {}; McNemar's exact p = {}\n",
        table.render(Style::of_stdout()),
        count(m.only_a as u64),
        count(m.only_b as u64),
        number(m.p)
    )
}
