//! The answers of `bench` as tables of text, for the terminal and the page.

use crate::bench::{Answers, RowResult};
use crate::evaluate::{Effect, Verdict};
use crate::format::{ABSENT, count, effect, effect_in_points, estimate, number, percent};
use crate::report::bench::BenchReport;

/// A question with a table of answers. The first column has the names of the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerTable {
    /// The question, and what the figures are.
    pub title: &'static str,
    /// Names of the columns.
    pub headers: Vec<&'static str>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// Whether the loss falls, whether the perturbation matters, whether anything is left beyond a temperature,
/// and what changes if V may keep the untouched model. Empty for reports of earlier versions.
pub fn answer_tables(report: &BenchReport) -> Vec<AnswerTable> {
    let tables = [falls(report), matters(report), is_left(report), with_epoch_zero(report)];
    tables.into_iter().flatten().filter(|table| !table.rows.is_empty()).collect()
}

/// Says that a report has no answers, if it is of a version that did not compute them.
pub fn unanswered_note(report: &BenchReport) -> Option<&'static str> {
    let unanswered = report.rows.iter().all(|row| row.answers.is_none());
    unanswered.then_some(
        "This bench report is of an earlier version of planish. It has no verdicts that account for \
         the test images; run bench again to get them.",
    )
}

/// What all intervals of the tables are.
pub fn intervals_sentence(report: &BenchReport) -> String {
    format!(
        "Gains in nats; positive is better. 95% intervals account for {} training seeds and the \
         test images.",
        count(report.seeds.len() as u64)
    )
}

fn rows(
    report: &BenchReport,
    of: impl Fn(&RowResult, &Answers) -> Option<Vec<String>>,
) -> Vec<Vec<String>> {
    let row = |row: &RowResult| {
        let mut cells = of(row, row.answers.as_ref()?)?;
        cells.insert(0, row.name.clone());
        Some(cells)
    };
    report.rows.iter().filter_map(row).collect()
}

fn falls(report: &BenchReport) -> Option<AnswerTable> {
    let cells = |_: &RowResult, answers: &Answers| {
        let won_back = answers.won_back.map_or(ABSENT.into(), |share| percent(share.mean));
        let word = match answers.nll.verdict {
            Some(Verdict::Better) => "falls",
            Some(Verdict::Worse) => "rises",
            Some(Verdict::Equivalent) => "same",
            Some(Verdict::Open) => "undecided",
            None => ABSENT,
        };
        let top1 = effect_in_points(&answers.top1);
        Some(vec![effect(&answers.nll), won_back, top1, word.into()])
    };
    Some(AnswerTable {
        title: "Does the loss fall? Gains over the untouched model; recovered: share of the gain \
                from T",
        headers: vec!["", "NLL", "recovered", "top-1, points", "loss"],
        rows: rows(report, cells),
    })
}

fn matters(report: &BenchReport) -> Option<AnswerTable> {
    let cells = |_: &RowResult, answers: &Answers| {
        let calibrated = answers.calibrated_nll_over_control.as_ref()?;
        Some(vec![
            answers.nll_over_control.as_ref().map_or(ABSENT.into(), effect),
            effect(calibrated),
        ])
    };
    Some(AnswerTable {
        title: "Does the perturbation matter? Gains over the control",
        headers: vec!["", "NLL", "calibrated NLL"],
        rows: rows(report, cells),
    })
}

fn is_left(report: &BenchReport) -> Option<AnswerTable> {
    let cells = |_: &RowResult, answers: &Answers| {
        let gain = &answers.calibrated_nll;
        Some(vec![effect(gain), left(gain)])
    };
    Some(AnswerTable {
        title: "Does a gain remain after temperature scaling? Gains over the untouched model",
        headers: vec!["", "calibrated NLL", "answer"],
        rows: rows(report, cells),
    })
}

fn left(gain: &Effect) -> String {
    match (gain.verdict, gain.smallest_visible) {
        (Some(Verdict::Better), _) => "yes".into(),
        (Some(Verdict::Worse), _) => "no, worse".into(),
        (Some(Verdict::Equivalent), _) => "no".into(),
        (Some(Verdict::Open), Some(least)) => {
            format!("undecided, minimum detectable {}", number(least))
        }
        (Some(Verdict::Open), None) => "undecided".into(),
        (None, _) => ABSENT.into(),
    }
}

/// That epoch 0 changes no figure, if V is there and never prefers the untouched model.
pub fn epoch_zero_note(report: &BenchReport) -> Option<&'static str> {
    (kept(report)? == 0).then_some(
        "Allowing the untouched model (epoch 0) changes nothing: V prefers the trained model in \
         every run.",
    )
}

/// The largest number of runs of a row for which V prefers the untouched model.
fn kept(report: &BenchReport) -> Option<usize> {
    report.rows.iter().filter_map(|row| row.epoch_zero.as_ref()).map(|zero| zero.kept).max()
}

/// `None` if V never prefers the untouched model, since nothing changes then.
fn with_epoch_zero(report: &BenchReport) -> Option<AnswerTable> {
    kept(report).filter(|kept| *kept > 0)?;
    let cells = |row: &RowResult, _: &Answers| {
        let zero = row.epoch_zero.as_ref()?;
        let over = zero.answers.calibrated_nll_over_control.as_ref();
        Some(vec![
            format!("{} of {}", zero.kept, report.seeds.len()),
            estimate(zero.calibrated_nll),
            over.map_or(String::new(), effect),
        ])
    };
    Some(AnswerTable {
        title: "With the untouched model (epoch 0) as a candidate in every run, selected on V",
        headers: vec!["", "untouched kept", "calibrated NLL", "gain over the control"],
        rows: rows(report, cells),
    })
}
