//! Results and progress as text on the terminal.

pub mod diagnosis;
pub mod epochs;
pub mod finetune;
mod heartbeat;
pub mod picture;
pub mod post_train;
pub mod progress;
pub mod sampling;
pub mod sentence;
pub mod shifts;
pub mod table;

use crate::message::in_flags;
use std::io::{self, Write};

/// Prints a text on standard output, with one line break at its end. Option names in backticks
/// become flags.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", in_flags(text.trim_end_matches('\n')))
}
