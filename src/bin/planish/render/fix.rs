//! Text output of `fix`.

use crate::message::in_flags;
use crate::render::sentence;
use crate::render::table::{Align, Style, Table};
use planish::format::images;
use planish::post_train::search::RecipeSearch;
use planish::report::{BASELINE_HEADERS, Fixing, STEP_HEADERS};

/// The steps, figures before and after, the baselines, the conclusion and the notes.
pub fn text(report: &Fixing, notes: &[&String]) -> String {
    let v = &report.validation.data;
    let of_v = match report.searched_on == v.images {
        true => String::new(),
        false => format!("; moves were measured on {}", images(report.searched_on)),
    };
    let mut out = format!("on {} of V ({}){of_v}\n\n", images(v.images), v.origin);
    out += &rows(&STEP_HEADERS, report.step_rows());
    out += "NLL on V at T: in-sample, T is fitted on the same images\n";
    for (name, part, temperature) in [
        ("V, which chose the result: optimistic", Some(&report.validation), sentence::CROSS_FITTED),
        ("test, read once", report.test.as_ref(), sentence::FITTED_ON_V),
    ] {
        let Some(part) = part else { continue };
        out += &format!("\n{name} ({}; {temperature})\n", images(part.data.images));
        if let Some(comparison) = &part.comparison {
            out += &sentence::table(comparison, ["before", "after"]);
        }
    }
    let baselines = report.baseline_rows();
    if !baselines.is_empty() {
        out += &format!(
            "\nstandard methods, fitted on the same V\n{}",
            rows(&BASELINE_HEADERS, baselines)
        );
    }
    out += &format!("\n{}\n", in_flags(&report.conclusion()));
    out += &match &report.output {
        Some(file) if file.undo.is_some() => {
            format!("written to {0}; undo: planish undo {0}\n", file.path)
        }
        Some(file) => format!("written to {}\n", file.path),
        None => "nothing written\n".into(),
    };
    if let Some(taken) = report.search.as_ref().and_then(RecipeSearch::taken) {
        out += &format!("{taken}\n");
    }
    for note in notes {
        out += &format!("note: {}\n", in_flags(note));
    }
    out
}

fn rows<const N: usize>(headers: &[&str; N], rows: Vec<[String; N]>) -> String {
    let mut columns: Vec<(&str, Align)> =
        headers.iter().map(|name| (*name, Align::Right)).collect();
    columns[0].1 = Align::Left;
    let mut table = Table::new(&columns);
    rows.into_iter().for_each(|row| table.row(row));
    table.render(Style::of_stdout())
}
