//! Text output of a search along remedies.

use super::table::{Align, Style, Table};
use crate::message::in_flags;
use planish::format::images;
use planish::remedies::RemedyFindings;
use planish::report::{HeatCell, MOVE_HEADERS, NO_MOVE, heat_map, move_rows};

/// The map of layers × remedies, the best moves, and one sentence.
pub fn text(found: &RemedyFindings) -> String {
    let mut out = format!(
        "\nmoves along remedies: gain in nats after temperature scaling, cross-fitted on {} of V; * eligible\n{}\n",
        images(found.images),
        map(found)
    );
    out += &format!(
        "the best of {} moves; gains are cross-fitted, p corrected for all moves\n{}\n",
        found.looks,
        table(found)
    );
    out += &format!("{}\n", found.sentence());
    for note in &found.notes {
        out += &format!("note: {}\n", in_flags(note));
    }
    out
}

fn map(found: &RemedyFindings) -> String {
    let map = heat_map(found);
    let mut columns = vec![("layer", Align::Left)];
    columns.extend(map.columns.iter().map(|name| (name.as_str(), Align::Right)));
    let mut table = Table::new(&columns);
    for (layer, cells) in map.rows {
        let cells = cells.into_iter().map(|cell| cell.map_or(NO_MOVE.into(), shaded));
        table.row(std::iter::once(layer).chain(cells));
    }
    table.render(Style::of_stdout())
}

/// A gain behind a block that is the darker the larger it is.
fn shaded(cell: HeatCell) -> String {
    let shade = match cell.share {
        x if x <= 0.05 => " ",
        x if x <= 0.25 => "░",
        x if x <= 0.5 => "▒",
        x if x <= 0.75 => "▓",
        _ => "█",
    };
    let space = if cell.eligible { "" } else { " " };
    format!("{shade} {}{space}", cell.text())
}

fn table(found: &RemedyFindings) -> String {
    let mut columns = MOVE_HEADERS.map(|name| (name, Align::Right)).to_vec();
    columns[0].1 = Align::Left;
    columns.push(("", Align::Left));
    let mut table = Table::new(&columns);
    for (eligible, cells) in move_rows(found) {
        let mark = if eligible { "*" } else { "" };
        table.row(cells.into_iter().chain([mark.to_owned()]));
    }
    table.render(Style::of_stdout())
}
