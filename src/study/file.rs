//! A study file, as TOML has it.

use super::problem::{Problem, Text};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::PathBuf;
use toml::{Spanned, Table, Value};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Folder of the results; without it the file's own name without `.toml`.
    pub out: Option<PathBuf>,
    /// Seed of everything random but the training.
    #[serde(default)]
    pub seed: u64,
    /// `f32` or `bf16`, of evaluations.
    pub precision: Option<Spanned<String>>,
    /// Whether every model is evaluated on every data set; without it, yes.
    #[serde(default = "yes")]
    pub evaluate: bool,
    /// Shifts, each as `eval --shift` takes it.
    #[serde(default)]
    pub shifts: Vec<Spanned<String>>,
    /// Checkpoints.
    pub model: Vec<Model>,
    /// Data sets.
    pub data: Vec<Data>,
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
pub struct Model {
    /// What rows call it.
    pub name: Spanned<String>,
    /// File or folder.
    pub checkpoint: PathBuf,
    /// What is known of it: numbers and texts, each a column.
    #[serde(default = "empty")]
    pub attributes: Spanned<Table>,
    /// Model options of the command line.
    #[serde(default = "empty")]
    pub options: Spanned<Table>,
}

/// A data set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// What rows call it.
    pub name: Spanned<String>,
    /// As `--data` takes it.
    pub source: String,
    /// The split that is evaluated, as `eval --split` has it.
    pub split: Option<String>,
    /// Data options of the command line.
    #[serde(default = "empty")]
    pub options: Spanned<Table>,
}

/// Images of another kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ood {
    /// What rows call them.
    pub name: Spanned<String>,
    /// As `--data` takes them.
    pub source: String,
}

/// Post-training: every combination of what is listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// What rows call it.
    pub name: Spanned<String>,
    /// Names of models; without it, all.
    pub models: Option<Vec<Spanned<String>>>,
    /// Names of data sets; without it, all.
    pub data: Option<Vec<Spanned<String>>>,
    /// As `post-train --method` takes them.
    pub methods: Vec<Spanned<String>>,
    /// p and u of PoL: `"all"`, or a list of pairs.
    pub pairs: Option<Spanned<Value>>,
    /// u of SAM, its variants and plain SGD; without it, all layers.
    pub update: Option<Vec<Spanned<String>>>,
    /// Training seeds.
    #[serde(default = "first_seed")]
    pub seeds: Vec<u64>,
    /// Whether the model's layers are diagnosed on V, and ΔL and κ of p and u written beside the run.
    #[serde(default)]
    pub diagnose: bool,
    /// Options of `post-train`, each one value or a list of values to try.
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
/// [`Problem`]: no TOML, unknown or missing settings, or a name given twice.
pub fn parse(text: &Text) -> Result<File, Problem> {
    let file: File = toml::from_str(&text.text).map_err(|e| text.unread(&e))?;
    unique(text, "[[model]]", file.model.iter().map(|m| &m.name))?;
    unique(text, "[[data]]", file.data.iter().map(|d| &d.name))?;
    unique(text, "[[ood]]", file.ood.iter().map(|o| &o.name))?;
    unique(text, "[[bench]]", file.bench.iter().map(|b| &b.name))?;
    for model in &file.model {
        for (name, value) in model.attributes.as_ref() {
            if !matches!(value, Value::Integer(_) | Value::Float(_) | Value::String(_)) {
                let what = format!("attribute `{name}`");
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
        let told = || format!("`{}`", name.as_ref());
        if name.as_ref().is_empty() || !seen.insert(name.as_ref()) {
            let expected = "a name of its own";
            let remedy = "rows are told apart by it: choose another";
            return Err(text.problem(name.span(), what, expected, told(), remedy));
        }
    }
    Ok(())
}
