//! Figures of each class and group, and the confusion matrix.

use super::text::{escape, folded, note, paragraph, table};
use crate::evaluate::{ByClass, ClassFigures, Estimate};
use crate::format::{ABSENT, count, estimate, percent, share};
use std::fmt::Write;

/// Classes of the largest confusion matrix that is drawn.
const DRAWN: usize = 30;
/// Classes and confusions that are listed; the others are folded or left out.
const LISTED: usize = 15;

/// The classes by accuracy, the groups, and the confusions. `None` if the model has one class.
pub fn by_class(found: &ByClass) -> Option<String> {
    if found.classes.len() < 2 {
        return None;
    }
    let mut out = String::new();
    let headers = |first| [first, "images", "predicted", "top-1", "NLL (nats)", "ECE"];
    let both = |mean: Option<f64>, stderr, show: fn(Estimate) -> String| {
        mean.map_or(ABSENT.into(), |mean| show(Estimate { mean, stderr }))
    };
    if !found.groups.is_empty() {
        let rows: Vec<Vec<String>> = found
            .groups
            .iter()
            .map(|g| {
                vec![
                    g.name.clone(),
                    count(g.images as u64),
                    both(Some(g.top1), g.top1_stderr, share),
                    both(Some(g.nll), g.nll_stderr, estimate),
                    both(Some(g.ece), g.ece_stderr, estimate),
                ]
            })
            .collect();
        if let Some(worst) = found.worst_group.and_then(|at| found.groups.get(at)) {
            out += &paragraph(&format!(
                "Lowest accuracy of a group: {}, {}.",
                worst.name,
                share(Estimate { mean: worst.top1, stderr: worst.top1_stderr })
            ));
        }
        out += &table(&["group", "images", "top-1", "NLL (nats)", "ECE"], &rows);
    }
    let row = |c: &&ClassFigures| {
        vec![
            c.name.clone(),
            count(c.images as u64),
            count(c.predicted as u64),
            both(c.top1, c.top1_stderr, share),
            both(c.nll, c.nll_stderr, estimate),
            both(Some(c.ece), c.ece_stderr, estimate),
        ]
    };
    let rows: Vec<Vec<String>> = found.worst_first().iter().map(row).collect();
    let (first, rest) = rows.split_at(rows.len().min(LISTED));
    out += &paragraph(
        "Classes, lowest accuracy first. ECE is that of the class's probability over all images.",
    );
    out += &table(&headers("class"), first);
    if !rest.is_empty() {
        out += &folded(&format!("{} other classes", rest.len()), &table(&headers("class"), rest));
    }
    out += &if found.classes.len() <= DRAWN { matrix(found) } else { confusions(found) };
    Some(out)
}

/// The confusion matrix; colours show the share of the label's images.
fn matrix(found: &ByClass) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table class=\"heat\"><thead><tr><th scope=\"col\">label, by prediction</th>",
    );
    for class in &found.classes {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(&class.name));
    }
    out += "</tr></thead><tbody>\n";
    for (label, class) in found.classes.iter().enumerate() {
        let mut cells = vec![0; found.classes.len()];
        let own = found.confusion.iter().filter(|cell| cell[0] == label);
        own.for_each(|&[_, predicted, n]| cells[predicted] = n);
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(&class.name));
        for (predicted, n) in cells.into_iter().enumerate() {
            // Errors are coloured. The scale ends at 80% to keep text readable.
            let wrong = predicted != label && class.images > 0;
            let strength = if wrong { 80.0 * n as f64 / class.images as f64 } else { 0.0 };
            let _ = write!(out, "<td style=\"--p:{strength:.0}%\">{}</td>", count(n as u64));
        }
        out += "</tr>\n";
    }
    out += "</tbody></table></div>\n";
    out + &note(
        "Images by label (rows) and predicted class (columns). A stronger colour means a larger share of the label's images.",
    )
}

/// The most frequent confusions.
fn confusions(found: &ByClass) -> String {
    let name = |class: usize| found.classes.get(class).map_or(String::new(), |c| c.name.clone());
    let row = |&[label, predicted, n]: &[usize; 3]| {
        let of = found.classes.get(label).map_or(1, |class| class.images.max(1));
        vec![name(label), name(predicted), count(n as u64), percent(n as f64 / of as f64)]
    };
    let rows: Vec<Vec<String>> = found.confusions().iter().take(LISTED).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    paragraph("The most frequent confusions.")
        + &table(&["label", "predicted as", "images", "of the label"], &rows)
}
