//! Options of other commands in a study file: read by the reader of the command line itself.

use super::problem::{Problem, Text};
use crate::images::DataArgs;
use crate::model::ModelFlags;
use clap::Parser;
use toml::{Spanned, Table, Value};

/// Model options alone.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub struct ModelWords {
    /// The options.
    #[command(flatten)]
    pub flags: ModelFlags,
}

/// Data options alone.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub struct DataWords {
    /// The options.
    #[command(flatten)]
    pub data: DataArgs,
}

/// Words of a command line: `--key=value`, of a list its values separated by commas, of `true` the
/// key alone. Keys are written with dashes or underscores.
pub fn words(table: &Table) -> Vec<String> {
    table.iter().filter_map(|(key, value)| word(key, value)).collect()
}

/// One word; none of `false`.
pub fn word(key: &str, value: &Value) -> Option<String> {
    let flag = format!("--{}", key.replace('_', "-"));
    match value {
        Value::Boolean(true) => Some(flag),
        Value::Boolean(false) => None,
        value => Some(format!("{flag}={}", plain(value))),
    }
}

/// A value as a command line has it.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Reads words by the reader of the command line.
///
/// # Errors
/// [`Problem`] with what that reader says.
pub fn read<T: Parser>(
    text: &Text,
    what: &str,
    options: &Spanned<Table>,
    words: &[String],
) -> Result<T, Problem> {
    T::try_parse_from(words).map_err(|error| {
        let said = error.to_string();
        let first = said.lines().next().unwrap_or_default();
        let first = first.strip_prefix("error: ").unwrap_or(first);
        let expected = "options as the command line has them, without their dashes";
        let remedy = "see `planish post-train --help`";
        text.problem(options.span(), what, expected, first, remedy)
    })
}
