//! Errors in a study file, with line numbers.

use crate::options::Error as OptionError;
use serde_json::{Map, Value as Json};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::{Spanned, Table, Value};

/// An error in a study file.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}: {what}: expected {expected}, found {found}; {remedy}", .path.display())]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// The setting.
    pub what: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

/// A file's name and text, used to locate problems.
#[derive(Clone, Debug)]
pub struct Text {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Text {
    /// A problem at this byte range.
    pub fn problem(
        &self,
        at: Range<usize>,
        what: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem {
            path: self.path.clone(),
            line: self.line(at.start),
            what: what.into(),
            expected: expected.into(),
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    /// Converts an error of the TOML parser.
    pub fn unread(&self, error: &toml::de::Error) -> Problem {
        let at = error.span().unwrap_or(0..0);
        let said = error.message().lines().collect::<Vec<_>>().join("; ");
        let example = "see the example in the help of `planish study`";
        let quoted = |text: &str| text.trim().trim_matches('`').to_owned();
        let pair = said.split_once(", expected ");
        if let Some((name, known)) = pair.and_then(|(found, expected)| {
            found.strip_prefix("unknown field ").map(|name| (quoted(name), expected))
        }) {
            let found = format!("unknown \"{name}\"");
            return self.problem(at, "setting", known, found, "correct or remove it");
        }
        if let Some(name) = said.strip_prefix("missing field ").map(quoted) {
            let (what, expected) = (format!("setting \"{name}\""), "a value in this table");
            return self.problem(at, &what, expected, "none", format!("add it: {example}"));
        }
        if let Some((found, expected)) = pair {
            let found = found.trim_start_matches("invalid type: ");
            return self.problem(at, "value", expected, found, example);
        }
        let found = self.text.get(at.clone()).and_then(|t| t.lines().next()).unwrap_or("").trim();
        let found = if found.is_empty() { said } else { format!("\"{found}\" ({said})") };
        self.problem(at, "TOML", "valid TOML", found, example)
    }

    fn line(&self, byte: usize) -> usize {
        let before = self.text.as_bytes().get(..byte).unwrap_or(self.text.as_bytes());
        before.iter().filter(|&&b| b == b'\n').count() + 1
    }
}

/// Reads a study file as text.
///
/// # Errors
/// An unreadable file.
pub fn read(path: &Path) -> Result<Text, super::Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| super::Error::Unreadable { path: path.into(), source })?;
    Ok(Text { path: path.into(), text })
}

/// Converts a table of options to JSON. Keys may use dashes or underscores.
///
/// # Errors
/// [`Problem`] for a date, which no option accepts, and for a key given in both spellings.
pub fn table(
    text: &Text,
    what: &str,
    options: &Spanned<Table>,
) -> Result<Map<String, Json>, Problem> {
    let json = |(key, value): (&String, &Value)| {
        let value = serde_json::to_value(value).map_err(|e| {
            let expected = "a number, a text, a list or true or false";
            text.problem(options.span(), what, expected, e.to_string(), "correct it")
        })?;
        Ok((key.replace('-', "_"), value))
    };
    let mut all = Map::new();
    for (key, value) in options.as_ref().iter().map(json).collect::<Result<Vec<_>, _>>()? {
        if all.insert(key.clone(), value).is_some() {
            let found = format!("\"{}\" and \"{key}\"", key.replace('_', "-"));
            let expected = "each option once";
            return Err(text.problem(options.span(), what, expected, found, "remove one"));
        }
    }
    Ok(all)
}

/// Converts an option error to a problem of the file.
pub fn refused(text: &Text, what: &str, at: Range<usize>, error: OptionError) -> Problem {
    let remedy = "see the help of `planish post-train`";
    match error {
        OptionError::Value { option, expected, found } => {
            text.problem(at, &format!("{what}, `{option}`"), expected, found, remedy)
        }
        OptionError::Unknown { option, known } => {
            text.problem(at, what, known, format!("unknown \"{option}\""), "correct or remove it")
        }
        OptionError::NoEffect { option, applies_to } => {
            let expected = format!("`{option}` together with {applies_to}");
            text.problem(at, what, expected, "it alone", "remove it, or set what it applies to")
        }
        OptionError::Conflict(said) => {
            text.problem(at, what, "compatible options", said, "correct them")
        }
    }
}

/// A value as text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
