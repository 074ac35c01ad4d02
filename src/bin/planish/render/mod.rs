//! Results and progress as text on the terminal.

pub mod bench;
pub mod calibrate;
pub mod compare;
pub mod diagnosis;
pub mod epochs;
pub mod eval;
pub mod finetune;
pub mod fix;
mod heartbeat;
pub mod hvp;
pub mod inspect;
pub mod merge;
pub mod post_train;
pub mod progress;
pub mod remedies;
pub mod sampling;
pub mod selftest;
pub mod sentence;
pub mod shifts;
pub mod study;
pub mod table;

use crate::message::in_flags;
use std::io::{self, IsTerminal, Write};

/// Columns of prose on a terminal.
const WIDTH: usize = 100;

/// Wraps long lines of prose. Lines of tables, whose columns are two spaces apart, stay as they are.
fn wrapped(text: &str) -> String {
    let options = textwrap::Options::new(WIDTH).subsequent_indent("  ");
    let wrap = |line: &str| match line.trim().contains("  ") {
        true => line.to_owned(),
        false => textwrap::fill(line, &options),
    };
    text.lines().map(wrap).collect::<Vec<_>>().join("\n")
}

/// A text for standard error: wrapped on a terminal, and otherwise unchanged.
pub fn for_stderr(text: &str) -> String {
    match io::stderr().is_terminal() {
        true => wrapped(text),
        false => text.to_owned(),
    }
}

/// Prints a text on standard output, with one line break at its end. Option names in backticks
/// become flags.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    let text = in_flags(text.trim_end_matches('\n'));
    let text = if io::stdout().is_terminal() { wrapped(&text) } else { text };
    writeln!(io::stdout().lock(), "{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_wrapped_and_tables_are_not() {
        let prose = "one word after another ".repeat(8);
        let table = format!("head  {}  1.0", "x".repeat(120));
        let text = wrapped(&format!("{prose}\n{table}\nshort"));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[..2].iter().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(lines[1].starts_with("  ") && lines[2..] == [&table, "short"], "{text}");
    }
}
