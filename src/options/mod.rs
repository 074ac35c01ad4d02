//! Options: one struct for each thing a user can ask for.
//!
//! Each option is declared once, as a struct field next to the code that reads it. The struct
//! defines the command-line flags (feature `cli`), the keys of a study file, the JSON that a child
//! process reads, and part of a result's fingerprint. [`take`] moves a struct's keys out of a map,
//! so that unknown keys remain and can be reported.

mod limit;
pub mod text;

pub use limit::Limit;
pub use text::{as_size, as_text};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// An invalid option.
///
/// Messages name options by their field, in backticks. The command line shows them as flags. Names
/// from files, data and users are in double quotes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A value out of its range, or of another type.
    #[error("`{option}`: expected {expected}, found {found}")]
    Value {
        /// The option.
        option: String,
        /// What is expected.
        expected: String,
        /// What was given.
        found: String,
    },
    /// An option that has no effect with the other options.
    #[error(
        "`{option}` only applies to {applies_to}; remove `{option}`, or change the setting that it depends on"
    )]
    NoEffect {
        /// The option.
        option: String,
        /// The options with which it would have an effect.
        applies_to: String,
    },
    /// An unknown option name.
    #[error("unknown option `{option}`; the options are {known}")]
    Unknown {
        /// The name.
        option: String,
        /// All option names.
        known: String,
    },
    /// Two options that contradict each other.
    #[error("{0}")]
    Conflict(String),
}

impl Error {
    /// [`Error::Value`].
    pub fn value(option: &str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Value { option: option.into(), expected: expected.into(), found: found.to_string() }
    }
}

/// Checks of numbers, with messages.
pub mod check {
    use super::Error;

    fn number(option: &str, x: f64, holds: bool, expected: &str) -> Result<(), Error> {
        match holds && x.is_finite() {
            true => Ok(()),
            false => Err(Error::value(option, expected, x)),
        }
    }

    /// x > 0.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn positive(option: &str, x: f64) -> Result<(), Error> {
        number(option, x, x > 0.0, "a number above 0")
    }

    /// x ≥ 0.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn not_negative(option: &str, x: f64) -> Result<(), Error> {
        number(option, x, x >= 0.0, "a number from 0")
    }

    /// 0 ≤ x < 1.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn share(option: &str, x: f64) -> Result<(), Error> {
        number(option, x, (0.0..1.0).contains(&x), "a number from 0 to less than 1")
    }

    /// 0 < x ≤ 1.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn up_to_one(option: &str, x: f64) -> Result<(), Error> {
        number(option, x, x > 0.0 && x <= 1.0, "a number above 0 and at most 1")
    }

    /// n ≥ 1.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn count(option: &str, n: usize) -> Result<(), Error> {
        match n {
            0 => Err(Error::value(option, "a whole number from 1", n)),
            _ => Ok(()),
        }
    }
}

/// Names of a struct's options.
pub fn names<T: Default + Serialize>() -> Vec<String> {
    match serde_json::to_value(T::default()) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// Takes a struct's options out of `given`. Missing options keep their defaults; options of other
/// structs stay in `given`.
///
/// # Errors
/// [`Error::Value`] for a value of another type.
pub fn take<T>(given: &mut Map<String, Value>) -> Result<T, Error>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut own = T::default();
    for name in names::<T>() {
        let Some(value) = given.remove(&name) else { continue };
        own = with(&own, &name, value)?;
    }
    Ok(own)
}

/// The struct with one option set.
fn with<T: Serialize + DeserializeOwned>(of: &T, name: &str, value: Value) -> Result<T, Error> {
    let found = match &value {
        Value::String(text) => format!("\"{text}\""),
        other => other.to_string(),
    };
    let refused = |e: serde_json::Error| Error::Value {
        option: name.into(),
        expected: expected(&e.to_string()),
        found: found.clone(),
    };
    let mut fields = serde_json::to_value(of).map_err(refused)?;
    if let Some(fields) = fields.as_object_mut() {
        fields.insert(name.into(), value);
    }
    serde_json::from_value(fields).map_err(refused)
}

/// What serde says it expected, without the names of Rust types.
fn expected(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    match message.rsplit_once("expected ").map_or(message, |(_, expected)| expected) {
        "f64" => "a number".into(),
        "usize" | "u32" | "u64" => "a whole number from 0".into(),
        "bool" | "a boolean" => "true or false".into(),
        expected => expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Two {
        lr: f64,
        clip: Option<f64>,
    }

    impl Default for Two {
        fn default() -> Self {
            Self { lr: 0.5, clip: None }
        }
    }

    #[test]
    fn takes_known_options_and_leaves_the_rest() {
        let mut given = json!({ "clip": 1, "other": true }).as_object().unwrap().clone();
        assert_eq!(take::<Two>(&mut given).unwrap(), Two { lr: 0.5, clip: Some(1.0) });
        assert_eq!(given.keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn type_errors_name_the_option() {
        let mut given = json!({ "lr": "fast" }).as_object().unwrap().clone();
        let error = take::<Two>(&mut given).unwrap_err();
        assert_eq!(error, Error::value("lr", "a number", "\"fast\""));
    }
}
