//! Text output of `compare`.

use crate::message::in_flags;
use crate::render::sentence::table;
use planish::compare::ComparedModel;
use planish::report::comparison::ComparisonReport;

/// Both models, their differences, and the notes.
pub fn text(report: &ComparisonReport) -> String {
    let place =
        |model: &ComparedModel| match model.checkpoint.as_ref().and_then(|c| c.adapter.as_ref()) {
            None => model.path.clone(),
            Some(adapter) => format!("{} with the adapter {}", model.path, adapter.path),
        };
    let mut text = format!("A: {}\nB: {}\n\n", place(&report.a), place(&report.b));
    text += &table(&report.comparison, ["A", "B"]);
    text += &format!(
        "\n{}\nIntervals are over images. They do not include variation between training runs.\n",
        report.sentence
    );
    report.notes.iter().for_each(|note| text += &format!("note: {}\n", in_flags(note)));
    text
}
