//! Moves of layers along remedies.

use super::text::{escape, fitting, note, paragraph};
use crate::format::images;
use crate::remedies::RemedyFindings;
use crate::report::{MOVE_HEADERS, NO_MOVE, heat_map, move_rows};
use std::fmt::Write;

/// A heat map of layers × remedies, and a table of the best moves.
pub fn moves(found: &RemedyFindings) -> String {
    let words = "Each layer is moved along directions that the validation images did not choose. The map \
                 shows the gain in NLL after temperature scaling, in nats per image: α and temperature are \
                 chosen on one half of V and measured on the other. A star marks eligible moves.";
    let mut out = paragraph(words) + &map(found);
    let rows: Vec<Vec<String>> = move_rows(found)
        .into_iter()
        .map(|(eligible, cells)| {
            let mark = if eligible { "*" } else { "" };
            cells.into_iter().chain([mark.to_owned()]).collect()
        })
        .collect();
    let headers = [&MOVE_HEADERS[..], &[""]].concat();
    out += &fitting(&headers, &rows);
    out += &paragraph(&found.sentence());
    out += &note(&format!(
        "Gains are cross-fitted on {}; in-sample is the gain after temperature scaling on the images that \
         chose α. p is corrected for {} moves.",
        images(found.images),
        found.looks
    ));
    out
}

fn map(found: &RemedyFindings) -> String {
    let map = heat_map(found);
    let mut out = String::from(
        "<div class=\"scroll\"><table class=\"heat\"><thead><tr><th scope=\"col\">layer</th>",
    );
    for name in &map.columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
    }
    out += "</tr></thead><tbody>\n";
    for (layer, cells) in &map.rows {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(layer));
        for cell in cells {
            // 80% keeps the text readable.
            let share = cell.map_or(0.0, |cell| 80.0 * cell.share);
            let text = cell.map_or(NO_MOVE.into(), |cell| cell.text());
            let _ = write!(out, "<td style=\"--p:{share:.0}%\">{}</td>", escape(&text));
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}
