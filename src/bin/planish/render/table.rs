//! Plain-text tables for terminals and files.

use std::io::IsTerminal;

/// Width of the longest bar, in characters.
const BAR: usize = 20;

/// Column alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For text.
    Left,
    /// For numbers.
    Right,
}

/// Whether to mark up text for a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Plain text.
    Plain,
    /// Bold headers and coloured bars, by ANSI escapes.
    Ansi,
}

impl Style {
    /// The style for standard output: ANSI on a terminal that is not `dumb`, unless `NO_COLOR`
    /// is set and not empty (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let able = std::io::stdout().is_terminal() && !dumb && set("NO_COLOR").is_none();
        if able { Self::Ansi } else { Self::Plain }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.into(),
            Self::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Rows of cells under headers, optionally with a bar at the end of a row.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<(Vec<String>, Option<f64>)>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|&(name, align)| (name.into(), align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty; extra cells are dropped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.push(cells, None);
    }

    /// Adds a row with a bar. The longest bar in the table has the full width. A value that is not
    /// positive has no bar.
    pub fn row_with_bar(&mut self, cells: impl IntoIterator<Item = impl Into<String>>, value: f64) {
        self.push(cells, Some(value));
    }

    fn push(&mut self, cells: impl IntoIterator<Item = impl Into<String>>, bar: Option<f64>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push((cells, bar));
    }

    /// The table as text: one line per row, two spaces between columns, no trailing spaces.
    pub fn render(&self, style: Style) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (name, _))| {
                let cells = self.rows.iter().map(|(cells, _)| width(&cells[i]));
                cells.fold(width(name), usize::max)
            })
            .collect();
        let line = |cells: &[&str]| -> String {
            let set =
                cells.iter().zip(&widths).zip(&self.columns).map(|((cell, &full), column)| {
                    let space = " ".repeat(full.saturating_sub(width(cell)));
                    match column.1 {
                        Align::Left => format!("{cell}{space}"),
                        Align::Right => format!("{space}{cell}"),
                    }
                });
            set.collect::<Vec<_>>().join("  ")
        };
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let mut out = style.paint("1", line(&names).trim_end()) + "\n";
        let bars = self.rows.iter().filter_map(|(_, bar)| *bar);
        let longest = bars.filter(|bar| bar.is_finite()).fold(0.0, f64::max);
        for (cells, value) in &self.rows {
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            let drawn = value.map(|value| bar(value / longest)).unwrap_or_default();
            if drawn.is_empty() {
                out += line(&cells).trim_end();
            } else {
                out += &(line(&cells) + "  " + &style.paint("36", &drawn));
            }
            out.push('\n');
        }
        out
    }
}

/// A bar with this share of the full width, to an eighth of a character.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if share.is_nan() || share <= 0.0 {
        return String::new();
    }
    let eighths = ((share.min(1.0) * (8 * BAR) as f64).round() as usize).max(1);
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// Counts characters, not bytes: ± and κ have width 1.
fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("layer", Align::Left), ("ΔL", Align::Right)]);
        table.row_with_bar(["embed", "-0.02 ± 0.01"], -0.02);
        table.row_with_bar(["block.11", "0.25"], 0.25);
        table.row_with_bar(["head", "0.5"], 0.5);
        table.row(["norm"]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let expected = [
            "layer               ΔL",
            "embed     -0.02 ± 0.01",
            "block.11          0.25  ██████████",
            "head               0.5  ████████████████████",
            "norm",
        ];
        assert_eq!(table().render(Style::Plain).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn colours_only_add_escapes() {
        let painted = table().render(Style::Ansi);
        assert!(painted.contains("\x1b["));
        let stripped =
            ["\x1b[1m", "\x1b[36m", "\x1b[0m"].iter().fold(painted, |t, e| t.replace(e, ""));
        assert_eq!(stripped, table().render(Style::Plain));
    }

    #[test]
    fn bars_of_small_and_non_positive_values() {
        assert_eq!((bar(1e-9).as_str(), bar(0.5 / BAR as f64).as_str()), ("▏", "▌"));
        assert_eq!([0.0, -1.0, f64::NAN].map(bar).concat(), "");
        let mut flat = Table::new(&[("x", Align::Right)]);
        flat.row_with_bar(["0"], 0.0);
        assert_eq!(flat.render(Style::Plain), "x\n0\n");
    }
}
