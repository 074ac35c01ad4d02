//! The TOML schema of a study file.

use super::problem::{Problem, Text};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::PathBuf;
use toml::{Spanned, Table, Value};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// Output folder. Default: the file's name without `.toml`.
    pub out: Option<PathBuf>,
    /// Seed of everything random except training.
    #[serde(default)]
    pub seed: u64,
    /// Precision of evaluations, `f32` or `bf16`.
    pub precision: Option<Spanned<String>>,
    /// Whether every model is evaluated on every data set. Default: true.
    #[serde(default = "yes")]
    pub evaluate: bool,
    /// Shifts, in the syntax of `eval --shift`.
    #[serde(default)]
    pub shifts: Vec<Spanned<String>>,
    /// Checkpoints.
    pub model: Vec<StudyModel>,
    /// Data sets.
    pub data: Vec<StudyData>,
    /// Images of other kinds.
    #[serde(default)]
    pub ood: Vec<Ood>,
    /// Post-training.
    #[serde(default)]
    pub bench: Vec<Bench>,
}

fn yes() -> bool {
    true
}

/// A checkpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyModel {
    /// Name in the tables.
    pub name: Spanned<String>,
    /// File or folder.
    pub checkpoint: PathBuf,
    /// Attributes of the model, numbers or texts. Each becomes a column.
    #[serde(default = "empty")]
    pub attributes: Spanned<Table>,
    /// Model options of the command line.
    #[serde(default = "empty")]
    pub options: Spanned<Table>,
}

/// A data set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyData {
    /// Name in the tables.
    pub name: Spanned<String>,
    /// In the syntax of `--data`.
    pub source: String,
    /// The split to evaluate, in the syntax of `eval --split`.
    pub split: Option<String>,
    /// Data options of the command line.
    #[serde(default = "empty")]
    pub options: Spanned<Table>,
}

/// Images of another kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ood {
    /// Name in the tables.
    pub name: Spanned<String>,
    /// In the syntax of `--data`.
    pub source: String,
}

/// Post-training: all combinations of the listed values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// Name in the tables.
    pub name: Spanned<String>,
    /// Names of models. Default: all.
    pub models: Option<Vec<Spanned<String>>>,
    /// Names of data sets. Default: all.
    pub data: Option<Vec<Spanned<String>>>,
    /// Methods, in the syntax of `post-train --method`.
    pub methods: Vec<Spanned<String>>,
    /// p and u of PoL: `"all"`, or a list of pairs.
    pub pairs: Option<Spanned<Value>>,
    /// u of SAM, its variants and plain SGD. Default: all layers.
    pub update: Option<Vec<Spanned<String>>>,
    /// Training seeds.
    #[serde(default = "first_seed")]
    pub seeds: Vec<u64>,
    /// Whether to diagnose the model's layers on V, and to write ΔL and κ of p and u next to each
    /// run.
    #[serde(default)]
    pub diagnose: bool,
    /// Options of `post-train`. Each is one value, or a list of values to try.
    #[serde(default = "empty")]
    pub grid: Spanned<Table>,
}

fn empty() -> Spanned<Table> {
    Spanned::new(0..0, Table::new())
}

fn first_seed() -> Vec<u64> {
    vec![0]
}

/// Reads a study file.
///
/// # Errors
/// [`Problem`]: invalid TOML, unknown or missing settings, or duplicate names.
pub fn parse(text: &Text) -> Result<StudyFile, Problem> {
    let file: StudyFile = toml::from_str(&text.text).map_err(|e| text.unread(&e))?;
    unique(text, "[[model]]", file.model.iter().map(|m| &m.name))?;
    unique(text, "[[data]]", file.data.iter().map(|d| &d.name))?;
    unique(text, "[[ood]]", file.ood.iter().map(|o| &o.name))?;
    unique(text, "[[bench]]", file.bench.iter().map(|b| &b.name))?;
    for model in &file.model {
        for (name, value) in model.attributes.as_ref() {
            if !matches!(value, Value::Integer(_) | Value::Float(_) | Value::String(_)) {
                let what = format!("attribute \"{name}\"");
                let at = model.attributes.span();
                let remedy = "write it as one of these";
                let found = value.type_str();
                return Err(text.problem(at, &what, "a number or a text", found, remedy));
            }
        }
    }
    Ok(file)
}

fn unique<'a>(
    text: &Text,
    what: &str,
    names: impl Iterator<Item = &'a Spanned<String>>,
) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    for name in names {
        let told = || format!("\"{}\"", name.as_ref());
        if name.as_ref().is_empty() || !seen.insert(name.as_ref()) {
            let expected = "a unique name";
            let remedy = "names identify rows; choose another";
            return Err(text.problem(name.span(), what, expected, told(), remedy));
        }
    }
    Ok(())
}
